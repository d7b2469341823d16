"""A light future keeps every promise of the standard library's, and unpickles once, by whoever asks."""

from __future__ import annotations

import concurrent.futures
import copy
import gc
import os
import pickle
import re
import signal
import sys
import threading
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError, wait
from typing import Any

import pytest

from future_stage import CALL, LIMIT_S, Pool, finish, in_thread, make, sleepers, until
from netfutures.client import watch as module
from netfutures.client.doors import cancel_returned, give_back, mark_running, settle, settle_one, take_for_sending
from netfutures.client.functions import Function
from netfutures.client.future import Future, release_waiters
from netfutures.errors import TransferError
from netfutures.payload import Misuse, dump_call, dump_error, dump_value

LOADED: list[str] = []


class Counted:
    """Notes each of its loadings."""

    def __getstate__(self) -> int:
        return 1

    def __setstate__(self, state: int) -> None:
        LOADED.append(threading.current_thread().name)


class Slow:
    """Its loading waits for the test, and may ask for a future, as hostile objects do."""

    begun, go_on = threading.Event(), threading.Event()
    ask: Any = None

    def __getstate__(self) -> int:
        return 1

    def __setstate__(self, state: int) -> None:
        Slow.begun.set()
        if Slow.ask is not None:
            Slow.ask.result()
        assert Slow.go_on.wait(LIMIT_S)
        LOADED.append("slow")


# ---- states, as the standard library has them -----------------------------------------------------------------------


def test_a_value() -> None:
    future = make()
    assert not future.done()
    assert not future.running()
    assert not future.cancelled()
    finish(future, dump_value([5]))
    assert future.done()
    assert not future.cancelled()
    assert future.result() == [5]
    assert future.result() is future.result()
    assert future.exception() is None
    assert not future.cancel()
    assert isinstance(future, concurrent.futures.Future)


def test_an_exception() -> None:
    future = make()
    finish(future, dump_error(LookupError("gone")))
    with pytest.raises(LookupError, match="gone") as caught:
        future.result()
    assert future.exception() is caught.value
    assert caught.value.__cause__ is not None


def test_an_exception_holds_no_cycle_with_its_future() -> None:
    future = make()
    finish(future, dump_error(LookupError("gone")))
    gc.disable()
    try:
        with pytest.raises(LookupError):
            future.result()
        seen = weakref.ref(future)
        del future
        assert seen() is None
    finally:
        gc.enable()


def test_what_cannot_be_rebuilt_is_this_futures_transfer_error() -> None:
    future = make()
    future._number = 12
    finish(future, b"\x80\x05junk")
    with pytest.raises(TransferError, match="task 12"):
        future.result()


def test_running_only_when_told_so() -> None:
    future, done, cancelled = make(), make(), make()
    finish(done, dump_value(1))
    cancelled.cancel()
    mark_running([future, done, cancelled])
    assert future.running()
    assert not future.cancel()
    assert done.result() == 1
    assert cancelled.cancelled()
    finish(future, dump_value(3))
    assert future.result() == 3


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_timeouts(ask: str) -> None:
    future = make()
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError):
            getattr(future, ask)(timeout)
    assert future._watch is not None
    assert future._watch.wakers == []
    finish(future, dump_value(1))
    assert future.result(0) == 1
    with pytest.raises(OverflowError):
        make().result(threading.TIMEOUT_MAX * 2)


