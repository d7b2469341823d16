"""One contract for two executors: what `ProcessPoolExecutor` does, ours does too; each test runs on both."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import itertools
import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gates import Gate, pass_gate, wait_running
from netfutures import Executor
from tasks import Trouble, add, double, fail_at, given, raise_exactly, raise_trouble

LIMIT_S = 30.0
pytestmark = pytest.mark.shares_processes

Make = Callable[..., cf.Executor]


def make_standard(count: int) -> cf.Executor:
    return cf.ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


MAKERS: dict[str, Make] = {"standard": make_standard, "netfutures": Executor}


@pytest.fixture(scope="module", params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


@pytest.fixture(scope="module")
def pool(make: Make) -> Iterator[cf.Executor]:
    """One with two slots that no test ends."""
    with make(2) as executor:
        yield executor


# -- submit


def test_submit_returns_a_future_of_the_standard_library(pool: cf.Executor) -> None:
    assert isinstance(pool, cf.Executor)
    future = pool.submit(double, 21)
    assert isinstance(future, cf.Future)
    assert future.result(LIMIT_S) == 42
    assert (future.exception(), future.done(), future.running(), future.cancelled()) == (None, True, False, False)


def test_every_keyword_is_the_function_s(pool: cf.Executor) -> None:
    names = ["fn", "self", "timeout", "retries", "priority", "name", "args", "kwargs", "executor"]
    keywords = {name: place for place, name in enumerate(names)}
    assert pool.submit(given, 1, 2, **keywords).result(LIMIT_S) == ((1, 2), keywords)


def test_submit_without_a_function_raises(pool: cf.Executor) -> None:
    submit: Any = pool.submit
    with pytest.raises(TypeError):
        submit()
    with pytest.raises(TypeError):
        submit(fn=double)


def test_many_results_find_their_futures(pool: cf.Executor) -> None:
    futures = [pool.submit(double, number) for number in range(500)]
    assert [future.result(LIMIT_S) for future in futures] == [2 * number for number in range(500)]


def test_threads_may_submit_at_once(pool: cf.Executor) -> None:
    totals: list[int] = []

    def submit_some(first: int) -> None:
        futures = [pool.submit(add, first, number) for number in range(50)]
        totals.append(sum(future.result(LIMIT_S) for future in futures))

    threads = [threading.Thread(target=submit_some, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(totals) == [50 * first + sum(range(50)) for first in range(4)]


# -- exceptions


def test_an_exception_arrives_as_itself_with_the_remote_traceback(pool: cf.Executor) -> None:
    future = pool.submit(raise_trouble, "burnt", code=9)
    error = future.exception(LIMIT_S)
    assert isinstance(error, Trouble)
    assert (type(error), error.args, error.code, error.extra) == (Trouble, ("burnt", 9), 9, "an attribute")
    assert error.__notes__ == ["a note"]
    text = str(error.__cause__)
    assert text.startswith('\n"""\nKeyError')
    assert "the cause there" in text
    assert "direct cause" in text
    assert "in raise_trouble" in text
    assert "tasks.Trouble: ('burnt', 9)" in text
    assert text.endswith('"""')
    with pytest.raises(Trouble) as raised:
        future.result(LIMIT_S)
    assert raised.value is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(4)], ids=repr)
def test_every_exception_is_the_task_s_and_the_pool_goes_on(pool: cf.Executor, error: BaseException) -> None:
    found = pool.submit(raise_exactly, error).exception(LIMIT_S)
    assert (type(found), found.args if found else None) == (type(error), error.args)
    assert pool.submit(double, 1).result(LIMIT_S) == 2


# -- map


def test_map_is_lazy_and_in_order(pool: cf.Executor, gate: Gate) -> None:
    results = pool.map(pass_gate, itertools.repeat(gate.place), range(4))
    assert iter(results) is results
    gate.wait_started(1)  # So it returned while its calls run.
    gate.let_through(4)
    assert list(results) == [0, 1, 2, 3]


def test_map_zips_and_ends_with_the_shortest(pool: cf.Executor) -> None:
    assert list(pool.map(add, [1, 2, 3], itertools.count(10), [5, 5])) == [16, 18]
    assert list(pool.map(add, [])) == []
    assert list(pool.map(add)) == []


@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_map_in_chunks_gives_the_same(pool: cf.Executor, chunksize: int) -> None:
    assert list(pool.map(add, range(20), range(20), chunksize=chunksize)) == [2 * n for n in range(20)]


@pytest.mark.parametrize("chunksize", [0, -1])
def test_map_refuses_a_chunksize_below_one_at_the_call(pool: cf.Executor, chunksize: int) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        pool.map(double, [1], chunksize=chunksize)


def test_map_raises_at_the_place_of_the_failure_and_then_ends(pool: cf.Executor) -> None:
    results = pool.map(fail_at, range(6), itertools.repeat(2))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2 is refused"):
        next(results)
    assert list(results) == []


def test_map_raises_at_the_call_what_its_iterable_raises(pool: cf.Executor) -> None:
    def broken_off() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("no second")

    with pytest.raises(ZeroDivisionError, match="no second"):
        pool.map(double, broken_off())


