"""Stories of the broker's core: what is handed out, to whom, under which number, and what comes back."""

from collections.abc import Iterator

import pytest

from broker_stage import BrokerStage
from inbox import FUNCTION
from netfutures.fields import NO_TASK, Payload
from netfutures.limits import ACKNOWLEDGE_AFTER_S, BATCH_BYTES_MAX, BATCH_TASKS_MAX, RELEASE_EVERY_S, SUSPECT_AFTER_S
from netfutures.wire import (
    Acknowledge,
    Beat,
    Close,
    Finished,
    Goodbye,
    Lost,
    Need,
    Open,
    Output,
    Printed,
    Refused,
    Release,
    Running,
    Stale,
    Started,
    Submit,
    Tasks,
)


@pytest.fixture
def stage() -> Iterator[BrokerStage]:
    stage = BrokerStage()
    yield stage
    stage.leave()


# Handing out.


def test_a_submitted_task_goes_to_a_worker_and_its_outcome_to_the_client(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    assert worker.take(Open).session == client.identity
    tasks = worker.take(Tasks)
    assert tasks.blobs == [(FUNCTION, b"code", True)]
    assert tasks.runs == [(1, FUNCTION, None, [b"a", b"b"])]
    worker.finish(1, b"A", b"B")
    assert client.results() == {1: b"A", 2: b"B"}


def test_tasks_wait_until_a_worker_comes(stage: BrokerStage) -> None:
    client = stage.client()
    client.submit(b"a")
    worker = stage.worker()
    worker.take(Open)
    assert worker.payloads() == [b"a"]


def test_a_worker_gets_no_more_than_it_has_room_for(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=3)
    client.submit(*[b"x"] * 5)
    worker.take(Open)
    assert len(worker.payloads()) == 3
    worker.finish(1, b"done")
    assert len(worker.payloads()) == 1
    assert client.results() == {1: b"done"}


def test_a_beat_with_more_credit_brings_more_tasks(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=1)
    client.submit(*[b"x"] * 5)
    worker.take(Open)
    assert len(worker.payloads()) == 1
    worker.say(Beat(4))
    assert len(worker.payloads()) == 3


def test_two_unacknowledged_messages_of_tasks_are_enough(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=1000)
    for _ in range(3):
        client.submit(b"x")
    worker.take(Open)
    assert len(worker.take_all(Tasks)) == 2
    worker.acknowledge()
    assert len(worker.take_all(Tasks)) == 1


def test_a_message_of_tasks_is_bounded_in_tasks_and_bytes(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10 * BATCH_TASKS_MAX)
    client.submit(*[b""] * BATCH_TASKS_MAX)
    client.submit(*[bytes(BATCH_BYTES_MAX // 4)] * 6)
    worker.take(Open)
    batches: list[list[Payload]] = []
    while messages := worker.take_all(Tasks):
        batches += [[payload for run in message.runs for payload in run[3]] for message in messages]
        worker.acknowledge()
    assert sum(map(len, batches)) == BATCH_TASKS_MAX + 6
    assert max(map(len, batches)) == BATCH_TASKS_MAX
    assert max(sum(map(len, batch)) for batch in batches) < 2 * BATCH_BYTES_MAX


def test_the_worker_with_the_most_room_a_slot_comes_first(stage: BrokerStage) -> None:
    small, large = stage.worker("small", credit=4, slots=1), stage.worker("large", credit=6, slots=2)
    stage.client().submit(b"x")
    small.take(Open)
    assert small.payloads() == [b"x"]
    assert not large.has(Tasks)


def test_tasks_are_shared_out_among_workers(stage: BrokerStage) -> None:
    one, other = stage.worker("one", credit=100), stage.worker("other", credit=100)
    stage.client().submit(*[b"x"] * 10)
    for worker in (one, other):
        worker.take(Open)
    assert sorted([len(one.payloads()), len(other.payloads())]) == [5, 5]


def test_sessions_take_turns(stage: BrokerStage) -> None:
    greedy, modest = stage.client("greedy"), stage.client("modest")
    greedy.submit(*[b"g"] * 50)
    modest.submit(*[b"m"] * 2)
    worker = stage.worker(credit=2)
    worker.take_all(Open)
    finished: list[Payload] = []
    while len(finished) < 8:
        for base, _, _, payloads in worker.handed():
            finished += payloads
            worker.finish(base, *payloads)
    assert b"m" in finished[:4]
    greedy.forget()
    assert modest.results() == {1: b"m", 2: b"m"}
    worker.forget()


def test_a_function_is_sent_to_each_worker_once(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10)
    client.submit(b"a")
    client.submit(b"b")
    worker.take(Open)
    assert [len(tasks.blobs) for tasks in worker.take_all(Tasks)] == [1, 0]
    other = stage.worker("other", credit=100)
    client.submit(b"c")
    other.take(Open)
    assert len(other.take(Tasks).blobs) == 1


def test_a_silent_worker_gets_no_new_tasks_and_keeps_its_own(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=1), stage.worker()
    client.submit(b"a")
    worker.take(Open)
    worker.handed()
    stage.advance(SUSPECT_AFTER_S + 1)
    client.submit(b"b")
    assert not worker.has(Tasks)
    worker.say(Beat(4))
    assert worker.payloads() == [b"b"]
    worker.finish(1, b"A")
    assert client.results() == {1: b"A"}


# What comes back.


def test_outcomes_stay_at_the_worker_until_the_client_has_them(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    worker.finish(1, b"A", b"B")
    assert client.results() == {1: b"A", 2: b"B"}
    stage.advance(2 * RELEASE_EVERY_S)
    assert not worker.has(Release)
    client.acknowledge()
    stage.advance(2 * RELEASE_EVERY_S)
    assert worker.take(Release).dispatched == [(1, 0, 2)]
    assert not stage.core.state.roster.get(worker.identity).dispatches  # type: ignore[union-attr]  # it is known


def test_outcomes_beyond_the_client_s_window_wait(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10)
    client.submit(*[b"x"] * 3)
    worker.forget()
    for offset in range(3):
        worker.finish(1, b"done", offset=offset)
    assert sorted(client.results()) == [1, 2]
    client.acknowledge()
    assert sorted(client.results()) == [3]
    assert worker.take(Release).dispatched == [(1, 0, 2)]


def test_an_outcome_of_a_dispatch_that_is_not_current_is_refused_and_counted(stage: BrokerStage) -> None:
    client, worker, other = stage.client(retries=1), stage.worker("worker"), stage.worker("other", credit=0)
    client.submit(b"a")
    worker.take(Open)
    worker.handed()
    stage.perform(stage.core.unreachable(worker.route, stage.clock.now))
    stage.advance(2.1)
    other.say(Beat(4))
    other.take(Open)
    assert [run[0] for run in other.handed()] == [2]
    worker.hello(finished=[(1, 0, 1)], sessions=[client.identity])
    assert worker.take(Stale).dispatched == [(1, 0, 1)]
    worker.finish(1, b"late")
    assert stage.core.statistics().stale_outcomes == 1
    other.finish(2, b"in time")
    assert client.results() == {1: b"in time"}
    stage.advance(RELEASE_EVERY_S)
    assert worker.take(Stale).dispatched == [(1, 0, 1)]


def test_an_outcome_of_an_unknown_dispatch_disturbs_nobody(stage: BrokerStage) -> None:
    stage.client()
    worker = stage.worker()
    worker.finish(99, b"what is this")
    stage.advance(RELEASE_EVERY_S)
    assert worker.take(Stale).dispatched == [(99, 0, 1)]
    assert stage.core.statistics().stale_outcomes == 1


def test_a_range_beyond_a_dispatch_disturbs_nobody(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.say(Started([(1, 0, 1 << 61), (1, 1 << 61, 1)]), batch=True)
    assert client.take(Running).numbers == [(1, 1)]
    worker.finish(1, b"A", b"of nobody", b"of nobody")
    assert client.results() == {1: b"A"}


def test_a_started_task_s_future_is_told(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b", b"c")
    worker.forget()
    worker.say(Started([(1, 1, 1)]), batch=True)
    worker.say(Started([(1, 1, 1)]), batch=True)
    assert [message.numbers for message in client.take_all(Running)] == [[(2, 1)], [(2, 1)]]
    worker.finish(1, b"B", offset=1)
    worker.say(Started([(1, 1, 1)]), batch=True)
    client.results()
    assert not client.has(Running)


def test_what_tasks_print_comes_before_their_outcome(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    worker.say(Output([(client.identity, 1, 1, 1, b"hello")]), batch=True)
    worker.finish(1, b"B", offset=1)
    assert [type(message).__name__ for message in client.came] == ["Printed", "Results"]
    assert client.take(Printed).records == [(2, 1, b"hello")]
    assert client.results() == {2: b"B"}


def test_output_that_belongs_to_no_known_task_is_still_printed(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.say(Output([(client.identity, 77, 0, 2, b"?"), (b"u" * 16, 1, 0, 1, b"of nobody")]), batch=True)
    worker.say(Output([(client.identity, 1, 1 << 61, 2, b"beyond")]), batch=True)
    records = [record for message in client.take_all(Printed) for record in message.records]
    assert records == [(NO_TASK, 2, b"?"), (NO_TASK, 2, b"beyond")]


# Acknowledgements.


def test_an_acknowledgement_rides_on_what_goes_back(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, b"A")
    client.results()
    stage.advance(2 * ACKNOWLEDGE_AFTER_S)
    assert len(client.take_all(Acknowledge)) == 0
    assert client.conversation.acknowledged == client.conversation.sent


def test_an_acknowledgement_goes_alone_when_nothing_carries_it(stage: BrokerStage) -> None:
    client = stage.client()
    client.submit(b"a")
    assert not client.has(Acknowledge)
    stage.advance(ACKNOWLEDGE_AFTER_S)
    client.take(Acknowledge)


def test_a_full_window_is_acknowledged_at_once(stage: BrokerStage) -> None:
    client = stage.client()
    client.submit(b"a")
    client.submit(b"b")
    client.take(Acknowledge)
    assert client.conversation.is_open


@pytest.mark.parametrize("kind", ["started", "taken back", "lost", "finished", "output"])
def test_whatever_fills_a_worker_s_window_is_acknowledged_at_once(stage: BrokerStage, kind: str) -> None:
    # Else its outcomes would wait behind for the next beat.
    client, worker = stage.client(retries=5), stage.worker()
    client.submit(*[b"x"] * 4)
    worker.forget()
    for offset in range(2):
        match kind:
            case "started":
                worker.say(Started([(1, offset, 1)]), batch=True)
            case "taken back":
                worker.take_back(9, (1, offset, 1))
            case "lost":
                worker.say(lost_message(client.identity, (1, offset, 1)), batch=True)
            case "finished":
                worker.finish(1, b"done", offset=offset)
            case "output":
                worker.say(Output([(client.identity, 1, offset, 1, b"text")]), batch=True)
    assert worker.conversation.is_open
    client.forget()
    worker.forget()


def lost_message(session: bytes, *dispatched: tuple[int, int, int]) -> Lost:
    return Lost(session, {"pid": 1}, list(dispatched))


# Repetitions.


def test_a_repeated_submit_is_ignored(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10)
    submission = client.submission(b"a", b"b")
    client.say(submission, batch=True)
    client.say(submission, batch=True)
    worker.take(Open)
    assert worker.payloads() == [b"a", b"b"]


def test_of_a_submit_that_is_known_in_part_only_the_rest_is_new(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10)
    client.submit(b"a", b"b")
    client.say(Submit(7, [], [(2, FUNCTION, None, [b"b", b"c"])]), batch=True)
    worker.take(Open)
    assert worker.payloads() == [b"a", b"b", b"c"]


def test_a_submit_that_leaves_out_a_task_is_refused(stage: BrokerStage) -> None:
    client = stage.client()
    with pytest.raises(Exception, match="task 5 was submitted before task 1"):
        client.say(Submit(7, [(FUNCTION, b"code", True)], [(5, FUNCTION, None, [b"x"])]), batch=True)
    stage.perform(stage.core.refuse(client.route, "task 5 was submitted before task 1", stage.clock.now))
    assert "task 5" in client.take(Refused).reason
    assert stage.core.statistics().refused == 1


def test_a_task_whose_function_was_never_sent_is_refused(stage: BrokerStage) -> None:
    client = stage.client()
    with pytest.raises(Exception, match="calls a function that was never sent"):
        client.say(Submit(7, [], [(1, FUNCTION, None, [b"x"])]), batch=True)


def test_what_a_party_must_not_say_is_refused(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    with pytest.raises(Exception, match="Finished from a ClientSession"):
        client.say(Finished(1, []))
    with pytest.raises(Exception, match="Submit from a WorkerRecord"):
        worker.say(Submit(7, [], []))
    with pytest.raises(Exception, match="by dispatch number"):
        client.say(Need(client.identity, b"k" * 16, 0, 5))


# The end.


def test_goodbye_of_an_idle_client_lets_its_children_end_in_good_order(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, b"A")
    client.results()
    client.say(Goodbye("done"))
    client.take(Goodbye)
    assert worker.take(Close) == Close(client.identity, False)
    assert stage.ended == [client.identity]


def test_goodbye_of_a_client_with_tasks_ends_them_at_once(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=1)
    client.submit(b"a", b"b")
    worker.forget()
    client.say(Goodbye("enough"))
    client.take(Goodbye)
    assert worker.take(Close) == Close(client.identity, True)
    statistics = stage.core.statistics()
    assert (statistics.sessions, statistics.queued_tasks, statistics.held_tasks) == (0, 0, 0)
    worker.finish(1, b"too late")
    stage.advance(RELEASE_EVERY_S)
    worker.take(Stale)


def test_statistics_tell_what_is_where(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=2, slots=2)
    client.submit(*[b"x"] * 5)
    worker.forget()
    worker.finish(1, b"done")
    statistics = stage.core.statistics()
    assert (statistics.sessions, statistics.workers, statistics.slots) == (1, 1, 2)
    assert (statistics.queued_tasks, statistics.held_tasks, statistics.done_tasks) == (2, 2, 1)
    client.forget()
    worker.forget()
