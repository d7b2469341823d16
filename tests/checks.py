"""What must hold of each core after every step: one function a core that walks its whole state and asserts it."""

from collections import Counter
from itertools import compress, pairwise

from netfutures.client.core.session import Session
from netfutures.fields import Reference
from netfutures.ranges import HELD, KEPT, OVER
from netfutures_broker.core.roster import WorkerRecord
from netfutures_broker.core.run import Dispatch, Run
from netfutures_broker.core.session import ClientSession
from netfutures_broker.core.state import BrokerState
from netfutures_broker.core.task import State as TaskState
from netfutures_worker.core.slot import Slot
from netfutures_worker.core.slot import State as SlotState
from netfutures_worker.core.state import TaskArrived, WorkerState
from netfutures_worker.core.work import Holding

Places = dict[int, bytearray]
"""In how many places each task of a run or a holding is, by its id."""
WAITS_OR_RUNS = bytes(int(state in (TaskState.QUEUED, TaskState.SENT, TaskState.RUNNING)) for state in range(256))
"""A translation of task states: 1 where a task has to be in exactly one place."""


def note(places: Places, owner: Run | Holding, offset: int, count: int) -> None:
    """These tasks are in one place more."""
    counts = places.get(id(owner))
    if counts is None:
        counts = places[id(owner)] = bytearray(len(owner.states if isinstance(owner, Run) else owner.marks))
    before = counts[offset : offset + count]
    counts[offset : offset + count] = bytes(number + 1 for number in before) if any(before) else b"\1" * count


# The broker.


def check_broker(state: BrokerState) -> None:
    """Each task is in exactly one place, and every count agrees with what it counts."""
    runs: dict[int, Run] = {}
    places: Places = {}
    for identity, session in state.sessions.items():
        assert identity == session.identity
        _check_backlog(session, runs, places)
        _check_session(state, session)
    for worker in state.roster:
        _check_hand(state, worker, runs, places)
        _check_worker_record(state, worker)
    for run in runs.values():
        expected = run.states.translate(WAITS_OR_RUNS)
        found = places.get(id(run), bytearray(len(run)))
        if found != expected:
            at = next(at for at in range(len(run)) if found[at] != expected[at])
            name = TaskState(run.states[at]).name
            raise AssertionError(f"task {run.first + at}, {name}, is in {found[at]} places")
    _check_dispatch_numbers(state)
    _check_routes(state)


def _check_backlog(session: ClientSession, runs: dict[int, Run], places: Places) -> None:
    assert session.backlog_tasks == sum(piece.count for piece in session.backlog)
    for piece in session.backlog:
        run = runs[id(piece.run)] = piece.run
        assert piece.count > 0
        assert 0 <= piece.offset <= piece.offset + piece.count <= len(run)
        assert run.first + piece.offset + piece.count <= session.submitted
        queued = run.states.count(TaskState.QUEUED, piece.offset, piece.offset + piece.count)
        assert queued == piece.count, f"of {piece.count} tasks that wait, from {run.first} on, {queued} are queued"
        note(places, run, piece.offset, piece.count)


def _check_hand(state: BrokerState, worker: WorkerRecord, runs: dict[int, Run], places: Places) -> None:
    held: Counter[bytes] = Counter()
    for base, dispatch in worker.dispatches.items():
        assert base == dispatch.base
        assert dispatch.worker == worker.identity
        assert dispatch.session in state.sessions, "a dispatch of a session that is over"
        assert not state.sessions[dispatch.session].is_broken, "a dispatch of a broken session"
        assert dispatch.open_count == dispatch.count - dispatch.marks.count(OVER) > 0
        run = runs[id(dispatch.run)] = dispatch.run
        for offset, count in dispatch.current_parts(0, dispatch.count):
            start = dispatch.offset + offset
            states = [run.states.count(known, start, start + count) for known in (TaskState.SENT, TaskState.RUNNING)]
            assert sum(states) == count, "a task that a worker holds is neither sent nor running"
            note(places, run, start, count)
        for offset, count in dispatch.kept_parts(0, dispatch.count):
            start = dispatch.offset + offset
            assert run.states.count(TaskState.DONE, start, start + count) == count, "an outcome is kept of no done task"
        if HELD in dispatch.marks:
            held[dispatch.session] += dispatch.marks.count(HELD)
    assert worker.held_of == held
    assert worker.held_tasks == held.total()


