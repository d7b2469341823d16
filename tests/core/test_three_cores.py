"""Stories of all three cores joined: whatever is cut, lost or killed, each call ends once, and leaves nothing."""

from collections.abc import Iterator

import pytest

from fakes import FakeClient, World
from inbox import FUNCTION
from netfutures.client.core.ledger import CallRun
from netfutures.limits import BEAT_S, CREDIT_TASKS, LEASE_S, SUSPECT_AFTER_S
from netfutures.loss import LOST_TAG

MiB = 1 << 20


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.leave()


def calls(count: int, start: int = 0) -> list[str]:
    return [f"call {number}" for number in range(start, start + count)]


def done(names: list[str]) -> dict[str, bytes]:
    return {name: b"did " + name.encode() for name in names}


# The good days.


def test_calls_run_and_their_outcomes_come_back(world: World) -> None:
    world.worker(slots=2)
    client = world.client()
    client.submit(calls(100))
    world.settle()
    assert client.outcomes == done(calls(100))


def test_many_more_calls_than_there_is_credit_for(world: World) -> None:
    world.worker(slots=1)
    client = world.client()
    names = calls(300)
    submitted = 0
    while submitted < len(names):
        room = min(client.core.room[0], 40)
        if room:
            client.submit(names[submitted : submitted + room])
            submitted += room
        world.step()
    world.settle()
    assert client.outcomes == done(names)
    assert client.core.room[0] == CREDIT_TASKS


def test_two_clients_do_not_see_each_other(world: World) -> None:
    world.worker(slots=2)
    one, other = world.client("one"), world.client("other")
    one.submit(calls(20))
    other.submit(calls(20, 100))
    world.settle()
    world.advance(1.0)
    assert one.outcomes == done(calls(20))
    assert other.outcomes == done(calls(20, 100))


def test_workers_share_the_calls(world: World) -> None:
    workers = [world.worker("one", slots=2), world.worker("other", slots=2)]
    world.runs_children = False
    client = world.client()
    client.submit(calls(8))
    world.settle()
    assert sorted(worker.core.state.held_tasks for worker in workers) == [4, 4]
    world.runs_children = True
    world.settle()
    assert client.outcomes == done(calls(8))


