"""Payloads that are pulled through the broker: it passes on who needs what, and the chunks, and keeps nothing."""

from netfutures.wire import Chunk, Need, RemoteProtocolError

from .roster import WorkerRecord
from .session import ClientSession
from .state import BrokerState, Party


def on_need(state: BrokerState, party: Party, need: Need) -> None:
    """Somebody wants the bytes of a payload."""
    if isinstance(party, WorkerRecord):
        _on_worker_need(state, party, need)
    else:
        _on_client_need(state, party, need)


def _on_client_need(state: BrokerState, session: ClientSession, need: Need) -> None:
    if type(need.key) is not int:
        raise RemoteProtocolError("a client needs outcomes, by dispatch number")
    worker = state.roster.get(session.large.get(need.key, b""))
    if worker is None:
        state.send(session, Chunk(session.identity, need.key, need.offset, b"", True))
    elif need.limit > need.offset:
        state.send(worker, Need(session.identity, need.key, need.offset, need.limit))
    else:
        del session.large[need.key]
        found = worker.dispatch_of(need.key)
        if found is not None:
            worker.release(found, need.key - found.base, 1)
            state.releasing[worker.identity] = worker


def _on_worker_need(state: BrokerState, worker: WorkerRecord, need: Need) -> None:
    session = state.sessions.get(need.session)
    key = need.key
    if session is None:
        state.send(worker, Chunk(need.session, key, need.offset, b"", True))
        return
    if type(key) is int:
        dispatch = worker.dispatch_of(key)
        if dispatch is None or dispatch.session != need.session:
            state.send(worker, Chunk(need.session, key, need.offset, b"", True))
            return
        number = dispatch.first + key - dispatch.base
        session.wanted[number] = (worker.identity, key)
        key = number
    else:
        assert type(key) is bytes
        session.wanted_blobs.setdefault(key, set()).add(worker.identity)
    state.send(session, Need(session.identity, key, need.offset, need.limit))


def on_chunk(state: BrokerState, party: Party, chunk: Chunk) -> None:
    """Bytes of a payload go to whoever asked for them."""
    if isinstance(party, WorkerRecord):
        session = state.sessions.get(chunk.session)
        if session is not None and type(chunk.key) is int and session.large.get(chunk.key) == party.identity:
            state.send(session, chunk)
        return
    key = chunk.key
    identities: set[bytes] = set()
    if type(key) is int:
        if key in party.wanted:
            identity, key = party.wanted[key]
            identities = {identity}
    else:
        assert type(key) is bytes
        identities = party.wanted_blobs.get(key, identities)
    for identity in identities:
        worker = state.roster.get(identity)
        if worker is not None:
            state.send(worker, Chunk(party.identity, key, chunk.offset, chunk.content, chunk.abort))
