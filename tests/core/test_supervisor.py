"""Stories of the worker's core: which child runs what, packets of measured size, and what is called back."""

from collections.abc import Iterator

import pytest

from inbox import FUNCTION, named
from netfutures.limits import LONG_TASK_S, PACKET_SECONDS, PACKET_TASKS_MAX, PACKETS_AHEAD, STARTED_AFTER_S
from netfutures.wire import Cancel, Finished, Started, TakenBack
from worker_stage import FakeChild, WorkerStage


@pytest.fixture
def stage() -> Iterator[WorkerStage]:
    stage = WorkerStage()
    stage.welcome()
    stage.open()
    yield stage
    stage.leave()


@pytest.fixture
def wide() -> Iterator[WorkerStage]:
    """A worker with three slots."""
    stage = WorkerStage(slots=3)
    stage.welcome()
    stage.open()
    yield stage
    stage.leave()


def measured(stage: WorkerStage, seconds: float, slot: int = 0) -> None:
    """The worker learns how long the tasks of the function take."""
    stage.hand(b"measured")
    if not stage.core.state.slots[slot].pid:
        stage.ready(slot)
    stage.run(slot, seconds=seconds)
    stage.outcomes()


def waiting(child: FakeChild) -> list[int]:
    """How many tasks are in each packet that the child has not read."""
    return [len(given.payloads) for given in child.unread]


# Children on demand.


def test_a_task_starts_a_child_and_runs_in_it(stage: WorkerStage) -> None:
    assert not stage.children
    base = stage.hand(b"a")
    child = stage.children[0]
    assert not child.unread
    stage.ready()
    assert list(child.functions.values()) == [b"code"]
    stage.run()
    assert stage.outcomes() == {base: b"did a"}


def test_as_many_children_are_started_as_tasks_wait_and_slots_are_free(wide: WorkerStage) -> None:
    wide.hand(b"a", b"b")
    assert sorted(wide.children) == [0, 1]
    wide.hand(b"c", b"d", b"e")
    assert sorted(wide.children) == [0, 1, 2]


def test_an_idle_child_is_used_before_another_is_started(wide: WorkerStage) -> None:
    wide.hand(b"a")
    wide.ready(0)
    wide.run(0)
    wide.hand(b"b")
    wide.run(0)
    assert sorted(wide.children) == [0]
    assert len(wide.outcomes()) == 2


def test_a_child_serves_one_session(stage: WorkerStage) -> None:
    other = named("other")
    stage.open(other)
    stage.hand(b"a")
    stage.ready()
    stage.run()
    stage.hand(b"b", session=other)
    first = stage.children[0]
    assert first.is_told_to_end
    assert not first.unread
    stage.die()
    assert stage.children[0] is not first
    stage.ready()
    stage.run()
    assert list(stage.outcomes().values()) == [b"did a", b"did b"]


def test_a_busy_child_is_not_ended_for_another_session(stage: WorkerStage) -> None:
    other = named("other")
    stage.open(other)
    stage.hand(b"a")
    stage.ready()
    stage.start()
    stage.hand(b"b", session=other)
    assert not stage.children[0].is_told_to_end
    stage.finish()
    assert stage.children[0].is_told_to_end
    stage.outcomes()


def test_a_function_is_given_to_each_child_once(wide: WorkerStage) -> None:
    wide.hand(b"a", b"b")
    for slot in (0, 1):
        wide.ready(slot)
    for slot in (0, 1):
        wide.run(slot)
    wide.hand(b"c", b"d")
    assert all(len(wide.children[slot].functions) == 1 for slot in (0, 1))
    for slot in (0, 1):
        wide.run(slot)
    assert len(wide.outcomes()) == 4


# Packets.


def test_before_anything_is_measured_a_child_gets_one_task_at_a_time(stage: WorkerStage) -> None:
    stage.hand(b"a", b"b", b"c")
    child = stage.ready()
    assert waiting(child) == [1]
    stage.run()
    assert waiting(child) != []
    stage.outcomes()


