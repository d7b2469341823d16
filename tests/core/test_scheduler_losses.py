"""Stories of the broker's core: children and workers that are lost, what runs again, and what breaks a pool."""

from collections.abc import Iterator
from typing import Any

import pytest

from broker_stage import BrokerStage, ClientPeer, WorkerPeer
from netfutures.fields import BLOB, CHUNKS, Dispatched, Payload, Reference
from netfutures.limits import RELEASE_EVERY_S
from netfutures.loss import LOST_TAG, certificate_of
from netfutures.wire import (
    Beat,
    Broken,
    Chunk,
    Close,
    Goodbye,
    Lost,
    Need,
    Open,
    Release,
    RemoteProtocolError,
    Started,
    Tasks,
)

DEATH = {"host": "here", "pid": 4711, "exit_code": None, "signal": 9}


@pytest.fixture
def stage() -> Iterator[BrokerStage]:
    stage = BrokerStage()
    yield stage
    stage.leave()


def child_dies(worker: WorkerPeer, client: ClientPeer, *dispatched: Dispatched, **more: Any) -> None:
    worker.say(Lost(client.identity, {**DEATH, **more}, list(dispatched)), batch=True)


def lose_worker(stage: BrokerStage, worker: WorkerPeer) -> None:
    stage.perform(stage.core.unreachable(worker.route, stage.clock.now))
    stage.advance(2.1)
    worker.forget()


def certificate_in(outcome: Payload) -> dict[str, Any]:
    assert isinstance(outcome, bytes)
    assert outcome.startswith(LOST_TAG)
    return certificate_of(outcome)


# A child.


def test_a_task_whose_child_died_breaks_the_pool_unless_retries_are_set(stage: BrokerStage) -> None:
    client, worker, other = stage.client(), stage.worker(credit=2), stage.worker("other", credit=0)
    client.submit(b"a", b"b", b"c")
    worker.forget()
    child_dies(worker, client, (1, 0, 1))
    assert client.take(Broken).certificate == {**DEATH, "tasks": [1]}
    assert worker.take(Close) == Close(client.identity, True)
    assert stage.core.statistics().queued_tasks == stage.core.statistics().held_tasks == 0
    client.submit(b"d")
    assert not worker.has(Tasks)
    assert not other.has(Close)