def test_what_is_large_comes_through_both_ways(world: World) -> None:
    world.worker(slots=2)
    client = world.client("client", b"i" * 2 * MiB)
    large = bytes(range(256)) * (5 * MiB // 256)
    client.submit(["large", "small"], [large, b"small"])
    world.settle()
    assert client.outcomes == {"large": b"did " + large, "small": b"did small"}


def test_a_large_function_comes_through(world: World) -> None:
    worker = world.worker()
    client = world.client()
    code = b"f" * 3 * MiB
    run = CallRun(FUNCTION, None, ["a"], [b"a"])
    client.perform(client.core.submit([(FUNCTION, code, True)], [run], world.clock.now))
    world.settle()
    assert client.outcomes == {"a": b"did a"}
    (child,) = worker.children.values()
    assert bytes(child.functions[1].content) == code


def test_children_with_a_limit_are_replaced_until_all_is_done(world: World) -> None:
    world.worker(slots=2)
    client = world.client(max_tasks_per_child=3)
    client.submit(calls(50))
    world.settle()
    assert client.outcomes == done(calls(50))


def test_a_goodbye_leaves_nothing_behind(world: World) -> None:
    worker = world.worker(slots=2)
    client = world.client()
    client.submit(calls(10))
    world.settle()
    client.goodbye()
    world.settle()
    assert client.has_ended
    assert not world.broker.state.sessions
    assert not worker.core.state.sessions
    assert not worker.children


def test_an_idle_cluster_wakes_only_for_beats(world: World) -> None:
    worker = world.worker(slots=2)
    client = world.client()
    client.submit(calls(10))
    world.settle()
    world.advance(2.0)
    wakes = 0
    until = world.clock.now + 10.0
    while True:
        deadlines = [each.core.next_deadline() for each in (client, worker)]
        deadline = min(each for each in (*deadlines, world.broker.next_deadline()) if each is not None)
        if deadline > until:
            break
        world.advance(deadline - world.clock.now)
        wakes += 1
    assert wakes <= 3 * 10


# Calling back.


def test_a_recall_gets_all_that_has_not_started_wherever_it_is(world: World) -> None:
    worker = world.worker(slots=1)
    client = world.client()
    world.runs_children = False
    client.submit(calls(30))
    world.settle()
    worker.ready(0)
    worker.start(0)
    request = client.recall()
    world.settle()
    assert client.answered == [request]
    assert sorted(client.given_back[request]) == sorted(calls(29, 1))
    world.runs_children = True
    worker.finish(0)
    world.settle()
    assert client.outcomes == done(calls(1))


@pytest.mark.parametrize("party", ["client", "worker"])
@pytest.mark.parametrize("steps", range(6))
def test_a_recall_survives_a_cut_at_any_step(world: World, party: str, steps: int) -> None:
    worker = world.worker(slots=1)
    client = world.client()
    world.runs_children = False
    client.submit(calls(10))
    world.settle()
    worker.ready(0)
    worker.start(0)
    client.recall()
    for _ in range(steps):
        world.step()
    world.cut(client if party == "client" else worker)
    world.settle()
    given_back = [name for names in client.given_back.values() for name in names]
    assert client.answered == [1]
    assert len(given_back) == len(set(given_back))
    world.runs_children = True
    worker.finish(0)
    world.settle()
    assert client.outcomes.keys() | set(given_back) == set(calls(10))
    assert not client.outcomes.keys() & set(given_back)


# The bad days.


@pytest.mark.parametrize("party", ["client", "worker"])
@pytest.mark.parametrize("steps", range(8))
def test_a_connection_that_is_cut_at_any_step_costs_nothing(world: World, party: str, steps: int) -> None:
    worker = world.worker(slots=2)
    client = world.client(retries=0)
    large = b"x" * (2 * MiB)
    client.submit([*calls(20), "large"], [*[name.encode() for name in calls(20)], large])
    for _ in range(steps):
        world.step()
    world.cut(client if party == "client" else worker)
    world.settle()
    world.advance(0.1)
    assert client.outcomes == {**done(calls(20)), "large": b"did " + large}


@pytest.mark.parametrize("party", ["client", "worker"])
@pytest.mark.parametrize("steps", range(8))
def test_messages_that_are_lost_unnoticed_cost_a_second(world: World, party: str, steps: int) -> None:
    worker = world.worker(slots=2)
    client = world.client(retries=0)
    client.submit(calls(20))
    for _ in range(steps):
        world.step()
    world.lose(client if party == "client" else worker)
    world.settle()
    world.advance(3.5 * BEAT_S)
    assert client.outcomes == done(calls(20))


def test_a_connection_that_is_cut_again_and_again_costs_nothing(world: World) -> None:
    worker = world.worker(slots=2)
    client = world.client(retries=0)
    client.submit(calls(60))
    for turn in range(40):
        world.step()
        world.cut((client, worker)[turn % 2])
    world.settle()
    assert client.outcomes == done(calls(60))


def killed_child(world: World, client: FakeClient, count: int) -> None:
    """A child dies at its first task."""
    (worker,) = world.workers
    world.runs_children = False
    client.submit(calls(count))
    world.settle()
    worker.ready(0)
    worker.start(0)
    worker.die(0)
    world.runs_children = True
    world.settle()


def test_a_dead_child_s_task_runs_again_when_retries_allow_it(world: World) -> None:
    world.worker()
    client = world.client(retries=1)
    killed_child(world, client, 10)
    assert client.outcomes == done(calls(10))


def test_a_dead_child_s_task_is_lost_when_they_do_not(world: World) -> None:
    world.worker()
    client = world.client(retries=0)
    killed_child(world, client, 10)
    lost = client.outcomes.pop("call 0")
    assert lost.startswith(LOST_TAG)
    assert client.outcomes == done(calls(9, 1))


def test_without_retries_a_dead_child_breaks_the_pool_and_nothing_is_left_of_it(world: World) -> None:
    worker = world.worker(slots=2)
    client = world.client()
    killed_child(world, client, 10)
    assert client.certificate is not None
    assert client.certificate["calls"] == ["call 0"]
    assert sorted(client.broken_calls) == calls(10)
    assert not worker.children
    assert not worker.core.state.sessions


@pytest.mark.parametrize("steps", range(6))
def test_calls_of_a_worker_that_is_killed_at_any_step_run_elsewhere(world: World, steps: int) -> None:
    worker = world.worker("worker", slots=2)
    client = world.client(retries=1)
    large = b"x" * (2 * MiB)
    client.submit([*calls(20), "large"], [*[name.encode() for name in calls(20)], large])
    for _ in range(steps):
        world.step()
    world.kill(worker)
    world.worker("other", slots=2)
    world.advance(LEASE_S)
    assert client.outcomes == {**done(calls(20)), "large": b"did " + large}


def test_a_worker_that_was_cut_off_beyond_its_lease_is_used_again(world: World) -> None:
    worker = world.worker(slots=2)
    client = world.client(retries=1)
    world.runs_children = False
    client.submit(calls(4))
    world.settle()
    for slot in (0, 1):
        worker.ready(slot)
        worker.start(slot)
    world.cut_off(worker)
    world.advance(LEASE_S + 1)
    assert not world.broker.statistics().workers
    world.rejoin(worker)
    world.runs_children = True
    world.advance(2 * SUSPECT_AFTER_S)
    assert client.outcomes == done(calls(4))
