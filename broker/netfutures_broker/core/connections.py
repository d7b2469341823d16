"""Who is who: hellos, gaps, parties that are away, and what is compared when one comes back."""

from netfutures.conversation import Verdict
from netfutures.limits import (
    CREDIT_BYTES,
    CREDIT_TASKS,
    LEASE_S,
    PAUSE_S,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    RECONNECT_TIMEOUT_MAX_S,
    WHO_INTERVAL_S,
)
from netfutures.line import Line
from netfutures.ranges import merge
from netfutures.wire import Cancel, ClientHello, Close, Envelope, Refused, Welcome, Who, WorkerHello

from .handout import send_stale
from .relay import pass_on_again
from .roster import WorkerRecord
from .run import Dispatch
from .session import ClientSession
from .state import BrokerState, Party
from .tasks import release_outcomes

ASKED_ROUTES_MAX = 1000
"""Unknown routes that are remembered, so that each is asked who it is at most once a second."""


def ask_who(state: BrokerState, route: bytes, now: float) -> None:
    """Somebody unknown spoke: it shall say hello."""
    asked_at = state.asked_who.get(route)
    if asked_at is None or now - asked_at >= WHO_INTERVAL_S:
        if len(state.asked_who) >= ASKED_ROUTES_MAX:
            state.asked_who.clear()
        state.asked_who[route] = now
        state.answer(route, Who())


def accept(state: BrokerState, party: Party, route: bytes, envelope: Envelope, now: float) -> bool:
    """Checks the numbers of a message; whether it is the next one of this party."""
    line = party.line
    assert line is not None
    verdict = line.conversation.accept(envelope.connection, envelope.sequence, envelope.acknowledged)
    if verdict is Verdict.FRESH:
        line.heard_at = now
        if isinstance(party, WorkerRecord):
            party.heard_at = now
        return True
    if verdict is Verdict.STALE:
        state.counters.stale_messages += 1
    else:
        state.counters.gaps += 1
        put_away(state, party, now)
        ask_who(state, route, now)
    return False


def put_away(state: BrokerState, party: Party, now: float) -> None:
    """The connection of this party is over; it may come back with another one."""
    if isinstance(party, ClientSession):
        release_outcomes(state, party)  # What it has acknowledged must not be repeated.
    if party.line is not None and party.line.route is not None:
        del state.routes[party.line.route]
    party.line = None
    party.away_since = now
    state.owing.pop(party.identity, None)
    state.wake_no_later(now + (PAUSE_S if isinstance(party, WorkerRecord) else party.reconnect_timeout_s))


def notice_pause(state: BrokerState, now: float) -> None:
    """A gap in our own running is nobody else's silence: every deadline moves by it."""
    last_turn, state.last_turn = state.last_turn, now
    if last_turn is None or state.wake_at is None:
        return
    # It was not a pause while there was nothing to do.
    gap = now - max(last_turn, state.wake_at)
    if gap <= PAUSE_S:
        return
    for party in state.parties():
        if party.away_since is not None:
            party.away_since += gap
    for worker in state.roster:
        worker.heard_at += gap


def speaks_our_protocol(state: BrokerState, route: bytes, hello: ClientHello | WorkerHello) -> bool:
    """Refuses a hello of another major protocol, with a sentence that names both sides."""
    if hello.protocol[0] == PROTOCOL_MAJOR:
        return True
    theirs = f"protocol {hello.protocol[0]}.{hello.protocol[1]} (netfutures {hello.versions.get('netfutures', '?')})"
    why = (
        f"this broker speaks protocol {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}, you speak {theirs}:"
        " install the same netfutures on both sides"
    )
    state.counters.refused += 1
    state.answer(route, Refused(why))
    state.note(f"refused a hello: {why}")
    return False


