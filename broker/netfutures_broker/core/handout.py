"""Which task goes to which worker, and everything else that leaves at the end of a turn."""

from netfutures.limits import BATCH_BYTES_MAX, BATCH_TASKS_MAX
from netfutures.ranges import merge
from netfutures.wire import Acknowledge, Open, Release, Stale, Tasks

from .roster import WorkerRecord
from .run import Dispatch
from .session import ClientSession
from .state import BrokerState
from .task import Event


def hand_out(state: BrokerState, now: float) -> None:
    """Gives sessions their turns, one message of tasks each, while a worker has room."""
    turns = state.turns
    shares: dict[bytes, int] = {}
    while turns:
        worker, usable = state.roster.choose(now)
        if worker is None:
            return
        session = turns[0]
        if session.backlog and session.line is not None:
            # What is left is for those workers that have not had their share of it in this turn.
            given = shares.get(session.identity, 0)
            shares[session.identity] = given + 1
            _hand_out_to(state, session, worker, usable - given % usable)
        if session.backlog and session.line is not None:
            turns.rotate(-1)
        else:
            turns.popleft()


def _hand_out_to(state: BrokerState, session: ClientSession, worker: WorkerRecord, sharers: int) -> None:
    """What the worker has room for, and no more than its share when others have room too."""
    share = -(-session.backlog_tasks // sharers)
    left = min(worker.room_tasks, share, BATCH_TASKS_MAX)
    size_bytes = 0
    blobs = []
    runs = []
    while left > 0 and session.backlog and size_bytes < BATCH_BYTES_MAX:
        piece = session.take(left)
        run, offset, count = piece.run, piece.offset, piece.count
        payloads = run.payloads if count == len(run) else run.payloads[offset : offset + count]
        size_bytes += sum(map(len, payloads))
        left -= count
        if (session.identity, run.digest) not in worker.blobs:
            worker.blobs.add((session.identity, run.digest))
            blobs.append(session.blobs[run.digest])
        dispatch = Dispatch(state.next_base, run, offset, count, session.identity, worker.identity)
        state.next_base += count
        dispatch.advance(0, count, Event.HAND_OUT)
        worker.hold(dispatch)
        runs.append((dispatch.base, run.digest, run.options, payloads))
    if worker.identity not in session.opened:
        session.opened.add(worker.identity)
        state.send(worker, Open(session.identity, session.settings, session.initializer))
    state.send(worker, Tasks(session.identity, blobs, runs), batch=True)


def send_outboxes(state: BrokerState) -> None:
    """Sends clients what has gathered for them, as far as their windows are open."""
    touched, state.touched = state.touched, {}
    for session in touched.values():
        while (message := session.next_batch()) is not None:
            state.send(session, message, batch=True)


def send_releases(state: BrokerState) -> None:
    """Tells workers which outcomes the clients have, and which dispatches are over."""
    releasing, state.releasing = state.releasing, {}
    for worker in releasing.values():
        released, worker.released = merge(worker.released), []
        for start in range(0, len(released), BATCH_TASKS_MAX):
            state.send(worker, Release(released[start : start + BATCH_TASKS_MAX]))
        send_stale(state, worker)


def send_stale(state: BrokerState, worker: WorkerRecord) -> None:
    """Tells a worker which dispatches are over."""
    stale, worker.stale = merge(worker.stale), []
    for start in range(0, len(stale), BATCH_TASKS_MAX):
        state.send(worker, Stale(stale[start : start + BATCH_TASKS_MAX]))


def send_acknowledgements(state: BrokerState, now: float) -> None:
    """Acknowledges alone what nothing has carried in time."""
    for identity, party in list(state.owing.items()):
        line = party.line
        if line is None or line.conversation.owed_since is None:
            del state.owing[identity]
        elif line.conversation.must_acknowledge(now):
            state.send(party, Acknowledge())
            del state.owing[identity]