def test_map_times_out_when_a_result_is_not_there_in_time(pool: cf.Executor, gate: Gate) -> None:
    results = pool.map(pass_gate, [gate.place], [1], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    gate.open()


def test_a_map_that_is_in_time_does_not_time_out(pool: cf.Executor) -> None:
    assert list(pool.map(double, range(5), timeout=LIMIT_S)) == [0, 2, 4, 6, 8]


# -- waiting


def test_result_and_exception_wait_no_longer_than_they_are_told(pool: cf.Executor, gate: Gate) -> None:
    future = pool.submit(pass_gate, gate.place, "through")
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=0.01)
        with pytest.raises(cf.TimeoutError):
            ask(0)
    gate.open()
    assert future.result(LIMIT_S) == "through"


def test_wait_and_as_completed_take_our_futures_and_stock_ones_together(pool: cf.Executor, gate: Gate) -> None:
    held = pool.submit(pass_gate, gate.place)
    stock: cf.Future[str] = cf.Future()
    quick = pool.submit(double, 2)
    done, not_done = cf.wait([held, stock, quick], LIMIT_S, cf.FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {held, stock})
    assert cf.wait([held, stock], 0.01) == (set(), {held, stock})
    stock.set_result("stock")
    seen = cf.as_completed([held, quick, stock, quick], LIMIT_S)
    assert {next(seen), next(seen)} == {quick, stock}
    gate.open()
    assert list(seen) == [held]


def test_wait_for_the_first_exception(pool: cf.Executor, gate: Gate) -> None:
    held, failing = pool.submit(pass_gate, gate.place), pool.submit(raise_trouble)
    assert cf.wait([held, failing], LIMIT_S, cf.FIRST_EXCEPTION) == ({failing}, {held})
    gate.open()
    assert cf.wait([held, failing], LIMIT_S).not_done == set()


def test_as_completed_times_out(pool: cf.Executor, gate: Gate) -> None:
    with pytest.raises(TimeoutError, match="1 "):
        list(cf.as_completed([pool.submit(pass_gate, gate.place)], 0.01))
    gate.open()


# -- callbacks


def test_a_callback_gets_the_future_once_whenever_it_was_added(pool: cf.Executor, gate: Gate) -> None:
    seen: list[tuple[str, Any]] = []
    future = pool.submit(pass_gate, gate.place, 5)
    all_seen = threading.Event()
    future.add_done_callback(lambda each: seen.append(("first", each)))
    future.add_done_callback(lambda each: seen.append(("second", each)))
    future.add_done_callback(lambda each: all_seen.set())
    gate.open()
    assert all_seen.wait(LIMIT_S)
    future.add_done_callback(lambda each: seen.append(("late", each)))
    assert seen == [("first", future), ("second", future), ("late", future)]


def test_a_callback_that_raises_is_logged_and_the_next_one_runs(
    pool: cf.Executor, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    future = pool.submit(pass_gate, gate.place)
    ran = threading.Event()
    future.add_done_callback(lambda each: 1 // 0)
    future.add_done_callback(lambda each: ran.set())
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        gate.open()
        assert ran.wait(LIMIT_S)
    assert "exception calling callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_may_submit(pool: cf.Executor) -> None:
    followed: cf.Future[cf.Future[int]] = cf.Future()
    first = pool.submit(double, 4)
    first.add_done_callback(lambda each: followed.set_result(pool.submit(double, each.result())))
    assert followed.result(LIMIT_S).result(LIMIT_S) == 16


# -- cancel


def test_what_has_not_started_is_cancelled_and_what_runs_is_not(pool: cf.Executor, gate: Gate) -> None:
    held = [pool.submit(pass_gate, gate.place) for _ in range(2)]
    gate.wait_started(2)
    queued = [pool.submit(double, number) for number in range(10)]
    told: list[cf.Future[int]] = []
    queued[-1].add_done_callback(told.append)
    assert queued[-1].cancel()
    assert queued[-1].cancel()
    assert (queued[-1].cancelled(), queued[-1].done(), told) == (True, True, [queued[-1]])
    with pytest.raises(cf.CancelledError):
        queued[-1].result(LIMIT_S)
    with pytest.raises(cf.CancelledError):
        queued[-1].exception(LIMIT_S)
    assert [future.cancel() for future in held] == [False, False]
    wait_running(*held)
    gate.open()
    assert [future.result(LIMIT_S) for future in queued[:-1]] == [2 * number for number in range(9)]
    assert queued[-1] in cf.wait(queued, LIMIT_S).done
    assert not queued[0].cancel()


# -- asyncio


def test_asyncio_runs_in_the_executor_and_wraps_futures(pool: cf.Executor) -> None:
    async def play() -> list[Any]:
        loop = asyncio.get_running_loop()
        several = [loop.run_in_executor(pool, double, number) for number in range(10)]
        wrapped = asyncio.wrap_future(pool.submit(add, 20, 3))
        failed = await asyncio.gather(loop.run_in_executor(pool, raise_trouble), return_exceptions=True)
        return [await asyncio.gather(*several), await wrapped, type(failed[0])]

    assert asyncio.run(play()) == [[2 * number for number in range(10)], 23, Trouble]


def test_cancelling_a_wrapped_future_cancels_the_task(pool: cf.Executor, gate: Gate) -> None:
    async def play(future: cf.Future[int]) -> None:
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    held = [pool.submit(pass_gate, gate.place) for _ in range(2)]
    gate.wait_started(2)
    queued = [pool.submit(double, number) for number in range(8)][-1]
    asyncio.run(play(queued))
    assert queued.cancelled()
    gate.open()
    assert cf.wait(held, LIMIT_S).not_done == set()
