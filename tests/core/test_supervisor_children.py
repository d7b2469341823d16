"""Stories of the worker's core: children that die, end, fail to get ready, and print more than can leave."""

from collections.abc import Iterator

import pytest

from inbox import named
from netfutures.fields import BLOB, Reference
from netfutures.limits import BEAT_S, END_GRACE_S, OUTPUT_BYTES_MAX
from netfutures.wire import (
    Acknowledge,
    Cancel,
    Chunk,
    Close,
    Finished,
    Lost,
    Need,
    Output,
    Release,
    Stale,
    Started,
    TakenBack,
    WorkerHello,
)
from netfutures_worker.core.slot import State
from worker_stage import CERTIFICATE, WorkerStage, as_bytes

MiB = 1 << 20


@pytest.fixture
def stage() -> Iterator[WorkerStage]:
    stage = WorkerStage()
    stage.welcome()
    yield stage
    stage.leave()


def ready_child(stage: WorkerStage, *payloads: bytes, seconds: float = 0.0001) -> int:
    """A child whose tasks are known to be short, and more tasks in it; returns the dispatch number of the first."""
    stage.open()
    stage.hand(b"first")
    stage.ready()
    stage.run(seconds=seconds)
    stage.outcomes()
    return stage.hand(*payloads)


# Death.


def test_a_child_that_dies_at_a_task_has_lost_that_task(stage: WorkerStage) -> None:
    base = ready_child(stage, b"a", b"b", b"c")
    stage.start()
    stage.die(exit_code=3)
    lost = stage.broker.take(Lost)
    assert lost == Lost(stage.session, {**CERTIFICATE, "exit_code": 3}, [(base, 0, 1)])
    stage.ready()
    for _ in range(2):
        stage.run()
    assert sorted(stage.outcomes()) == [base + 1, base + 2]


def test_what_a_dead_child_had_finished_counts(stage: WorkerStage) -> None:
    base = ready_child(stage, *[b"x"] * 5)
    child = stage.children[0]
    for _ in range(3):
        child.start()
        child.end_task()
    child.start()
    stage.die()
    assert sorted(stage.outcomes()) == [base, base + 1, base + 2]
    assert stage.broker.take(Lost).dispatched == [(base, 3, 1)]
    stage.ready()
    assert [as_bytes(each) for each in stage.children[0].unread[0].payloads] == [b"x"]


def test_nothing_above_the_claim_of_a_dead_child_has_started(stage: WorkerStage) -> None:
    base = ready_child(stage, *[b"x"] * 25)
    stage.die()
    assert stage.broker.take(Lost).dispatched == []
    stage.ready()
    for _ in range(25):
        stage.run(seconds=0.0001)
    assert sorted(stage.outcomes()) == list(range(base, base + 25))


def test_tasks_of_a_dead_child_wait_in_their_old_order_before_all_others(stage: WorkerStage) -> None:
    ready_child(stage, *[b"%d" % number for number in range(20)])
    stage.hand(b"later")
    stage.start()
    stage.die()
    (session,) = stage.core.state.sessions.values()
    order = [as_bytes(payload) for work in session.queue for payload in work.payloads]
    assert order == [b"%d" % number for number in range(1, 20)] + [b"later"]
    stage.broker.take(Lost)


