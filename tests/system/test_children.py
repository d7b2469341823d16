"""The children of an executor: how many, when they start, what they keep, and when they are replaced."""

from __future__ import annotations

import atexit
import concurrent.futures as cf
import os
import random
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from gates import Gate, pass_gate
from netfutures import Executor
from netfutures.errors import BrokenWorkerPool
from tasks import append_and_count, double, end_process, pid, raise_trouble, refuse_to_start, remember, remembered

LIMIT_S = 30.0


def children_of(process: int) -> set[int]:
    """The pids of its child processes."""
    found: set[int] = set()
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/children") as file:
            found |= {int(word) for word in file.read().split()}
    return found


def named(process: int) -> str:
    with open(f"/proc/{process}/comm") as file:
        return file.read().strip()


def test_nothing_starts_before_the_first_submit() -> None:
    before = children_of(os.getpid())
    executor = Executor(2)
    assert children_of(os.getpid()) == before
    executor.submit(double, 1).result(LIMIT_S)
    assert len(children_of(os.getpid()) - before) == 1
    executor.shutdown()
    assert children_of(os.getpid()) == before


def test_children_start_on_demand_one_in_each_slot(gate: Gate) -> None:
    before = children_of(os.getpid())
    with Executor(3) as executor, gate:
        for _ in range(5):
            executor.submit(double, 1).result(LIMIT_S)
        (cluster,) = children_of(os.getpid()) - before

        def living() -> list[int]:
            return [each for each in children_of(cluster) if named(each) == "nf-child"]

        assert len(living()) == 1
        futures = [executor.submit(pass_gate, gate.place) for _ in range(6)]
        pids = gate.wait_started(3)
        assert len(set(pids)) == 3
        assert sorted(living()) == sorted(pids)
        gate.open()
        assert cf.wait(futures, LIMIT_S).not_done == set()
        assert set(gate.wait_started(3)) <= set(pids)


def test_one_slot_for_each_usable_core(gate: Gate) -> None:
    with Executor() as executor, gate:
        count = len(os.sched_getaffinity(0))
        futures = [executor.submit(pass_gate, gate.place) for _ in range(count + 3)]
        pids = gate.wait_started(executor._max_workers)
        assert len(set(pids)) == executor._max_workers <= count
        gate.open()
        assert cf.wait(futures, LIMIT_S).not_done == set()


def test_state_stays_from_task_to_task() -> None:
    with Executor(1) as executor:
        results = [executor.submit(append_and_count, number).result(LIMIT_S) for number in range(5)]
        assert len({pid for pid, _ in results}) == 1
        assert [count for _, count in results] == [1, 2, 3, 4, 5]


def test_two_executors_share_nothing() -> None:
    with Executor(1) as one, Executor(1) as other:
        first, second = one.submit(append_and_count, 1), other.submit(append_and_count, 1)
        assert first.result(LIMIT_S)[1] == second.result(LIMIT_S)[1] == 1
        assert first.result()[0] != second.result()[0]


# -- initializer


def test_a_lambda_may_initialize() -> None:
    word = "from a closure"
    with Executor(1, initializer=lambda *values: remember(word, *values), initargs=(1, 2)) as executor:
        assert executor.submit(remembered).result(LIMIT_S) == [word, 1, 2]


def test_a_large_initializer_argument() -> None:
    with Executor(2, initializer=remember, initargs=(bytes(5_000_000),)) as executor:
        assert executor.submit(lambda: len(remembered()[0])).result(LIMIT_S) == 5_000_000


def test_what_an_initializer_prints_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with Executor(1, initializer=print, initargs=("from the initializer",)) as executor:
        assert executor.submit(double, 1).result(LIMIT_S) == 2
    assert capfd.readouterr().out == "from the initializer\n"


def test_a_failing_initializer_breaks_the_pool_and_shows_its_traceback() -> None:
    executor = Executor(2, initializer=refuse_to_start)
    futures = [executor.submit(double, number) for number in range(10)]
    for future in futures:
        error = future.exception(LIMIT_S)
        assert isinstance(error, BrokenWorkerPool)
        assert isinstance(error, BrokenProcessPool)
        assert "initializer" in str(error)
        assert "in refuse_to_start" in str(error)
        assert "LookupError: no model was found here" in str(error)
    with pytest.raises(BrokenWorkerPool, match="no model was found here"):
        executor.submit(double, 1)
    executor.shutdown()