def test_packets_hold_about_a_millisecond_of_measured_work(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    stage.hand(*[b"x"] * 100)
    assert waiting(stage.children[0]) == [int(PACKET_SECONDS / 0.0001)] * PACKETS_AHEAD


def test_a_packet_has_so_many_tasks_at_most(stage: WorkerStage) -> None:
    measured(stage, 1e-6)
    stage.hand(*[b"x"] * 1000)
    assert waiting(stage.children[0]) == [PACKET_TASKS_MAX] * PACKETS_AHEAD


def test_a_packet_has_so_many_bytes_at_most(stage: WorkerStage) -> None:
    measured(stage, 1e-6)
    stage.hand(*[b"x" * 20_000] * 9)
    assert waiting(stage.children[0]) == [3] * PACKETS_AHEAD


def test_nothing_is_queued_behind_long_tasks(stage: WorkerStage) -> None:
    measured(stage, 2 * LONG_TASK_S)
    stage.hand(b"a", b"b")
    assert waiting(stage.children[0]) == [1]


def test_near_the_end_children_share_what_is_left(wide: WorkerStage) -> None:
    wide.hand(b"a", b"b", b"c")
    for slot in range(3):
        wide.ready(slot)
    for slot in range(3):
        wide.run(slot, seconds=1e-6)
    wide.outcomes()
    wide.hand(*[b"x"] * 6)
    assert sum(sum(waiting(wide.children[slot])) for slot in range(3)) == 6
    assert all(waiting(wide.children[slot]) for slot in range(3))


def test_a_child_without_exact_claims_gets_packets_of_one_task(stage: WorkerStage) -> None:
    stage.hand(b"a")
    stage.ready(exact=False)
    stage.run(seconds=1e-6)
    stage.outcomes()
    stage.hand(*[b"x"] * 10)
    assert waiting(stage.children[0]) == [1] * PACKETS_AHEAD


def test_each_told_stretch_of_a_packet_is_measured_by_itself(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    stage.hand(*[b"x"] * 10)
    for _ in range(10):
        stage.run(seconds=0.0001)
    (session,) = stage.core.state.sessions.values()
    assert session.functions[FUNCTION].estimate_s == pytest.approx(0.0001, rel=0.05)
    stage.outcomes()


def test_harvested_outcomes_are_counted_with_the_next_measured_ones(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    stage.hand(*[b"x"] * 10)
    child = stage.children[0]
    for at in range(10):
        child.start()
        child.end_task()
        if at == 4:
            stage.tell(0)
    stage.tell(0, 1000)
    stage.flush()
    (session,) = stage.core.state.sessions.values()
    assert session.functions[FUNCTION].estimate_s == pytest.approx(0.0001, rel=0.05)
    stage.outcomes()


def test_a_worker_with_tiny_tasks_asks_for_more_of_them(stage: WorkerStage) -> None:
    before = stage.core.state.credit_tasks
    measured(stage, 0.0001)
    assert stage.core.state.credit_tasks > 10 * before
    stage.hand(b"a")
    stage.run(seconds=1.0)
    stage.hand(b"b")
    stage.run(seconds=1.0)
    assert stage.core.state.credit_tasks < 100
    stage.outcomes()


# What runs long.


def test_a_task_is_said_to_have_started_once_it_has_run_for_two_milliseconds(stage: WorkerStage) -> None:
    base = stage.hand(b"a")
    stage.ready()
    stage.start()
    stage.advance(STARTED_AFTER_S / 2)
    assert not stage.broker.has(Started)
    stage.advance(STARTED_AFTER_S)
    assert stage.broker.take(Started).dispatched == [(base, 0, 1)]
    stage.advance(0.5)
    assert not stage.broker.has(Started)
    stage.finish()
    stage.outcomes()


def test_a_task_that_has_not_been_claimed_has_not_started(stage: WorkerStage) -> None:
    stage.hand(b"a")
    stage.ready()
    stage.advance(0.1)
    assert not stage.broker.has(Started)


def test_tasks_behind_a_long_one_are_moved_when_a_slot_is_free(wide: WorkerStage) -> None:
    measured(wide, 0.0001)
    base = wide.hand(*[b"x"] * 10)
    wide.start(0)
    wide.advance(3 * STARTED_AFTER_S)
    assert wide.broker.take(Started).dispatched == [(base, 0, 1)]
    assert sorted(wide.children) == [0, 1, 2]
    for slot in (1, 2):
        wide.ready(slot)
    while any(wide.children[slot].is_busy for slot in (1, 2)):
        for slot in (1, 2):
            if wide.children[slot].is_busy:
                wide.run(slot, seconds=0.0001)
    assert sorted(wide.outcomes()) == list(range(base + 1, base + 10))
    wide.finish(0)
    wide.start(0)
    assert sorted(wide.outcomes()) == [base]


def test_what_a_child_had_finished_before_a_long_task_is_told_at_once(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    base = stage.hand(*[b"x"] * 10)
    child = stage.children[0]
    for _ in range(3):
        child.start()
        child.end_task()
    child.start()
    stage.advance(3 * STARTED_AFTER_S)
    assert sorted(stage.outcomes()) == [base, base + 1, base + 2]
    assert stage.broker.take(Started).dispatched == [(base, 3, 1)]


# Calling back.


def recall(stage: WorkerStage, request: int = 1, session: bytes | None = None) -> None:
    stage.say(Cancel(request, session or stage.session))


def test_what_waits_for_a_slot_is_called_back_at_once(stage: WorkerStage) -> None:
    base = stage.hand(b"a", b"b", b"c")
    recall(stage)
    assert stage.broker.take(TakenBack) == TakenBack(1, [(base, 0, 3)])
    assert not stage.core.state.holdings
    stage.ready()
    assert not stage.children[0].unread


def test_packets_that_the_child_has_not_read_are_called_back_whole(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    base = stage.hand(*[b"x"] * 25)
    recall(stage)
    assert stage.broker.take(TakenBack) == TakenBack(1, [(base, 0, 25)])
    assert not stage.children[0].unread


def test_the_tail_of_a_packet_behind_the_claim_is_called_back(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    base = stage.hand(*[b"x"] * 10)
    stage.start()
    stage.finish()
    stage.start()
    recall(stage)
    assert stage.broker.take(TakenBack) == TakenBack(1, [(base, 2, 8)])
    stage.finish()
    stage.start()
    assert sorted(stage.outcomes()) == [base, base + 1]
    assert not stage.children[0].is_busy
    stage.hand(b"after")
    stage.run()
    assert len(stage.outcomes()) == 1


def test_a_child_that_stops_below_the_claim_that_was_read_hands_that_task_back(stage: WorkerStage) -> None:
    # The limit was stored just as the child claimed: it stops at a task that counted as started.
    measured(stage, 0.0001)
    base = stage.hand(*[b"x"] * 4)
    child = stage.children[0]
    stage.start()
    child.end_task()
    child.limit, child.resume, child.claim = 3, child.next_index, 3
    stage.perform(stage.core.revoked(0, 3, [], [], stage.clock.now))
    stage.flush()
    child.limit = 3
    stage.start()
    assert child.claim == 2
    assert sorted(stage.outcomes()) == [base]
    assert stage.core.state.held_tasks == 3
    for _ in range(3):
        stage.run()
    assert sorted(stage.outcomes()) == [base + 1, base + 2, base + 3]


def test_without_exact_claims_only_what_was_not_read_is_called_back(stage: WorkerStage) -> None:
    stage.hand(b"a")
    stage.ready(exact=False)
    stage.run(seconds=1e-6)
    stage.outcomes()
    base = stage.hand(*[b"x"] * 3)
    stage.start()
    recall(stage)
    assert stage.broker.take(TakenBack) == TakenBack(1, [(base, 1, 2)])
    stage.finish()
    assert sorted(stage.outcomes()) == [base]


def test_a_recall_of_a_session_leaves_others_alone(stage: WorkerStage) -> None:
    other = named("other")
    stage.open(other)
    stage.hand(b"a")
    base = stage.hand(b"b", session=other)
    recall(stage, 5, other)
    assert stage.broker.take(TakenBack) == TakenBack(5, [(base, 0, 1)])
    recall(stage, 6, named("nobody"))
    assert stage.broker.take(TakenBack) == TakenBack(6, [])
    stage.ready()
    stage.run()
    assert len(stage.outcomes()) == 1


def test_a_recall_that_meets_a_dying_child_is_answered_all_the_same(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    base = stage.hand(*[b"x"] * 10)
    stage.start()
    stage.finish()
    stage.children[0].is_killed = True
    recall(stage)
    assert stage.broker.take(TakenBack) == TakenBack(1, [(base, 1, 9)])
    assert sorted(stage.outcomes()) == [base]


def test_finished_outcomes_are_not_called_back(stage: WorkerStage) -> None:
    stage.hand(b"a")
    stage.ready()
    stage.run()
    recall(stage)
    assert stage.broker.take(TakenBack) == TakenBack(1, [])
    assert len(stage.broker.take_all(Finished)) == 1


def test_a_child_that_moves_on_has_no_task_that_stands(stage: WorkerStage) -> None:
    measured(stage, 0.0001)
    stage.hand(*[b"x"] * 10)
    child = stage.children[0]
    for _ in range(10):
        child.start()
        stage.advance(STARTED_AFTER_S * 0.7)
        child.end_task()
    stage.tell(0)
    stage.flush()
    assert not stage.broker.has(Started)
    stage.outcomes()