def _check_dispatch_numbers(state: BrokerState) -> None:
    dispatches: list[Dispatch] = [dispatch for worker in state.roster for dispatch in worker.dispatches.values()]
    dispatches.sort(key=lambda dispatch: dispatch.base)
    for one, following in pairwise(dispatches):
        assert one.base + one.count <= following.base, "two dispatches share a number"
    assert not dispatches or dispatches[-1].base + dispatches[-1].count <= state.next_base


def _check_session(state: BrokerState, session: ClientSession) -> None:
    assert (session.line is None) == (session.away_since is not None)
    assert state.turns.count(session) <= 1
    if session.backlog and session.line is not None:
        assert session in state.turns, "tasks wait and nobody will ever hand them out"
    if session.is_broken:
        assert not session.backlog
        assert not session.recalls
        assert not session.opened
        assert session not in state.turns
    assert session.pulled.keys() <= session.large.keys()
    assert all(state.roster.get(identity) is not None for identity in session.large.values())
    for recall in session.recalls.values():
        assert recall.awaited, "a recall waits for nobody"
        assert all(state.roster.get(identity) is not None for identity in recall.awaited)
    assert all(state.roster.get(identity) is not None for identity in session.opened)
    if session.outbox.waiting and session.line is not None and session.line.conversation.is_open:
        assert session.identity in state.touched, "something could be sent and nobody will look"


def _check_worker_record(state: BrokerState, worker: WorkerRecord) -> None:
    assert (worker.line is None) == (worker.away_since is not None)
    if worker.released or worker.stale:
        assert worker.identity in state.releasing, "a worker would never hear what it may forget"
    assert all(session in state.sessions for session, _ in worker.blobs)


def _check_routes(state: BrokerState) -> None:
    for party in state.parties():
        if party.line is not None:
            assert party.line.route is not None
            assert state.routes.get(party.line.route) is party
            owes = party.line.conversation.owed_since is not None
            assert not owes or party.identity in state.owing, "an acknowledgement is owed and will never go"
    parties = {id(party) for party in state.parties()}
    for route, party in state.routes.items():
        assert id(party) in parties, "a route to a party that is gone"
        assert party.line is not None
        assert party.line.route == route
    assert all(id(party) in parties for party in state.owing.values())
    assert all(id(session) in parties for session in state.turns)
    assert all(id(session) in parties for session in state.touched.values())
    if parties:
        assert state.wake_at is not None, "somebody is known and no deadline is set"


