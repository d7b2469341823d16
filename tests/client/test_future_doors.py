"""The doors of the I/O thread, and what the standard library does with light futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from concurrent.futures import as_completed, wait
from typing import Any

import pytest

from future_stage import LIMIT_S, finish, in_thread, make, until
from netfutures.client import future as module
from netfutures.client.doors import fail, settle, settle_one, take_for_sending
from netfutures.client.future import release_waiters
from netfutures.payload import dump_error, dump_value

LOADED: list[str] = []


class Counted:
    """Notes each of its loadings."""

    def __getstate__(self) -> int:
        return 1

    def __setstate__(self, state: int) -> None:
        LOADED.append(threading.current_thread().name)


# ---- the doors of the I/O thread ------------------------------------------------------------------------------------


def test_taking_numbers_and_bounds() -> None:
    futures = [make(payload=b"x" * 10) for _ in range(6)]
    futures[1].cancel()
    queue = deque(futures)
    assert take_for_sending(queue, 2, 1000, 7) == [futures[0], futures[2]]
    assert [future._number for future in futures] == [7, None, 8, None, None, None]
    assert take_for_sending(queue, 10, 25, 9) == [futures[3], futures[4]]
    assert take_for_sending(queue, 10, 5, 11) == [futures[5]], "one at least, however large"
    assert take_for_sending(queue, 10, 5, 12) == []
    assert not queue


def test_settling_leaves_what_has_callbacks_to_the_delivery_thread() -> None:
    futures = [make() for _ in range(4)]
    ran: list[Any] = []
    futures[1].add_done_callback(ran.append)
    futures[2].cancel()
    outcomes = [dump_value(n) for n in range(4)]
    assert settle(futures, outcomes) == [(futures[1], outcomes[1])]
    assert [future.done() for future in futures] == [True, False, True, True]
    assert settle_one(futures[1], outcomes[1])
    assert not ran
    module.run_callbacks(futures[1])
    module.run_callbacks(futures[1])
    assert ran == [futures[1]]
    assert [futures[n].result() for n in (0, 1, 3)] == [0, 1, 3]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_outcomes_may_be_any_bytes(kind: Any) -> None:
    future, failed = make(), make()
    assert settle([future, failed], [kind(dump_value(5)), kind(dump_error(KeyError(1)))]) == []
    assert future.result() == 5
    assert isinstance(failed.exception(), KeyError)


def test_failing_many() -> None:
    futures = [make() for _ in range(3)]
    finish(futures[0], dump_value(1))
    futures[2].add_done_callback(lambda f: None)
    left = fail(futures, lambda future: ConnectionError(f"lost {futures.index(future)}"))
    assert [future for future, _ in left] == [futures[2]]
    assert futures[0].result() == 1
    assert str(futures[1].exception()) == "lost 1"
    assert settle_one(*left[0])
    assert str(futures[2].exception()) == "lost 2"


def test_first_exception_is_seen_without_unpickling_values() -> None:
    futures = [make() for _ in range(4)]
    LOADED.clear()

    def io_thread() -> None:
        until(lambda: all(future._watch is not None and future._watch.waiters for future in futures))
        finish(futures[0], dump_value(Counted()))
        finish(futures[1], dump_error(KeyError(1)))

    thread = in_thread(io_thread)
    done = wait(futures, LIMIT_S, concurrent.futures.FIRST_EXCEPTION)
    thread.join(LIMIT_S)
    assert done.done == set(futures[:2])
    assert LOADED == []


def test_wait_and_as_completed_with_done_and_foreign_futures() -> None:
    ours = [make() for _ in range(6)]
    stock = [concurrent.futures.Future[int]() for _ in range(3)]
    for n, future in enumerate(ours[:3]):
        finish(future, dump_value(n))
    stock[0].set_result(0)
    every: list[Any] = [*ours, *stock]
    assert wait(every, 0).done == {*ours[:3], stock[0]}
    assert wait(every, LIMIT_S, concurrent.futures.FIRST_COMPLETED).done == {*ours[:3], stock[0]}
    with pytest.raises(TimeoutError):
        list(as_completed(every, 0.01))
    assert all(future._watch is None for future in ours[:3]), "the done ones stay light"
    assert all(not future._waiters for future in every), "no waiter is left behind"

    def io_thread() -> None:
        for future in ours[3:]:
            finish(future, dump_value(1))
        for other in stock[1:]:
            other.set_result(1)

    in_thread(io_thread)
    assert set(as_completed(every, LIMIT_S)) == set(every)


# ---- callbacks ------------------------------------------------------------------------------------------------------


def test_callbacks_of_done_futures_run_at_once_and_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    for future in (make(), make()):
        ran: list[Any] = []
        future.add_done_callback(lambda f: 1 / 0)
        future.add_done_callback(ran.append)
        with caplog.at_level(logging.ERROR, logger="concurrent.futures"):
            future.cancel() if future._number else future.set_result(3)
        future.add_done_callback(ran.append)
        assert ran == [future, future]
    assert [record.name for record in caplog.records] == ["concurrent.futures"] * 2


def test_asyncio() -> None:
    async def main() -> None:
        good, bad, cancelled = make(), make(), make()
        futures = [asyncio.wrap_future(future) for future in (good, bad, cancelled)]

        def io_thread() -> None:
            for future, outcome in settle([good, bad], [dump_value(5), dump_error(KeyError(1))]):
                settle_one(future, outcome)
                release_waiters()
                module.run_callbacks(future)

        in_thread(io_thread)
        assert await futures[0] == 5
        with pytest.raises(KeyError):
            await futures[1]
        futures[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await futures[2]
        await asyncio.sleep(0)
        assert cancelled.cancelled()

    asyncio.run(asyncio.wait_for(main(), LIMIT_S))


def test_the_private_fields_that_the_standard_library_reads() -> None:
    """From 3.14 on asyncio reads state, result and exception at once, without the condition, of a finished future."""
    value, error, pending = make(), make(), make()
    finish(value, dump_value([5]))
    finish(error, dump_error(KeyError(1)))
    assert (value._state, value._result, value._exception) == ("FINISHED", [5], None)
    assert (error._state, error._result, type(error._exception)) == ("FINISHED", None, KeyError)
    assert (pending._state, pending._result, pending._exception) == ("PENDING", None, None)
    with value._condition, pending._condition:
        assert list(value._waiters) == list(pending._waiters) == []
