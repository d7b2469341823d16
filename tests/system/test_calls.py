"""What can be called and with what: values as they were at submit, large ones, and what does not survive the way."""

from __future__ import annotations

import concurrent.futures as cf
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import numpy as np
import pytest

from gates import Gate, pass_gate
from netfutures import Executor
from netfutures.errors import TransferError
from tasks import BadToPickle, NotLoadable, Trouble, double, given, make_lock, not_loadable, pid, raise_exactly

LIMIT_S = 30.0
pytestmark = pytest.mark.shares_processes


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


@pytest.fixture
def lone() -> Iterator[Executor]:
    """One slot, so that what is submitted later waits."""
    with Executor(1) as executor:
        yield executor


# -- what can be called


def test_lambdas_closures_and_local_classes(pool: Executor) -> None:
    offset = 10

    class Adder:
        def __init__(self, first: int) -> None:
            self.first = first

        def __call__(self, second: int) -> int:
            return self.first + second + offset

        def method(self, second: int) -> Adder:
            return Adder(self.first + second)

    assert pool.submit(lambda value: value + offset, 1).result(LIMIT_S) == 11
    assert pool.submit(Adder(1), 2).result(LIMIT_S) == 13
    assert pool.submit(partial(Adder(2), 3)).result(LIMIT_S) == 15
    assert pool.submit(Adder(1).method, 4).result(LIMIT_S).first == 5
    assert list(pool.map(lambda value: value * offset, range(4), chunksize=3)) == [0, 10, 20, 30]


def test_what_is_not_callable_fails_its_future(pool: Executor) -> None:
    not_callable: Any = "double"
    future = pool.submit(not_callable, 2)
    assert isinstance(future.exception(LIMIT_S), TypeError)
    assert "not callable" in str(future.exception())


def test_exceptions_of_local_classes_arrive_as_themselves(pool: Executor) -> None:
    class Mine(Exception):
        pass

    def fail() -> None:
        raise Mine("of the test")

    error = pool.submit(fail).exception(LIMIT_S)
    assert type(error).__name__ == "Mine"
    assert error is not None
    assert error.args == ("of the test",)
    assert "in fail" in str(error.__cause__)


def test_an_exception_that_does_not_pickle_is_told_by_a_stand_in(pool: Executor) -> None:
    def fail() -> None:
        raise ValueError("holds a lock", threading.Lock())

    error = pool.submit(fail).exception(LIMIT_S)
    assert error is not None
    assert "ValueError" in str(error)
    assert "holds a lock" in str(error)
    assert "in fail" in str(error.__cause__)
    assert pool.submit(double, 1).result(LIMIT_S) == 2


# -- the value at submit


def test_a_function_sees_the_arguments_as_they_were_at_submit(lone: Executor, gate: Gate) -> None:
    held = lone.submit(pass_gate, gate.place)
    numbers, array = [1, 2], np.zeros(200_000)
    future = lone.submit(given, numbers, array=array)
    numbers.append(3)
    array[:] = 7
    gate.open()
    args, kwargs = future.result(LIMIT_S)
    assert args == ([1, 2],)
    assert kwargs["array"].sum() == 0
    assert held.result(LIMIT_S) is None


def test_a_function_sees_cells_and_globals_as_they_were_at_submit(lone: Executor, gate: Gate) -> None:
    held = lone.submit(pass_gate, gate.place)
    counted = 0
    seen = [0]

    def look() -> tuple[int, int]:
        return counted, seen[0]

    futures = []
    for counted in range(5):  # the closure sees it
        seen[0] = 10 * counted
        futures.append(lone.submit(look))
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == [(n, 10 * n) for n in range(5)]
    assert held.result(LIMIT_S) is None


def test_no_task_sees_what_another_changed_in_a_function_by_value(lone: Executor) -> None:
    seen: list[int] = []

    def collect(value: int, kept: list[int] = []) -> tuple[list[int], list[int]]:  # noqa: B006  # what is tested
        seen.append(value)
        kept.append(value)
        return seen, kept

    assert list(lone.map(collect, range(4))) == [([n], [n]) for n in range(4)]


# -- what does not survive the way


@pytest.mark.parametrize(
    ("argument", "kind"), [(threading.Lock(), TypeError), (BadToPickle(), ZeroDivisionError)], ids=["lock", "raises"]
)
def test_an_argument_that_does_not_pickle_says_which_call(
    pool: Executor, argument: object, kind: type[Exception]
) -> None:
    error = pool.submit(given, argument).exception(LIMIT_S)
    assert isinstance(error, kind)
    assert "given" in " ".join(getattr(error, "__notes__", []))
    assert pool.submit(double, 2).result(LIMIT_S) == 4