class CreditWatch:
    """Sees between two steps that nobody is handed more tasks than it has room for."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}

    def check(self, state: BrokerState) -> None:
        """Held tasks may exceed the credit only when the credit shrank under them."""
        for worker in state.roster:
            before = self._held.get(id(worker), 0)
            assert worker.held_tasks <= max(worker.credit_tasks, before), "a worker above its credit"
        self._held = {id(worker): worker.held_tasks for worker in state.roster}


def check_broker_is_idle(state: BrokerState) -> None:
    """Nothing is left of tasks that have ended, once everything is acknowledged."""
    for session in state.sessions.values():
        if session.is_broken:
            continue  # Its client waits for nothing any more.
        assert not session.backlog
        assert not session.outbox.waiting
        assert not session.outbox.sent
        assert not session.recalls
        assert not session.attempts, "attempts of tasks that have ended"
        assert not session.wanted, "arguments or blobs that nobody pulls"
        assert not session.large, "outcomes that nobody will pull"
        assert not session.pulled, "outcomes that nobody pulls"
    for worker in state.roster:
        assert not worker.dispatches
        assert not worker.held_of
        assert not worker.released
        assert not worker.stale


# The worker.


def check_worker(state: WorkerState) -> None:
    """Each task that is held is in exactly one place, and every count agrees with what it counts."""
    _check_holdings(state)
    places = _places_of_tasks(state)
    for holding in state.holdings.values():
        found = places.get(id(holding), bytearray(holding.count))
        for _, offset, count in holding.parts(HELD):
            wrong = {number for number in found[offset : offset + count] if number != 1}
            assert not wrong, f"tasks {offset} to {offset + count - 1} of dispatch {holding.base} are in {wrong} places"
    assert sorted(map(id, state.turns)) == sorted(map(id, state.sessions.values()))
    for slot in state.slots:
        _check_slot(state, slot)
    for awaited, _ in state.recalls.values():
        assert awaited, "a recall waits for nobody"
        assert all(state.slots[number].state is not SlotState.EMPTY for number in awaited)
    for (session, key), (fetch, _) in state.fetches.items():
        assert session in state.sessions, "a payload is pulled for a session that is over"
        assert (session, key) == (fetch.session, fetch.key)


def _check_holdings(state: WorkerState) -> None:
    held = 0
    for base, holding in state.holdings.items():
        assert base == holding.base
        assert holding.session in state.sessions, "a holding of a session that is over"
        assert holding.open_count == holding.count - holding.marks.count(OVER) > 0
        held += holding.marks.count(HELD)
        assert len(holding.outcomes) - holding.outcomes.count(None) == holding.marks.count(KEPT)
        for _, offset, count in holding.parts(KEPT):
            assert None not in holding.outcomes[offset : offset + count], "an outcome is kept and is not there"
    assert state.held_tasks == held


def _places_of_tasks(state: WorkerState) -> Places:
    places: Places = {}
    for session in state.sessions.values():
        assert session.queued_tasks == sum(work.count for work in session.queue)
        for work in session.queue:
            assert work.count > 0
            assert state.is_current(work), "a task waits that is not to be run here"
            note(places, work.holding, work.offset, work.count)
    for slot in state.slots:
        for packet in slot.packets:
            note(places, packet.work.holding, packet.work.offset + packet.done, packet.count - packet.done)
    for _, arrival in state.fetches.values():
        if isinstance(arrival, TaskArrived):
            note(places, arrival.work.holding, arrival.work.offset, 1)
    return places


def _check_slot(state: WorkerState, slot: Slot) -> None:
    assert slot.output_bytes >= 0, "more output has left than came"
    if slot.state is SlotState.EMPTY:
        assert slot.session is None
        assert not slot.packets
        assert not slot.is_muted
        return
    assert slot.session is not None
    assert state.sessions.get(slot.session.identity) is slot.session
    assert slot.state is not SlotState.STARTING or not slot.packets
    assert slot.allowance is None or slot.allowance >= 0
    after = 0
    for packet in slot.packets:
        assert after <= packet.first, "packets overlap"
        assert 0 <= packet.done <= packet.count <= packet.work.count
        after = packet.end
    assert after <= slot.next_index
    if slot.packets and slot.state is SlotState.READY:
        assert slot.look_at is not None or slot.is_overdue, "nobody will look after this task"


def check_worker_is_idle(state: WorkerState) -> None:
    """Nothing is left of tasks that have ended, once everything is acknowledged."""
    assert not state.holdings
    assert state.held_tasks == 0
    assert not state.outbox.waiting
    assert not state.outbox.sent
    assert not state.fetches
    assert not state.recalls
    assert not any(slot.packets for slot in state.slots)


# The client.


def check_client(session: Session) -> None:
    """What is awaited agrees with the segments; nothing large is kept for a task that has ended."""
    ledger = session.ledger
    segments = list(ledger)
    for segment in segments:
        assert len(segment.open) == len(segment.calls) == len(segment.run.payloads)
        assert segment.left == segment.open.count(1) > 0
        assert ledger.segment_of(segment.first) is segment
    for one, following in pairwise(segments):
        assert one.first + len(one.calls) <= following.first
    assert ledger.awaited == sum(segment.left for segment in segments)
    assert not segments or segments[-1].first + len(segments[-1].calls) <= ledger.next_number
    if session._is_over:
        assert not segments, "calls are awaited of a session that is over"
        return
    assert session._awaited_bytes == sum(
        sum(map(len, compress(segment.run.payloads, segment.open))) for segment in segments
    )
    for number, payload in session._large.items():
        assert ledger.find(number) is not None, f"the large payload of task {number}, which has ended"
        assert not isinstance(payload, Reference)
    for key, (fetch, number) in session._fetches.items():
        assert key == fetch.key
        assert ledger.find(number) is not None, f"an outcome is pulled of task {number}, which has ended"


def check_client_is_idle(session: Session) -> None:
    """Nothing is left of tasks that have ended, once everything is acknowledged."""
    assert session.ledger.awaited == 0
    assert not session._large
    assert not session._fetches
    assert not session._recalls
    assert not session._outbox.waiting
    assert not session._outbox.sent