def _connect(state: BrokerState, party: Party, route: bytes, connection: int, now: float) -> None:
    # A route leads to one party, and a party has one: whoever said hello last.
    for former in (party, state.routes.get(route)):
        if former is not None and former.line is not None:
            put_away(state, former, now)
    party.away_since = None
    party.connection = connection
    party.line = Line(route, connection, now)
    party.line.conversation.received = 1
    state.routes[route] = party
    state.asked_who.pop(route, None)
    state.expect_wake(now)
    protocol = (PROTOCOL_MAJOR, PROTOCOL_MINOR)
    state.send(party, Welcome(protocol, state.epoch, CREDIT_TASKS, CREDIT_BYTES, LEASE_S))


def on_client_hello(state: BrokerState, route: bytes, connection: int, hello: ClientHello, now: float) -> None:
    """A client opens a session or comes back to it."""
    if not speaks_our_protocol(state, route, hello):
        return
    session = state.sessions.get(hello.session)
    if hello.session in state.dropped:
        state.counters.refused += 1
        state.answer(route, Refused("you were away for so long that your session and its tasks were dropped"))
        return
    if session is None:
        session = ClientSession(hello.session, hello.token, hello.settings, hello.initializer)
        state.sessions[hello.session] = session
    elif session.token != hello.token or connection <= session.connection:
        state.counters.stale_messages += 1
        return
    session.reconnect_timeout_s = min(hello.reconnect_timeout_s, RECONNECT_TIMEOUT_MAX_S)
    _connect(state, session, route, connection, now)
    session.outbox.repeat_sent()
    pass_on_again(state, session)
    state.touch(session)
    state.resume_turn(session)


def on_worker_hello(state: BrokerState, route: bytes, connection: int, hello: WorkerHello, now: float) -> None:
    """A worker registers or comes back."""
    if not speaks_our_protocol(state, route, hello):
        return
    worker = state.roster.get(hello.worker)
    if worker is None:
        worker = WorkerRecord(hello.worker, hello.token, hello.host, hello.pid, hello.slots)
        state.roster.add(worker)
    elif worker.token != hello.token or connection <= worker.connection:
        state.counters.stale_messages += 1
        return
    worker.credit_tasks = hello.credit_tasks
    worker.heard_at = now
    _connect(state, worker, route, connection, now)
    _reconcile(state, worker, hello)


def _reconcile(state: BrokerState, worker: WorkerRecord, hello: WorkerHello) -> None:
    """Compares what a worker says it has with what was handed to it; both may have missed messages."""
    worker.blobs.clear()
    for session in state.sessions.values():
        session.opened.discard(worker.identity)
    for identity in hello.sessions:
        known = state.sessions.get(identity)
        if known is None or known.is_broken:
            state.send(worker, Close(identity, True))
        else:
            known.opened.add(worker.identity)
    claimed: dict[int, list[tuple[int, int]]] = {}
    for base, offset, count in (*hello.held, *hello.finished):
        claimed.setdefault(base, []).append((offset, count))
    for dispatch in reversed(list(worker.dispatches.values())):
        _take_back_unclaimed(state, worker, dispatch, claimed.get(dispatch.base, []))
    for base, offset, count in (*hello.held, *hello.finished):
        worker.stale += worker.ended_parts(base, offset, count)
    # Before it gets new tasks: else these might run in a child that is ended because of what ran there before.
    send_stale(state, worker)
    for session in state.sessions.values():
        for recall in session.recalls.values():
            if worker.identity in recall.awaited:
                state.send(worker, Cancel(recall.number, session.identity))
    pass_on_again(state, worker)


def _take_back_unclaimed(
    state: BrokerState, worker: WorkerRecord, dispatch: Dispatch, claims: list[tuple[int, int]]
) -> None:
    """What was handed out and is not claimed never arrived, or was taken back: it waits again."""
    unclaimed = bytearray(b"\1") * dispatch.count
    for offset, count in claims:
        stop = min(offset + count, dispatch.count)
        unclaimed[offset:stop] = bytes(max(0, stop - offset))
    lost = [
        (dispatch.base, at, 1)
        for offset, count in dispatch.current_parts(0, dispatch.count)
        for at in range(offset, offset + count)
        if unclaimed[at]
    ]
    for _, offset, count in reversed(merge(lost)):
        state.take_back(worker, dispatch, offset, count)