def test_with_retries_0_only_the_task_that_ran_is_lost(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker()
    client.submit(b"a", b"b", b"c")
    worker.forget()
    child_dies(worker, client, (1, 1, 1))
    worker.finish(1, b"A")
    worker.finish(1, b"C", offset=2)
    results: dict[int, Payload] = {}
    while more := client.results():
        results |= more
        client.acknowledge()
    assert certificate_in(results.pop(2)) == {**DEATH, "tasks": [2], "attempt": 1}
    assert results == {1: b"A", 3: b"C"}
    worker.forget()


def test_with_retries_2_a_task_runs_three_times_at_most(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=2), stage.worker()
    client.submit(b"a")
    worker.take(Open)
    bases = []
    for _ in range(3):
        ((base, _, _, _),) = worker.handed()
        bases.append(base)
        assert not client.results()
        child_dies(worker, client, (base, 0, 1))
    assert bases == [1, 2, 3]
    assert not worker.handed()
    assert certificate_in(client.results()[1])["pid"] == 4711


def test_a_task_that_succeeds_at_its_second_attempt_has_its_outcome(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=1), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.say(Started([(1, 0, 1)]), batch=True)
    child_dies(worker, client, (1, 0, 1))
    assert [run[0] for run in worker.handed()] == [2]
    worker.finish(2, b"A")
    client.forget()
    assert not stage.core.state.sessions[client.identity].attempts


def test_a_run_s_own_retries_win_over_the_session_s(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", options={"retries": 0})
    worker.forget()
    child_dies(worker, client, (1, 0, 1))
    assert certificate_in(client.results()[1])["signal"] == 9


def test_the_attempts_of_each_task_are_counted_by_themselves(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=1), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    child_dies(worker, client, (1, 0, 1))
    child_dies(worker, client, (1, 1, 1))
    assert [run[0] for run in worker.handed()] == [3, 4]
    assert not client.results()


def test_the_death_of_an_idle_child_breaks_a_pool_without_retries(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, b"A")
    client.results()
    child_dies(worker, client)
    assert client.take(Broken).certificate == {**DEATH, "tasks": []}
    worker.forget()


def test_the_death_of_an_idle_child_is_nothing_with_retries(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, b"A")
    client.results()
    child_dies(worker, client)
    assert not client.has(Broken)


def test_a_failing_initializer_breaks_whatever_retries_say(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=5), stage.worker()
    client.submit(b"a")
    worker.forget()
    child_dies(worker, client, initializer_failed=True, note="its initializer failed:\nValueError")
    assert "ValueError" in client.take(Broken).certificate["note"]
    worker.take(Close)


def test_one_session_s_loss_does_not_touch_another(stage: BrokerStage) -> None:
    broken, whole = stage.client("broken"), stage.client("whole")
    worker = stage.worker()
    broken.submit(b"x")
    whole.submit(b"y")
    worker.forget()
    child_dies(worker, broken, (1, 0, 1))
    broken.take(Broken)
    worker.finish(2, b"Y")
    assert whole.results() == {1: b"Y"}
    worker.forget()


def test_a_broken_session_ends_with_its_client_s_goodbye(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    child_dies(worker, client, (1, 0, 1))
    client.take(Broken)
    worker.take(Close)
    client.say(Goodbye("broken"))
    client.take(Goodbye)
    assert stage.core.statistics().sessions == 0


def test_that_a_session_is_broken_is_repeated_to_a_client_that_was_away(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    stage.perform(stage.core.unreachable(client.route, stage.clock.now))
    child_dies(worker, client, (1, 0, 1))
    client.hello()
    client.take(Broken)
    worker.take(Close)


def test_what_a_dead_child_s_session_said_before_is_told_once(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker()
    client.submit(b"a")
    worker.forget()
    child_dies(worker, client, (1, 0, 1))
    child_dies(worker, client, (1, 0, 1))
    assert len(client.results()) == 1
    assert stage.core.statistics().held_tasks == 0


# A whole worker.


def test_a_task_of_a_lost_worker_goes_to_another_when_retries_allow_it(stage: BrokerStage) -> None:
    client, worker, other = stage.client(retries=1), stage.worker("worker", credit=9), stage.worker("other", credit=0)
    client.submit(b"a", b"b")
    worker.forget()
    lose_worker(stage, worker)
    other.say(Beat(4))
    other.take(Open)
    assert {bytes(payload) for payload in other.payloads()} == {b"a", b"b"}  # type: ignore[arg-type]  # all are bytes


def test_all_that_was_handed_to_a_lost_worker_counts_as_started(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    lose_worker(stage, worker)
    results = client.results()
    assert sorted(results) == [1, 2]
    assert certificate_in(results[1])["worker"] == worker.identity.hex()


def test_what_a_lost_worker_had_finished_is_not_run_again(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=1), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, b"A")
    lose_worker(stage, worker)
    assert client.results() == {1: b"A"}
    other = stage.worker("other")
    assert not other.has(Tasks)
    client.acknowledge()


def test_a_pool_that_was_never_at_the_lost_worker_is_whole(stage: BrokerStage) -> None:
    worker = stage.worker("worker", credit=0)
    client = stage.client()
    client.submit(b"a")
    lose_worker(stage, worker)
    other = stage.worker("other")
    other.take(Open)
    assert other.payloads() == [b"a"]


def test_a_pool_with_nothing_but_an_idle_child_there_is_broken_by_the_loss(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, b"A")
    client.results()
    lose_worker(stage, worker)
    client.take(Broken)


def test_a_worker_that_was_lost_is_used_again_when_it_comes_back(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=3), stage.worker()
    client.submit(b"a")
    worker.forget()
    lose_worker(stage, worker)
    worker.hello(sessions=[client.identity], held=[(1, 0, 1)])
    assert [type(message).__name__ for message in worker.came] == ["Stale", "Tasks"]
    worker.forget()
    worker.finish(2, b"A")
    assert client.results() == {1: b"A"}


# Outcomes that only the lost worker had.

LARGE = 5 << 20


def large_outcome(worker: WorkerPeer, base: int) -> None:
    worker.finish(base, Reference(CHUNKS, base, LARGE))


@pytest.mark.parametrize("was_asked_for", [False, True])
def test_a_large_outcome_that_was_lost_with_its_worker_is_made_again(stage: BrokerStage, was_asked_for: bool) -> None:
    client, worker = stage.client(retries=1), stage.worker()
    client.submit(b"a")
    worker.forget()
    large_outcome(worker, 1)
    assert client.results() == {1: Reference(CHUNKS, 1, LARGE)}
    if was_asked_for:
        client.say(Need(client.identity, 1, 0, LARGE))
    lose_worker(stage, worker)
    assert client.take(Chunk).abort
    other = stage.worker("other")
    other.take(Open)
    ((base, _, _, _),) = other.handed()
    large_outcome(other, base)
    assert client.results() == {1: Reference(CHUNKS, base, LARGE)}
    client.say(Need(client.identity, base, LARGE, LARGE), batch=True)
    stage.advance(2 * RELEASE_EVERY_S)
    other.take(Release)


def test_a_large_outcome_that_was_lost_for_good_is_a_loss(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker()
    client.submit(b"a")
    worker.forget()
    large_outcome(worker, 1)
    client.results()
    lose_worker(stage, worker)
    client.take(Chunk)
    assert certificate_in(client.results()[1])["host"] == "host of worker"
    assert not stage.core.state.sessions[client.identity].large


def test_whoever_asks_later_for_an_outcome_that_is_gone_is_told_so(stage: BrokerStage) -> None:
    client = stage.client()
    client.say(Need(client.identity, 77, 0, 10))
    assert client.take(Chunk) == Chunk(client.identity, 77, 0, b"", True)


def test_a_loss_of_a_session_that_is_over_is_nothing(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    client.say(Goodbye("enough"))
    child_dies(worker, client, (1, 0, 1))
    client.take(Goodbye)
    worker.take(Close)
    assert not client.has(Broken)


def test_a_worker_cannot_lose_one_session_s_task_in_the_name_of_another(stage: BrokerStage) -> None:
    client, other, worker = stage.client(retries=0), stage.client("other", retries=0), stage.worker()
    client.submit(b"a")
    worker.forget()
    child_dies(worker, other, (1, 0, 1))
    assert not other.results()
    worker.finish(1, b"A")
    assert client.results() == {1: b"A"}


@pytest.mark.parametrize("outcome", [Reference(CHUNKS, 2, LARGE), Reference(BLOB, 1, LARGE)])
def test_an_outcome_that_refers_to_something_else_is_refused(stage: BrokerStage, outcome: Reference) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    with pytest.raises(RemoteProtocolError, match="refers to something else"):
        worker.finish(1, outcome)
    assert stage.core.statistics().held_tasks == 2
