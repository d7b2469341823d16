"""Stories of the broker's core: what a client calls back, and what it is told of it."""

from collections.abc import Iterator

import pytest

from broker_stage import BrokerStage, ClientPeer
from inbox import EPOCH, FUNCTION
from netfutures.fields import SubmittedRun
from netfutures.limits import BATCH_TASKS_MAX
from netfutures.wire import Beat, Broken, Cancel, Cancelled, Lost, Open, Running, Started, Submit, Tasks


@pytest.fixture
def stage() -> Iterator[BrokerStage]:
    stage = BrokerStage()
    yield stage
    stage.leave()


def recall(client: ClientPeer, request: int = 1) -> None:
    client.say(Cancel(request, client.identity))


def test_what_no_worker_has_is_given_back_at_once(stage: BrokerStage) -> None:
    client = stage.client()
    client.submit(b"a", b"b")
    client.submit(b"c")
    recall(client)
    assert client.take(Cancelled) == Cancelled(1, [(1, 2), (3, 1)], True)
    assert stage.core.statistics().queued_tasks == 0
    worker = stage.worker()
    assert not worker.has(Tasks)


def test_an_answer_waits_for_the_workers_that_have_tasks(stage: BrokerStage) -> None:
    client = stage.client()
    one, other, idle = stage.worker("one", credit=2), stage.worker("other", credit=2), stage.worker("idle", credit=0)
    client.submit(*[b"x"] * 6)
    one.forget()
    other.forget()
    recall(client)
    requests = {one.take(Cancel).request, other.take(Cancel).request}
    assert len(requests) == 1
    assert not idle.has(Cancel)
    assert not client.has(Cancelled)
    one.take_back(requests.pop(), (1, 1, 1))
    assert not client.has(Cancelled)
    other.take_back(1)
    assert client.take(Cancelled) == Cancelled(1, [(5, 2), (2, 1)], True)


def test_what_a_worker_gave_back_never_comes_again(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b", b"c")
    worker.forget()
    recall(client)
    worker.take_back(worker.take(Cancel).request, (1, 1, 2))
    assert client.cancelled() == [2, 3]
    worker.finish(1, b"A")
    assert client.results() == {1: b"A"}
    assert not worker.has(Tasks)
    assert stage.core.statistics().held_tasks == 0


def test_a_client_with_nothing_here_is_answered_at_once(stage: BrokerStage) -> None:
    client = stage.client()
    recall(client)
    assert client.take(Cancelled) == Cancelled(1, [], True)


def test_the_recalls_of_two_sessions_are_not_mixed_up(stage: BrokerStage) -> None:
    # Each client counts its requests from 1.
    one, other, worker = stage.client("one"), stage.client("other"), stage.worker(credit=10)
    one.submit(b"a")
    other.submit(b"b")
    worker.forget()
    recall(one)
    recall(other)
    of_one, of_other = worker.take_all(Cancel)
    assert of_one.request != of_other.request
    worker.take_back(of_other.request, (2, 0, 1))
    assert other.cancelled() == [1]
    assert not one.has(Cancelled)
    worker.take_back(of_one.request)
    assert one.cancelled() == []


def test_two_recalls_of_a_session_at_once_are_both_answered(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    recall(client, 1)
    recall(client, 2)
    first, second = worker.take_all(Cancel)
    worker.take_back(first.request, (1, 0, 1))
    worker.take_back(second.request)
    answers = client.take_all(Cancelled)
    assert [(answer.request, answer.numbers, answer.is_last) for answer in answers] == [
        (1, [(1, 1)], True),
        (2, [], True),
    ]


def test_a_repeated_request_is_not_asked_twice(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    recall(client, 1)
    recall(client, 1)
    (only,) = worker.take_all(Cancel)
    worker.take_back(only.request, (1, 0, 1))
    assert len(client.take_all(Cancelled)) == 1


def test_a_worker_that_is_lost_is_not_waited_for(stage: BrokerStage) -> None:
    client, worker, other = stage.client(retries=0), stage.worker("worker"), stage.worker("other", credit=0)
    client.submit(b"a", b"b")
    worker.forget()
    recall(client)
    worker.take(Cancel)
    stage.perform(stage.core.unreachable(worker.route, stage.clock.now))
    stage.advance(2.1)
    assert client.take(Cancelled) == Cancelled(1, [], True)
    assert sorted(client.results()) == [1, 2]
    other.forget()


def test_a_task_that_ran_and_was_lost_is_not_given_back_as_unstarted(stage: BrokerStage) -> None:
    # It has started once, and the client would forget that attempt.
    client, worker = stage.client(retries=1), stage.worker(credit=2)
    client.submit(b"a", b"b", b"c")
    worker.forget()
    worker.say(Beat(0))
    worker.say(Lost(client.identity, {"pid": 1}, [(1, 0, 1)]), batch=True)
    recall(client)
    worker.take_back(worker.take(Cancel).request, (1, 1, 1))
    assert client.cancelled() == [2, 3]
    worker.say(Beat(4))
    assert worker.payloads() == [b"a"]


def test_a_worker_may_give_back_what_it_said_was_running(stage: BrokerStage) -> None:
    # It stopped at the limit just when its claim was read.
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.say(Started([(1, 0, 1)]), batch=True)
    client.take(Running)
    recall(client)
    worker.take_back(worker.take(Cancel).request, (1, 0, 1))
    assert client.cancelled() == [1]


def test_tasks_taken_back_without_a_recall_wait_again_in_front(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=2)
    client.submit(b"a", b"b", b"c")
    worker.forget()
    worker.say(Beat(0))
    worker.take_back(99, (1, 0, 1), (1, 1, 1))
    worker.say(Beat(9))
    assert worker.payloads() == [b"a", b"b", b"c"]


def test_nothing_is_given_back_of_a_broken_session(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    recall(client)
    request = worker.take(Cancel).request
    worker.say(Lost(client.identity, {"pid": 1}, [(1, 0, 1)]), batch=True)
    client.take(Broken)
    worker.take_back(request, (1, 1, 1))
    recall(client, 2)
    assert not client.has(Cancelled)
    worker.forget()


def test_many_ranges_are_told_in_several_messages(stage: BrokerStage) -> None:
    client = stage.client()
    runs: list[SubmittedRun] = [(number, FUNCTION, None, [b"x"]) for number in range(1, BATCH_TASKS_MAX + 1)]
    client.say(Submit(EPOCH, [(FUNCTION, b"code", True)], runs), batch=True)
    client.next_number = BATCH_TASKS_MAX + 1
    client.submit(b"x")
    recall(client)
    first = client.take(Cancelled)
    assert (len(first.numbers), first.is_last) == (BATCH_TASKS_MAX, False)
    second = client.take(Cancelled)
    assert (len(second.numbers), second.is_last) == (1, True)


def test_a_new_task_after_a_recall_is_handed_out(stage: BrokerStage) -> None:
    client = stage.client()
    client.submit(b"a")
    recall(client)
    client.take(Cancelled)
    worker = stage.worker()
    client.submit(b"b")
    worker.take(Open)
    assert worker.payloads() == [b"b"]