def test_users_may_finish_a_future_themselves() -> None:
    future: Future[int] = Future()
    assert future.set_running_or_notify_cancel()
    assert future.running()
    with pytest.raises(RuntimeError):
        future.set_running_or_notify_cancel()
    future.set_result(4)
    with pytest.raises(InvalidStateError):
        future.set_result(5)
    with pytest.raises(InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 4
    failed: Future[int] = Future()
    failed.set_exception(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        failed.result()
    settle([future, failed], [dump_value(9), dump_value(9)])
    assert future.result() == 4
    assert isinstance(failed.exception(), ValueError)


def test_a_future_of_the_users_own_is_cancelled_in_two_steps_as_in_the_standard_library() -> None:
    future: Future[int] = Future()
    assert future.cancel()
    assert future.cancel()
    assert future._state == "CANCELLED"
    with pytest.raises(CancelledError):
        future.result()
    assert not future.set_running_or_notify_cancel()
    assert future._state == "CANCELLED_AND_NOTIFIED"
    with pytest.raises(InvalidStateError):
        future.set_result(1)


def test_repr() -> None:
    future, failed, pending, cancelled = make(), make(), make(), make()
    finish(future, dump_value(2.5))
    finish(failed, dump_error(KeyError(1)))
    cancelled.cancel()
    assert re.fullmatch(r"<Future at 0x[0-9a-f]+ state=finished returned float>", repr(future))
    assert re.fullmatch(r"<Future at 0x[0-9a-f]+ state=finished raised KeyError>", repr(failed))
    assert re.fullmatch(r"<Future at 0x[0-9a-f]+ state=cancelled>", repr(cancelled))
    assert re.fullmatch(r"<Future at 0x[0-9a-f]+ state=pending>", repr(pending))
    assert pending._watch is None, "repr makes nothing"


def test_it_can_be_neither_pickled_nor_copied_but_weakly_referenced_and_marked() -> None:
    future = make()
    for move in (pickle.dumps, copy.copy, copy.deepcopy, lambda f: dump_call((f,), {})):
        with pytest.raises(Misuse, match=r"future\.result\(\)"):
            move(future)
    assert weakref.ref(future)() is future
    future.arg = 5  # type: ignore[attr-defined]
    assert future.__dict__ == {"arg": 5}
    assert Future[int] != Future


def test_a_done_future_keeps_neither_its_arguments_nor_its_function() -> None:
    ends: list[Callable[[Future[Any]], object]] = [
        lambda future: settle([future], [dump_value(1)]),
        lambda future: settle_one(future, dump_value(1)),
        lambda future: future.cancel(),
        lambda future: future.set_exception(ValueError()),
    ]
    for end in ends:
        function = Function(b"function", True, "score", None, os.getpid())
        payload = bytes(range(200))
        future: Future[Any] = Future(function, payload)
        seen, count = weakref.ref(function), sys.getrefcount(payload)
        del function
        end(future)
        assert seen() is None
        assert sys.getrefcount(payload) == count - 1


def test_it_is_light() -> None:
    function = Function(b"", True, "score", None, os.getpid())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    futures: list[Future[Any]] = [Future(function, CALL) for _ in range(10_000)]
    each_bytes = (tracemalloc.get_traced_memory()[0] - before) / len(futures)
    tracemalloc.stop()
    assert each_bytes < 200  # A future of the standard library is above 1,500 bytes.


# ---- waiting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_many_wait_and_are_woken_when_the_io_thread_says(ask: str) -> None:
    future, woken = make(), threading.Semaphore(0)

    def sleep() -> None:
        getattr(future, ask)()
        woken.release()

    for _ in range(5):
        in_thread(sleep)
    until(lambda: sleepers(future) == 5)
    assert settle([future], [dump_value(1)]) == []
    release_waiters()
    assert all(woken.acquire(timeout=LIMIT_S) for _ in range(5))


def test_waiters_of_a_cancelled_future_are_woken() -> None:
    future, seen = make(), []

    def ask() -> None:
        try:
            future.result()
        except CancelledError:
            seen.append(True)

    thread = in_thread(ask)
    until(lambda: sleepers(future) == 1)
    assert future.cancel()
    thread.join(LIMIT_S)
    assert seen == [True]


def test_ctrl_c_while_waiting_leaves_the_future_usable() -> None:
    future = make()

    def interrupt() -> None:
        until(lambda: sleepers(future) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.result(LIMIT_S)
    assert future._watch is not None
    assert future._watch.wakers == []
    finish(future, dump_value(1))
    assert future.result() == 1


def test_ctrl_c_while_unpickling_leaves_the_future_usable() -> None:
    future = make()
    LOADED.clear()
    Slow.begun, Slow.go_on, Slow.ask = threading.Event(), threading.Event(), None
    finish(future, dump_value(Slow()))

    def interrupt() -> None:
        assert Slow.begun.wait(LIMIT_S)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    Slow.go_on.set()
    assert isinstance(future.result(), Slow)
    assert LOADED == ["slow"]


def test_unpickled_once_by_one_of_many_who_ask() -> None:
    future = make()
    LOADED.clear()
    Slow.begun, Slow.go_on, Slow.ask = threading.Event(), threading.Event(), None
    finish(future, dump_value(Slow()))
    values: list[Any] = []
    threads = [in_thread(lambda: values.append(future.result())) for _ in range(4)]
    assert Slow.begun.wait(LIMIT_S)
    assert not make().cancelled(), "other futures are not held up"
    Slow.go_on.set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(values) == 4
    assert len({id(value) for value in values}) == 1
    assert LOADED == ["slow"]


def test_unpickled_by_who_asks_and_not_by_who_settles() -> None:
    future = make()
    LOADED.clear()
    in_thread(lambda: finish(future, dump_value(Counted()))).join(LIMIT_S)
    assert LOADED == []
    future.result()
    future.exception()
    repr(future)
    assert [threading.current_thread().name] == LOADED


def test_a_result_that_asks_for_itself_is_told_so() -> None:
    future = make()
    Slow.begun, Slow.go_on, Slow.ask = threading.Event(), threading.Event(), future
    Slow.go_on.set()
    finish(future, dump_value(Slow()))
    error = future.exception()
    Slow.ask = None
    assert isinstance(error, TransferError)
    assert "asks for itself" in str(error)


# ---- cancelling -----------------------------------------------------------------------------------------------------


def test_what_was_not_handed_out_is_cancelled_here_and_now() -> None:
    pool = Pool()
    future = make(pool)
    ran: list[threading.Thread] = []
    future.add_done_callback(lambda f: ran.append(threading.current_thread()))
    assert future.cancel()
    assert future.cancel()
    assert future._state == "CANCELLED_AND_NOTIFIED"
    assert ran == [threading.current_thread()]
    assert pool.asked == []
    assert wait([future], timeout=0).done == {future}
    assert take_for_sending(deque([future]), 10, 100, 1) == []


def test_what_was_handed_out_is_recalled() -> None:
    pool = Pool(lambda future: not cancel_returned(future) or True)
    future = make(pool)
    ran: list[Future[Any]] = []
    future.add_done_callback(ran.append)
    assert take_for_sending(deque([future]), 10, 100, 1) == [future]
    assert future.cancel()
    assert pool.asked == [future]
    assert future.cancelled()
    assert ran == [future], "the callbacks ran once, in the thread that cancelled"


def test_a_recall_that_comes_too_late_is_false() -> None:
    for state in (False, True):
        future = make(Pool(lambda future: state and settle_one(future, dump_value(1)) and False))  # noqa: B023
        take_for_sending(deque([future]), 10, 100, 1)
        assert not future.cancel()
        assert future.done() is state
        mark_running([future])
        assert not future.cancel()


def test_what_came_back_waits_here_again() -> None:
    pool = Pool()
    futures = [make(pool) for _ in range(3)]
    assert take_for_sending(deque(futures), 10, 1000, 1) == futures
    cancel_returned(futures[1])
    finish(futures[2], dump_value(3))
    assert give_back(futures) == [futures[0]]
    assert futures[0].cancel()
    assert pool.asked == []
    assert futures[2].result() == 3


def test_a_forked_copy_refuses_to_wait() -> None:
    future: Future[Any] = Future(Function(b"", True, "score", Pool(), os.getpid() + 1), CALL)
    with pytest.raises(RuntimeError, match="forked"):
        future.result()
    take_for_sending(deque([future]), 10, 100, 1)
    with pytest.raises(RuntimeError, match="forked"):
        future.cancel()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # which is what is tested
def test_a_lock_held_by_another_thread_at_a_fork_is_renewed() -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with module.lock:
            held.set()
            go_on.wait(LIMIT_S)

    thread = in_thread(hold)
    assert held.wait(LIMIT_S)
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT_S)
        future = make()
        os._exit(0 if settle_one(future, dump_value(1)) and future.result() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go_on.set()
    thread.join(LIMIT_S)