@pytest.mark.parametrize("retries", [0, 3])
def test_a_failing_initializer_breaks_whatever_retries_say(retries: int) -> None:
    executor = Executor(1, initializer=refuse_to_start, retries=retries)
    with pytest.raises(BrokenWorkerPool, match="no model was found here"):
        executor.submit(double, 1).result(LIMIT_S)
    executor.shutdown()


def test_an_initializer_that_ends_its_process_breaks_the_pool() -> None:
    executor = Executor(1, initializer=end_process, initargs=(9,))
    with pytest.raises(BrokenWorkerPool, match="exit code 9"):
        executor.submit(double, 1).result(LIMIT_S)
    executor.shutdown()


def test_an_initializer_that_cannot_be_sent_fails_at_submit() -> None:
    executor = Executor(1, initializer=remember, initargs=(threading.Lock(),))
    with pytest.raises(TypeError, match="lock"):
        executor.submit(double, 1).result(LIMIT_S)
    executor.shutdown()


# -- max_tasks_per_child


@pytest.mark.parametrize("share", [1, 3])
def test_a_child_is_replaced_after_its_share(share: int) -> None:
    with Executor(2, max_tasks_per_child=share) as executor:
        pids = list(executor.map(pid, range(24)))
    assert max(pids.count(each) for each in pids) <= share
    assert len(set(pids)) >= 24 // share


def test_replaced_children_are_initialized_too() -> None:
    with Executor(1, initializer=remember, initargs=("a",), max_tasks_per_child=2) as executor:
        assert list(executor.map(remembered, range(6))) == [["a"]] * 6


def test_a_task_that_raises_counts_for_the_share() -> None:
    with Executor(1, max_tasks_per_child=1) as executor:
        first = executor.submit(pid).result(LIMIT_S)
        assert executor.submit(raise_trouble).exception(LIMIT_S) is not None
        assert executor.submit(pid).result(LIMIT_S) != first


def test_a_child_that_leaves_runs_its_atexit(tmp_path: object) -> None:
    with Executor(1, max_tasks_per_child=1) as executor:
        executor.submit(register_exit, f"{tmp_path}/first").result(LIMIT_S)
        executor.submit(double, 1).result(LIMIT_S)
    assert os.path.exists(f"{tmp_path}/first")


def test_children_run_their_atexit_at_the_end_of_the_executor(tmp_path: object) -> None:
    with Executor(1) as executor:
        executor.submit(register_exit, f"{tmp_path}/last").result(LIMIT_S)
        assert not os.path.exists(f"{tmp_path}/last")
    assert os.path.exists(f"{tmp_path}/last")


def register_exit(path: str) -> None:
    atexit.register(open, path, "w")


# -- surroundings


def test_random_generators_differ_from_child_to_child() -> None:
    with Executor(1, max_tasks_per_child=1) as executor:
        draws = [executor.submit(lambda: random.random()).result(LIMIT_S) for _ in range(4)]
    assert len(set(draws)) == 4


def test_all_children_share_one_hash_seed() -> None:
    with Executor(1, max_tasks_per_child=1) as executor:
        hashes = [executor.submit(hash, "a word").result(LIMIT_S) for _ in range(3)]
    assert len(set(hashes)) == 1


@pytest.mark.medium
def test_an_executor_in_a_task_has_one_slot_and_too_deep_raises() -> None:
    with Executor(1) as executor:
        assert executor.submit(nest, 1).result(LIMIT_S) == [("slots", 1)]
        assert executor.submit(nest, 2).result(2 * LIMIT_S)[-1] == ("slots", 1)
        deepest = executor.submit(nest, 3).exception(2 * LIMIT_S)
    assert isinstance(deepest, RuntimeError)
    assert "levels deep" in str(deepest)


def nest(levels: int) -> list[tuple[str, int]]:
    """Makes an executor in this task, and one in a task of that, and so on."""
    with Executor() as inner:
        if levels == 1:
            return [("slots", inner._max_workers)]
        return [("slots", inner._max_workers), *inner.submit(nest, levels - 1).result(LIMIT_S)]


def test_idle_children_use_no_time() -> None:
    with Executor(2) as executor:
        pids = set(executor.map(pid, range(50)))
        before = {each: cpu_ticks(each) for each in pids}
        executor.submit(time.sleep, 1.0).result(LIMIT_S)
        assert all(cpu_ticks(each) - before[each] <= 2 for each in pids)


def cpu_ticks(process: int) -> int:
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
