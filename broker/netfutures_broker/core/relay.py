"""Payloads that are pulled through the broker: it passes on who needs what, and the chunks, and keeps neither.

It only notes which `Need` is not answered yet: answers come in the order of the questions, and when the side that
answers comes back with another connection it is asked again.
"""

from collections import deque
from itertools import chain

from netfutures.wire import Chunk, Need, RemoteProtocolError

from .roster import WorkerRecord
from .session import ClientSession, Wanted
from .state import BrokerState, Party


def on_need(state: BrokerState, party: Party, need: Need, now: float) -> None:
    """Somebody wants the bytes of a payload."""
    if isinstance(party, WorkerRecord):
        _on_worker_need(state, party, need)
    elif need.limit > need.offset:
        _on_client_need(state, party, need)
    else:
        # The client has all of it; this one is repeated until it is acknowledged, as a batch is.
        state.owe(party, now)
        _release_large(state, party, need.key)


def _on_client_need(state: BrokerState, session: ClientSession, need: Need) -> None:
    key = need.key
    if type(key) is not int:
        raise RemoteProtocolError("a client needs outcomes, by dispatch number")
    worker = state.roster.get(session.large.get(key, b""))
    if worker is None:
        state.send(session, Chunk(session.identity, key, need.offset, b"", True))
        return
    passed_on = Need(session.identity, key, need.offset, need.limit)
    session.pulled.setdefault(key, deque()).append(passed_on)
    state.send(worker, passed_on)


def _release_large(state: BrokerState, session: ClientSession, key: int | bytes) -> None:
    worker = state.roster.get(session.large.pop(key, b"")) if type(key) is int else None
    if worker is None or type(key) is not int:
        return
    session.pulled.pop(key, None)
    dispatch = worker.dispatch_of(key)
    if dispatch is not None:
        worker.release(dispatch, key - dispatch.base, 1)
        state.releasing[worker.identity] = worker


def _on_worker_need(state: BrokerState, worker: WorkerRecord, need: Need) -> None:
    session = state.sessions.get(need.session)
    key = need.key
    if session is not None and type(key) is int:
        dispatch = worker.dispatch_of(key)
        if dispatch is None or dispatch.session != need.session:
            session = None
        else:
            key = dispatch.first + key - dispatch.base
    if session is None:
        state.send(worker, Chunk(need.session, need.key, need.offset, b"", True))
        return
    wanted = Wanted(worker.identity, need.key, need.offset, need.limit)
    session.wanted.setdefault(key, deque()).append(wanted)
    state.send(session, Need(session.identity, key, need.offset, need.limit))


def pass_on_again(state: BrokerState, party: Party) -> None:
    """This party has another connection: what it was asked and has not answered may be lost."""
    if isinstance(party, ClientSession):
        for key, waiting in party.wanted.items():
            for wanted in waiting:
                state.send(party, Need(party.identity, key, wanted.offset, wanted.limit))
        return
    for session in state.sessions.values():
        unanswered = [needs for key, needs in session.pulled.items() if session.large[key] == party.identity]
        for need in chain.from_iterable(unanswered):
            state.send(party, need)


def on_chunk(state: BrokerState, party: Party, chunk: Chunk) -> None:
    """Bytes of a payload go to whoever asked for them."""
    if isinstance(party, WorkerRecord):
        _on_worker_chunk(state, party, chunk)
    else:
        _on_client_chunk(state, party, chunk)


def _on_worker_chunk(state: BrokerState, worker: WorkerRecord, chunk: Chunk) -> None:
    session = state.sessions.get(chunk.session)
    key = chunk.key
    if session is None or type(key) is not int or session.large.get(key) != worker.identity:
        return
    needs = session.pulled.get(key)
    if needs and _answers(chunk, needs[0].limit):
        needs.popleft()
        if not needs:
            del session.pulled[key]
    state.send(session, chunk)


def _on_client_chunk(state: BrokerState, session: ClientSession, chunk: Chunk) -> None:
    waiting = session.wanted.get(chunk.key)
    if waiting is None:
        return
    wanted = waiting[0]
    if _answers(chunk, wanted.limit):
        waiting.popleft()
        if not waiting:
            del session.wanted[chunk.key]
    worker = state.roster.get(wanted.worker)
    if worker is not None:
        state.send(worker, Chunk(session.identity, wanted.key, chunk.offset, chunk.content, chunk.abort))


def _answers(chunk: Chunk, limit: int) -> bool:
    """Whether this is the last chunk that answers a `Need` up to this limit."""
    return chunk.abort or chunk.offset + len(chunk.content) >= limit