def test_an_iterator_of_calls_goes_on_after_one_that_does_not_pickle(pool: Executor) -> None:
    futures = [pool.submit(double, value) for value in (1, threading.Lock(), 3)]
    done = cf.wait(futures, LIMIT_S).done
    assert len(done) == 3
    assert [futures[0].result(), futures[2].result()] == [2, 6]
    assert isinstance(futures[1].exception(), TypeError)


@pytest.mark.parametrize("result", [make_lock, lambda: (n for n in "abc"), lambda: BadToPickle()])
def test_a_result_that_does_not_pickle_says_so(pool: Executor, result: Callable[[], object]) -> None:
    error = pool.submit(result).exception(LIMIT_S)
    assert isinstance(error, TypeError | ZeroDivisionError)
    assert any("result" in note for note in error.__notes__)
    assert pool.submit(double, 2).result(LIMIT_S) == 4


@pytest.mark.parametrize("way", ["argument", "result", "exception", "function"])
def test_what_cannot_be_rebuilt_fails_its_future_only(pool: Executor, way: str) -> None:
    calls: dict[str, Callable[[], cf.Future[Any]]] = {
        "argument": lambda: pool.submit(double, NotLoadable()),
        "result": lambda: pool.submit(not_loadable),
        "exception": lambda: pool.submit(raise_exactly, Unloadable("first", "second")),
        "function": lambda: pool.submit(partial(double, NotLoadable())),
    }
    future = calls[way]()
    error = future.exception(LIMIT_S)
    assert isinstance(error, TransferError)
    assert isinstance(error, BrokenProcessPool)
    assert "could not be rebuilt" in str(error)
    assert error.__cause__ is not None
    assert pool.submit(double, 2).result(LIMIT_S) == 4


class Unloadable(Exception):
    """Its constructor wants two arguments and keeps one, so its pickle does not load: a common slip."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def test_an_executor_or_a_future_as_an_argument_raises_at_submit(pool: Executor) -> None:
    future = pool.submit(double, 1)
    with pytest.raises(TypeError, match="make one in the task"):
        pool.submit(double, pool)
    with pytest.raises(TypeError, match=r"future\.result\(\)"):
        pool.submit(double, [future])
    with pytest.raises(TypeError, match=r"future\.result\(\)"):
        pool.map(double, [future])
    assert pool.submit(double, 2).result(LIMIT_S) == 4


def test_interrupts_raised_in_a_task_leave_its_child_alive(lone: Executor) -> None:
    before = lone.submit(pid).result(LIMIT_S)
    for error in (KeyboardInterrupt("mine"), SystemExit(4), Trouble("x", 1)):
        assert type(lone.submit(raise_exactly, error).exception(LIMIT_S)) is type(error)
    assert lone.submit(pid).result(LIMIT_S) == before


# -- sizes

SIZES = pytest.mark.parametrize("megabytes", [0, 1, pytest.param(100, marks=pytest.mark.medium)])


@SIZES
def test_arrays_arrive_writable_and_right_in_and_out(pool: Executor, megabytes: int) -> None:
    array = np.arange(3 + megabytes * 125_000, dtype=np.int64)

    def turn(taken: Any) -> Any:
        assert taken.flags.writeable
        taken += 1
        return taken

    result = pool.submit(turn, array).result(2 * LIMIT_S)
    assert result.flags.writeable
    result -= 1
    assert np.array_equal(result, array)
    assert array[-1] == len(array) - 1


@SIZES
def test_bytes_arrive_right_in_and_out(pool: Executor, megabytes: int) -> None:
    block = bytes(range(256)) * (4096 * megabytes or 1)
    result = pool.submit(double, block).result(2 * LIMIT_S)
    assert len(result) == 2 * len(block)
    assert result.startswith(block)
    assert result.endswith(block)


def test_many_middling_payloads_pass_in_order(pool: Executor) -> None:
    blocks = [bytes([number]) * (30_000 + 7_000 * number) for number in range(64)]
    assert list(pool.map(double, blocks)) == [2 * block for block in blocks]


def test_a_large_function_travels(pool: Executor) -> None:
    table = bytes(5_000_000)
    assert list(pool.map(lambda place: len(table) + place, range(5))) == [5_000_000 + n for n in range(5)]