def test_the_death_of_an_idle_child_is_told_too(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    stage.run()
    stage.outcomes()
    stage.die()
    assert stage.broker.take(Lost).dispatched == []


def test_a_loss_is_claimed_in_the_hello_until_the_broker_has_heard_of_it(stage: WorkerStage) -> None:
    # Else the broker would take the task for one that never arrived, and run it again.
    base = ready_child(stage, b"a")
    stage.start()
    stage.advance(3 * BEAT_S / 100)
    stage.broker.take(Started)
    stage.lose(Acknowledge())
    stage.die()
    stage.broker.take(Lost)
    stage.say(Acknowledge())
    hello = stage.broker.take(WorkerHello)
    assert (base, 0, 1) in hello.held
    stage.broker.came.append(hello)
    stage.welcome()
    assert stage.broker.take(Lost).dispatched == [(base, 0, 1)]
    stage.broker.take_all(Started)
    stage.say(Acknowledge())
    stage.perform(stage.core.connect(stage.clock.now))
    assert stage.broker.take(WorkerHello).held == []


# Before the first task.


def test_a_child_that_dies_before_it_is_ready_breaks_the_pool(stage: WorkerStage) -> None:
    stage.open()
    stage.hand(b"a")
    stage.die()
    lost = stage.broker.take(Lost)
    assert lost.certificate["initializer_failed"]
    assert lost.dispatched == []


def test_a_failing_initializer_s_traceback_is_in_the_certificate(stage: WorkerStage) -> None:
    stage.open(initializer=b"initializer")
    stage.hand(b"a")
    assert stage.children[0].initializer == b"initializer"
    stage.perform(stage.core.failed(0, "Traceback ...\nValueError: no", stage.clock.now))
    stage.die(exit_code=1)
    certificate = stage.broker.take(Lost).certificate
    assert certificate["initializer_failed"]
    assert certificate["note"] == "its initializer failed:\nTraceback ...\nValueError: no"


def test_a_large_initializer_is_pulled_before_any_child_is_started(stage: WorkerStage) -> None:
    digest = named("initializer")
    stage.open(initializer=Reference(BLOB, digest, 2 * MiB))
    stage.hand(b"a")
    assert not stage.children
    assert stage.broker.take(Need) == Need(stage.session, digest, 0, 2 * MiB)
    for offset in (0, MiB):
        stage.say(Chunk(stage.session, digest, offset, b"i" * MiB, False))
    assert as_bytes(stage.children[0].initializer) == b"i" * 2 * MiB
    stage.ready()
    stage.run()
    stage.outcomes()


# The end of a child.


def test_a_child_is_replaced_after_so_many_tasks(stage: WorkerStage) -> None:
    stage.open(max_tasks_per_child=2)
    base = stage.hand(b"a", b"b", b"c")
    first = stage.ready()
    stage.run(count=2, seconds=1e-6)
    assert first.is_told_to_end
    assert not first.unread
    stage.die()
    assert not stage.broker.has(Lost)
    stage.ready()
    stage.run()
    assert sorted(stage.outcomes()) == [base, base + 1, base + 2]


def test_a_child_is_never_given_more_tasks_than_it_may_run(stage: WorkerStage) -> None:
    stage.open(max_tasks_per_child=7)
    stage.hand(*[b"x"] * 20)
    child = stage.ready()
    stage.run(seconds=1e-6)
    assert sum(len(given.payloads) for given in child.unread) == 6
    stage.outcomes()


def test_tasks_that_were_taken_back_do_not_count_for_a_child(stage: WorkerStage) -> None:
    stage.open(max_tasks_per_child=3)
    stage.hand(b"a", b"b", b"c")
    child = stage.ready()
    stage.run(seconds=1e-6)
    stage.outcomes()
    stage.say(Cancel(1, stage.session))
    assert stage.broker.take(TakenBack).dispatched == [(1, 1, 2)]
    stage.hand(b"d", b"e", b"f")
    assert sum(len(given.payloads) for given in child.unread) == 2
    for _ in range(2):
        stage.run(seconds=1e-6)
    assert child.is_told_to_end
    stage.outcomes()


def test_a_closed_session_s_idle_children_end_in_good_order_within_their_grace(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    stage.run()
    stage.outcomes()
    stage.say(Close(stage.session, False))
    child = stage.children[0]
    assert child.is_told_to_end
    stage.advance(END_GRACE_S * 0.9)
    assert not child.is_killed
    stage.advance(END_GRACE_S * 0.2)
    assert child.is_killed
    stage.die()
    assert not stage.core.state.sessions
    assert not stage.broker.has(Lost)


def test_a_session_that_is_closed_at_once_ends_with_its_children(stage: WorkerStage) -> None:
    ready_child(stage, *[b"x"] * 30)
    stage.start()
    stage.say(Close(stage.session, True))
    assert stage.children[0].is_killed
    assert stage.core.state.held_tasks == 0
    stage.die()
    assert not stage.core.state.sessions
    assert not stage.broker.has(Lost)
    assert not stage.broker.has(Finished)


def test_a_child_that_is_still_starting_is_killed_when_its_session_closes(stage: WorkerStage) -> None:
    stage.open()
    stage.hand(b"a")
    stage.say(Close(stage.session, False))
    assert stage.children[0].is_killed
    stage.perform(stage.core.ready(0, 5000, True, stage.clock.now))
    assert stage.core.state.slots[0].state is State.STOPPING
    stage.die()
    assert not stage.core.state.sessions


def test_a_slot_is_used_again_by_another_session_when_its_child_is_dead(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    other = named("other")
    stage.open(other)
    stage.say(Close(stage.session, True))
    stage.hand(b"b", session=other)
    stage.die()
    stage.ready()
    stage.run()
    assert list(stage.outcomes().values()) == [b"did b"]


def test_a_close_of_a_session_that_is_not_here_is_nothing(stage: WorkerStage) -> None:
    stage.say(Close(named("nobody"), True))
    assert not stage.children


def test_the_program_s_end_kills_every_child(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    assert stage.core.has_children
    stage.perform(stage.core.end_all(stage.clock.now))
    assert stage.children[0].is_killed
    stage.perform(stage.core.exited(0, CERTIFICATE, 0, stage.clock.now))
    assert not stage.core.has_children


# Stale.


def test_a_stale_task_that_waits_is_dropped(stage: WorkerStage) -> None:
    stage.open()
    base = stage.hand(b"a", b"b", b"c")
    stage.say(Stale([(base, 1, 1)]))
    stage.ready()
    for _ in range(2):
        stage.run()
    assert sorted(stage.outcomes()) == [base, base + 2]


def test_a_stale_task_that_runs_is_ended_with_its_child_and_is_no_loss(stage: WorkerStage) -> None:
    base = ready_child(stage, b"a")
    stage.start()
    stage.say(Stale([(base, 0, 1)]))
    assert stage.children[0].is_killed
    stage.die()
    assert not stage.broker.has(Lost)
    stage.hand(b"b")
    stage.ready()
    stage.run()
    assert list(stage.outcomes().values()) == [b"did b"]


def test_a_stale_task_behind_a_good_one_costs_no_child(stage: WorkerStage) -> None:
    good = ready_child(stage, b"good")
    stage.start()
    bad = stage.hand(b"bad")
    stage.say(Stale([(bad, 0, 1)]))
    child = stage.children[0]
    assert not child.is_killed
    assert not child.unread
    stage.finish()
    assert sorted(stage.outcomes()) == [good]


def test_of_a_packet_that_is_stale_in_part_only_the_rest_is_told(stage: WorkerStage) -> None:
    base = ready_child(stage, *[b"x"] * 4)
    stage.start()
    stage.say(Stale([(base, 1, 2)]))
    assert not stage.children[0].is_killed
    stage.finish(0, b"A", b"B", b"C", b"D")
    assert sorted(stage.outcomes()) == [base, base + 3]


def test_a_stale_outcome_is_forgotten(stage: WorkerStage) -> None:
    base = ready_child(stage, b"a")
    stage.run()
    stage.outcomes()
    stage.say(Stale([(base, 0, 1), (77, 0, 1)]))
    assert base not in stage.core.state.holdings


def test_a_released_outcome_is_forgotten_and_no_other(stage: WorkerStage) -> None:
    base = ready_child(stage, b"a", b"b")
    stage.run(count=2)
    stage.outcomes()
    stage.say(Release([(1, 0, 1), (base, 0, 1), (base, 5, 9), (99, 0, 1)]))
    assert stage.core.statistics().kept_outcomes == 1


# Output.


def write(stage: WorkerStage, text: bytes, *, index: int = 0) -> None:
    stage.perform(stage.core.output(0, index, 1, text, stage.clock.now))
    stage.flush()


def test_output_leaves_before_the_outcome_of_its_task(stage: WorkerStage) -> None:
    base = ready_child(stage, b"a", b"b")
    stage.start()
    stage.finish()
    stage.start()
    write(stage, b"hello", index=3)
    stage.finish()
    kinds = [type(message).__name__ for message in stage.broker.came if not isinstance(message, Acknowledge)]
    assert kinds == ["Finished", "Output"]
    assert stage.broker.take(Output).records == [(stage.session, base, 1, 1, b"hello")]
    assert sorted(stage.outcomes()) == [base, base + 1]


def test_output_outside_of_any_task_is_told_with_the_last_one(stage: WorkerStage) -> None:
    stage.open()
    stage.hand(b"a")
    stage.ready()
    write(stage, b"from the initializer")
    assert stage.broker.take(Output).records == [(stage.session, 1, 0, 1, b"from the initializer")]
    stage.run()
    stage.outcomes()
    write(stage, b"from a thread")
    assert stage.broker.take(Output).records == [(stage.session, 1, 0, 1, b"from a thread")]


def test_a_child_that_prints_more_than_can_leave_has_to_wait(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    stage.start()
    child = stage.children[0]
    piece = b"x" * (OUTPUT_BYTES_MAX // 8)
    for _ in range(8):
        write(stage, piece, index=child.claim)
        assert not child.is_muted
    write(stage, b"one too many", index=child.claim)
    assert child.is_muted
    while stage.broker.take_all(Output):
        stage.say(Acknowledge())
    assert not child.is_muted
    assert stage.core.state.slots[0].output_bytes == 0
    stage.finish()
    stage.outcomes()


def test_output_that_is_sent_again_after_a_reconnect_is_counted_once(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    stage.start()
    write(stage, b"x" * 1000, index=2)
    assert stage.core.state.slots[0].output_bytes == 1000
    stage.broker.take(Output)
    stage.perform(stage.core.connect(stage.clock.now))
    stage.welcome()
    stage.broker.take(Output)
    assert stage.core.state.slots[0].output_bytes == 1000
    stage.say(Acknowledge())
    assert stage.core.state.slots[0].output_bytes == 0
    stage.finish()
    stage.outcomes()


def test_a_child_that_dies_while_it_had_to_wait_leaves_its_slot_as_it_was(stage: WorkerStage) -> None:
    ready_child(stage, b"a")
    stage.start()
    write(stage, b"x" * (OUTPUT_BYTES_MAX + 1), index=2)
    assert stage.children[0].is_muted
    stage.die()
    stage.broker.take(Lost)
    stage.hand(b"b")
    stage.broker.take(Output)
    stage.say(Acknowledge())
    assert not stage.children[0].is_muted
    stage.ready()
    stage.run()
    stage.outcomes()
