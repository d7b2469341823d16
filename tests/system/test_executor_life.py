"""One contract for two executors, continued: how they begin and end, their children, and what they refuse."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from gates import Gate, pass_gate
from netfutures import Executor
from tasks import add, double, end_process, make_lock, pid, refuse_to_start, remember, remembered

LIMIT_S = 30.0

Make = Callable[..., Any]


def make_standard(*args: Any, **kwargs: Any) -> cf.ProcessPoolExecutor:
    kwargs.setdefault("mp_context", multiprocessing.get_context("spawn"))
    return cf.ProcessPoolExecutor(*args, **kwargs)


@pytest.fixture(
    params=[pytest.param(make_standard, marks=pytest.mark.medium), Executor], ids=["standard", "netfutures"]
)
def make(request: pytest.FixtureRequest) -> Make:
    found: Make = request.param
    return found


# -- shutdown


def test_shutdown_waits_for_what_was_submitted(make: Make) -> None:
    executor = make(1)
    futures = [executor.submit(double, number) for number in range(50)]
    executor.shutdown()
    assert [future.done() for future in futures] == [True] * 50
    assert futures[49].result() == 98


def test_shutdown_without_waiting_returns_and_the_tasks_still_run(make: Make, gate: Gate) -> None:
    executor = make(1)
    futures = [executor.submit(pass_gate, gate.place, number) for number in range(3)]
    executor.shutdown(wait=False)
    assert not futures[2].done()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(double, 1)
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2]
    executor.shutdown()


def test_shutdown_cancels_what_has_not_started(make: Make, gate: Gate) -> None:
    executor = make(1)
    running = executor.submit(pass_gate, gate.place, "ran")
    gate.wait_started()
    queued = [executor.submit(double, number) for number in range(30)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert not running.done()
    gate.open()
    assert running.result(LIMIT_S) == "ran"
    executor.shutdown()
    # The standard library has handed some more to its queue already, and runs them.
    assert all(future.cancelled() for future in queued[2:])


def test_the_end_of_a_with_block_waits(make: Make) -> None:
    with make(2) as executor:
        assert executor.__enter__() is executor
        futures = [executor.submit(add, number, 1) for number in range(20)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(double, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(double, [1])


def test_an_exception_leaves_a_with_block_after_the_tasks(make: Make) -> None:
    def leave() -> None:
        with make(1) as executor:
            futures.append(executor.submit(double, 4))
            raise ZeroDivisionError

    futures: list[cf.Future[int]] = []
    with pytest.raises(ZeroDivisionError):
        leave()
    assert futures[0].result(0) == 8


def test_shutdown_may_be_called_again_and_before_any_task(make: Make) -> None:
    executor = make(1)
    executor.shutdown(wait=False)
    executor.shutdown()
    executor.shutdown(cancel_futures=True)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(double, 1)


def test_shutdown_from_a_callback_does_not_hang(make: Make) -> None:
    executor = make(1)
    over = threading.Event()
    future = executor.submit(double, 1)

    def end(_: cf.Future[int]) -> None:
        executor.shutdown(wait=False)
        over.set()

    future.add_done_callback(end)
    assert over.wait(LIMIT_S)
    executor.shutdown()


def test_a_forgotten_executor_finishes_what_it_was_given(make: Make) -> None:
    futures = [make(1).submit(double, 3)]
    gc.collect()
    assert futures[0].result(LIMIT_S) == 6


def test_an_exhausted_map_needs_its_executor_no_more(make: Make) -> None:
    results = make(2).map(double, range(50))
    gc.collect()
    assert sum(results) == sum(range(50)) * 2


# -- children


def test_the_initializer_runs_in_each_child_before_its_first_task(make: Make) -> None:
    with make(2, initializer=remember, initargs=("a", 2)) as executor:
        assert list(executor.map(remembered, range(20))) == [["a", 2]] * 20


def test_a_failing_initializer_breaks_the_pool(make: Make) -> None:
    with make(2, initializer=refuse_to_start) as executor:
        future = executor.submit(double, 1)
        with pytest.raises(BrokenProcessPool):
            future.result(LIMIT_S)
        with pytest.raises(BrokenProcessPool):
            executor.submit(double, 2)


def test_tasks_run_in_other_processes_at_the_same_time(make: Make, gate: Gate) -> None:
    with make(2) as executor, gate:
        futures = [executor.submit(pass_gate, gate.place) for _ in range(2)]
        pids = gate.wait_started(2)
        gate.open()
        assert cf.wait(futures, LIMIT_S).not_done == set()
    assert len({*pids, pid()}) == 3


def test_a_child_that_ends_breaks_the_pool(make: Make, gate: Gate) -> None:
    with make(1) as executor, gate:
        ending = executor.submit(end_process)
        waiting = executor.submit(pass_gate, gate.place)
        for future in (ending, waiting):
            with pytest.raises(BrokenProcessPool):
                future.result(LIMIT_S)
        with pytest.raises(BrokenProcessPool):
            executor.submit(double, 1)


# -- what is refused


def test_a_result_that_does_not_pickle_fails_its_future_only(make: Make) -> None:
    with make(1) as executor:
        failing, other = executor.submit(make_lock), executor.submit(double, 2)
        assert isinstance(failing.exception(LIMIT_S), TypeError)
        assert "lock" in str(failing.exception())
        assert other.result(LIMIT_S) == 4


def test_an_argument_that_does_not_pickle_fails_its_future_only(make: Make) -> None:
    with make(1) as executor:
        failing, other = executor.submit(double, threading.Lock()), executor.submit(double, 2)
        assert isinstance(failing.exception(LIMIT_S), TypeError)
        assert "lock" in str(failing.exception())
        assert other.result(LIMIT_S) == 4


@pytest.mark.parametrize("count", [0, -1, -100])
def test_max_workers_below_one_is_refused(make: Make, count: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make(count)


@pytest.mark.parametrize("count", ["2", 2.5, [2]], ids=repr)
def test_max_workers_that_is_no_number_of_processes_is_refused(make: Make, count: object) -> None:
    with pytest.raises(TypeError):
        make(count)


@pytest.mark.parametrize("bad", [5, "double", (len,)], ids=repr)
def test_an_initializer_that_cannot_be_called_is_refused(make: Make, bad: object) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer=bad)


def test_initargs_that_are_no_sequence_are_refused_before_a_result(make: Make) -> None:
    with pytest.raises((TypeError, BrokenProcessPool)), make(1, initializer=remember, initargs=5) as executor:
        executor.submit(double, 1).result(LIMIT_S)


def test_max_tasks_per_child_is_a_number_above_zero(make: Make) -> None:
    with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
        make(1, max_tasks_per_child=0)
    with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
        make(1, max_tasks_per_child=-2)
    with pytest.raises(TypeError, match="max_tasks_per_child must be an integer"):
        make(1, max_tasks_per_child=1.5)


def test_unknown_arguments_are_refused(make: Make) -> None:
    with pytest.raises(TypeError):
        make(1, max_children=3)
    with pytest.raises(TypeError):
        make(1, None, None, (), 5)
