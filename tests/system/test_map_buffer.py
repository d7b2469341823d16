"""`map` with `buffersize`, on every Python version as the newest documents it: never more calls ahead than that."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gates import LIMIT_S
from netfutures import Executor
from tasks import add, double, fail_at

pytestmark = pytest.mark.shares_processes


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


class Counted:
    """Numbers without end, and how many of them were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.taken += 1
        return self.taken - 1


@pytest.mark.parametrize("buffersize", [1, 4, 100])
def test_an_endless_iterable_is_taken_as_results_are(pool: Executor, buffersize: int) -> None:
    numbers = Counted()
    results = pool.map(double, numbers, buffersize=buffersize)
    assert numbers.taken == buffersize
    for taken in range(1, 20):
        assert next(results) == 2 * (taken - 1)
        assert numbers.taken == buffersize + taken


@pytest.mark.parametrize("chunksize", [1, 3, 8])
def test_all_results_come_in_order(pool: Executor, chunksize: int) -> None:
    results = pool.map(add, range(50), itertools.count(), buffersize=5, chunksize=chunksize)
    assert list(results) == [2 * number for number in range(50)]


def test_a_buffer_larger_than_the_iterable(pool: Executor) -> None:
    assert list(pool.map(double, [1, 2], buffersize=10)) == [2, 4]
    assert list(pool.map(double, [], buffersize=1)) == []


@pytest.mark.parametrize(
    ("buffersize", "kind"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)], ids=repr
)
def test_a_wrong_buffersize_is_refused_at_the_call(pool: Executor, buffersize: object, kind: type[Exception]) -> None:
    numbers = Counted()
    call: Callable[..., Any] = pool.map
    with pytest.raises(kind, match="buffersize must be"):
        call(double, numbers, buffersize=buffersize)
    assert numbers.taken == 0


def test_a_failure_ends_it_and_takes_no_more(pool: Executor) -> None:
    numbers = Counted()
    results = pool.map(fail_at, numbers, itertools.repeat(3), buffersize=2)
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="3 is refused"):
        next(results)
    assert numbers.taken == 6
    assert list(results) == []
    assert numbers.taken == 6


def test_what_the_iterable_raises_comes_out_where_it_is_taken(pool: Executor) -> None:
    def breaking() -> Iterator[int]:
        yield from range(3)
        raise ZeroDivisionError("no fourth")

    results = pool.map(double, breaking(), buffersize=2)
    assert next(results) == 0
    with pytest.raises(ZeroDivisionError, match="no fourth"):
        list(results)
    assert pool.submit(double, 1).result(LIMIT_S) == 2
