"""Stories of the worker's core towards the broker: hello, gaps, beats, acknowledgements, and large payloads."""

from collections.abc import Iterator

import pytest

from inbox import EPOCH, FUNCTION, VERSION, named
from netfutures.fields import BLOB, CHUNKS, Reference, SubmittedRun
from netfutures.limits import (
    ACKNOWLEDGE_AFTER_S,
    BEAT_S,
    CHUNKS_BYTES_MAX,
    CREDIT_BYTES,
    CREDIT_TASKS,
    HELLO_RETRY_S,
    LEASE_S,
    SUSPECT_AFTER_S,
)
from netfutures.wire import (
    Acknowledge,
    Beat,
    Cancel,
    Chunk,
    Close,
    Envelope,
    Finished,
    Goodbye,
    Need,
    Refused,
    Release,
    RemoteProtocolError,
    Results,
    Stale,
    TakenBack,
    Tasks,
    Welcome,
    Who,
    WorkerHello,
)
from worker_stage import WorkerStage, as_bytes

MiB = 1 << 20


@pytest.fixture
def stage() -> Iterator[WorkerStage]:
    stage = WorkerStage()
    yield stage
    stage.leave()


def unnumbered(stage: WorkerStage, message: Who | Refused) -> None:
    stage.receive(Envelope(0, 0, 0, message))


def reconnect(stage: WorkerStage) -> WorkerHello:
    stage.perform(stage.core.connect(stage.clock.now))
    return stage.welcome()


# Hello.


def test_the_first_hello_says_who_it_is_and_that_it_holds_nothing(stage: WorkerStage) -> None:
    hello = stage.welcome()
    assert (hello.protocol, hello.worker, hello.host, hello.slots) == (VERSION, named("worker"), "host of worker", 1)
    assert (hello.sessions, hello.held, hello.finished) == ([], [], [])
    assert hello.credit_tasks >= hello.slots


def test_a_hello_that_nobody_answers_is_said_again(stage: WorkerStage) -> None:
    stage.perform(stage.core.connect(stage.clock.now))
    assert stage.broker.take(WorkerHello)
    stage.advance(HELLO_RETRY_S)
    assert stage.broker.take(WorkerHello)
    assert stage.core.state.connection == 2
    stage.advance(HELLO_RETRY_S / 2)
    assert not stage.broker.has(WorkerHello)


def test_nothing_but_the_hello_is_said_before_the_welcome(stage: WorkerStage) -> None:
    stage.perform(stage.core.connect(stage.clock.now))
    stage.broker.take(WorkerHello)
    stage.advance(HELLO_RETRY_S / 2)
    stage.broker.refuse_unclaimed()
    assert not stage.broker.has(Beat)


def test_after_a_reconnect_the_hello_says_what_is_held_and_kept(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(b"a", b"b", b"c")
    stage.ready()
    stage.run()
    stage.outcomes()
    hello = reconnect(stage)
    assert hello.sessions == [stage.session]
    assert hello.finished == [(base, 0, 1)]
    assert hello.held == [(base, 1, 2)]


def test_a_gap_brings_a_hello_with_the_next_connection_number(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    stage.lose(Tasks(stage.session, [], []))
    stage.say(Beat(0))
    assert stage.core.state.connection == 2
    stage.broker.take(WorkerHello)


def test_messages_of_an_old_connection_are_dropped(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    old = stage.broker.conversation
    reconnect(stage)
    tasks = Tasks(stage.session, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b"a"])])
    stage.receive(Envelope(*old.stamp(), tasks))
    assert not stage.core.state.holdings


def test_who_brings_a_hello_unless_one_is_under_way(stage: WorkerStage) -> None:
    stage.welcome()
    unnumbered(stage, Who())
    stage.broker.take(WorkerHello)
    unnumbered(stage, Who())
    assert not stage.broker.has(WorkerHello)


def test_a_broker_that_is_silent_for_ten_seconds_is_greeted_again(stage: WorkerStage) -> None:
    stage.welcome()
    stage.advance(SUSPECT_AFTER_S - BEAT_S)
    assert not stage.broker.has(WorkerHello)
    stage.advance(2 * BEAT_S)
    stage.broker.take(WorkerHello)


def test_a_refusal_and_a_goodbye_are_told_to_the_shell(stage: WorkerStage) -> None:
    stage.welcome()
    unnumbered(stage, Refused("go away"))
    stage.say(Goodbye("closing time"))
    assert stage.refusals == ["go away", "the broker has said goodbye: closing time"]


def test_what_a_broker_must_not_say_is_refused(stage: WorkerStage) -> None:
    stage.welcome()
    with pytest.raises(RemoteProtocolError, match="Results from a broker to a worker"):
        stage.say(Results([(1, [b"x"])]))


def test_a_worker_that_is_not_connected_sleeps_for_ever(stage: WorkerStage) -> None:
    assert stage.core.next_deadline() is None


# What is told, and told again.


def test_a_beat_each_second_says_the_credit(stage: WorkerStage) -> None:
    stage.welcome()
    stage.advance(3 * BEAT_S + 0.1)
    assert [beat.credit_tasks for beat in stage.broker.take_all(Beat)] == [stage.core.state.credit_tasks] * 3


def test_tasks_are_acknowledged_alone_when_nothing_goes_back_in_time(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    stage.hand(b"a")
    assert not stage.broker.has(Acknowledge)
    stage.advance(ACKNOWLEDGE_AFTER_S)
    stage.broker.take(Acknowledge)


def test_outcomes_that_the_broker_has_not_acknowledged_are_told_again(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(b"a")
    stage.ready()
    stage.run()
    stage.broker.take(Finished)
    reconnect(stage)
    assert stage.outcomes() == {base: b"did a"}
    reconnect(stage)
    assert not stage.broker.has(Finished)


def test_outcomes_wait_while_two_batches_are_not_acknowledged(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    stage.hand(b"a", b"b", b"c", b"d")
    stage.ready()
    for _ in range(4):
        stage.run()
    assert len(stage.broker.take_all(Finished)) == 2
    stage.say(Acknowledge())
    (last,) = stage.broker.take_all(Finished)
    assert len(last.runs) == 2


def test_outcomes_of_a_worker_without_a_connection_wait(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(b"a")
    stage.ready()
    stage.perform(stage.core.connect(stage.clock.now))
    stage.run()
    assert not stage.broker.has(Finished)
    hello = stage.welcome()
    assert hello.held == [(base, 0, 1)]
    assert stage.outcomes() == {base: b"did a"}


def test_tasks_of_a_session_that_was_closed_meanwhile_are_dropped(stage: WorkerStage) -> None:
    stage.welcome()
    stage.hand(b"a")
    assert not stage.core.state.holdings


def test_a_session_is_opened_once(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    stage.hand(b"a")
    stage.open()
    assert stage.core.statistics().sessions == 1
    assert stage.core.statistics().held_tasks == 1


# Large payloads.


def give(stage: WorkerStage, key: int | bytes, content: bytes) -> None:
    """Answers every `Need` of this key until there is none."""
    while stage.broker.has(Need):
        need = stage.broker.take(Need)
        assert need.key == key
        for offset in range(need.offset, need.limit, MiB):
            stage.say(Chunk(stage.session, key, offset, content[offset : min(offset + MiB, need.limit)], False))


def test_a_large_argument_is_pulled_by_its_dispatch_number_before_its_task_runs(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    content = bytes(range(256)) * (9 * MiB // 256)
    base = stage.hand(b"small", Reference(CHUNKS, 777, len(content)))
    stage.ready()
    stage.run()
    assert not stage.children[0].is_busy
    first = stage.broker.take(Need)
    assert first == Need(stage.session, base + 1, 0, CHUNKS_BYTES_MAX)
    stage.broker.came.append(first)
    give(stage, base + 1, content)
    (large,) = stage.children[0].unread
    assert large.payloads[0].is_sealed
    assert as_bytes(large.payloads[0]) == content
    stage.start()
    stage.finish(0, b"done")
    assert stage.outcomes() == {base: b"did small", base + 1: b"done"}


def test_a_large_function_is_pulled_once_and_its_tasks_wait_for_it(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    run: SubmittedRun = (1, FUNCTION, None, [b"a"])
    blob = (FUNCTION, Reference(BLOB, FUNCTION, 2 * MiB), True)
    stage.say(Tasks(stage.session, [blob], [run]), batch=True)
    assert not stage.children
    stage.say(Tasks(stage.session, [blob], [(2, FUNCTION, None, [b"b"])]), batch=True)
    give(stage, FUNCTION, b"f" * 2 * MiB)
    stage.ready()
    assert as_bytes(stage.children[0].functions[1]) == b"f" * 2 * MiB
    for _ in range(2):
        stage.run()
    assert sorted(stage.outcomes()) == [1, 2]


def test_after_a_reconnect_it_asks_again_from_where_it_stands(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(Reference(CHUNKS, 777, 3 * MiB))
    stage.broker.take(Need)
    stage.say(Chunk(stage.session, base, 0, b"x" * MiB, False))
    reconnect(stage)
    assert stage.broker.take(Need) == Need(stage.session, base, MiB, 3 * MiB)


def test_a_task_whose_argument_is_still_under_way_can_be_called_back(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(Reference(CHUNKS, 777, 3 * MiB), b"small")
    stage.broker.take(Need)
    stage.say(Cancel(1, stage.session))
    assert stage.broker.take(TakenBack) == TakenBack(1, [(base, 0, 2)])
    stage.say(Chunk(stage.session, base, 0, b"x" * MiB, False))
    assert not stage.core.state.fetches
    assert not stage.core.state.holdings


def test_a_stale_task_s_argument_is_not_pulled_any_further(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(Reference(CHUNKS, 777, 9 * MiB))
    stage.broker.take(Need)
    stage.say(Stale([(base, 0, 1)]))
    assert not stage.core.state.fetches


def test_what_a_closed_session_pulled_is_forgotten(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    stage.hand(Reference(CHUNKS, 777, 9 * MiB))
    stage.broker.take(Need)
    stage.say(Close(stage.session, True))
    assert not stage.core.state.fetches


def test_an_argument_that_cannot_be_had_any_more_is_not_waited_for(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(Reference(CHUNKS, 777, 3 * MiB))
    stage.broker.take(Need)
    stage.say(Stale([(base, 0, 1)]))
    stage.say(Chunk(stage.session, base, 0, b"", True))
    assert not stage.core.state.holdings


def test_a_large_outcome_is_referred_to_and_pulled(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(b"a", b"b")
    stage.ready()
    stage.run()
    stage.start()
    stage.finish(0, b"r" * (MiB + 5))
    assert stage.outcomes() == {base: b"did a", base + 1: Reference(CHUNKS, base + 1, MiB + 5)}
    stage.say(Need(stage.session, base + 1, 0, MiB + 5))
    chunks = stage.broker.take_all(Chunk)
    assert [(chunk.offset, len(chunk.content)) for chunk in chunks] == [(0, MiB), (MiB, 5)]
    stage.say(Release([(base, 0, 2)]))
    stage.say(Need(stage.session, base + 1, 0, MiB + 5))
    assert stage.broker.take(Chunk).abort


def test_an_outcome_of_another_session_is_not_given_away(stage: WorkerStage) -> None:
    stage.welcome()
    stage.open()
    base = stage.hand(b"a")
    stage.ready()
    stage.run()
    stage.outcomes()
    stage.say(Need(named("thief"), base, 0, 100))
    assert stage.broker.take(Chunk).abort


def test_the_epoch_of_the_broker_is_noted(stage: WorkerStage) -> None:
    stage.perform(stage.core.connect(stage.clock.now))
    stage.broker.take(WorkerHello)
    stage.say(Welcome(VERSION, EPOCH + 1, CREDIT_TASKS, CREDIT_BYTES, LEASE_S))
    assert stage.core.state.epoch == EPOCH + 1
