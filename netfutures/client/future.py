"""A concurrent.futures.Future that is light until somebody waits.

A pending future holds the bytes of its call; a finished one the bytes of its outcome, until somebody asks: whoever asks
first unpickles them, once, in their own thread. What is needed to wait (a `Watch`) is made when somebody waits.

House rules. `lock` is the innermost lock: nothing is acquired while it is held, no user object is freed under it, and
between a look at a future and the store that follows from it there is no call, since garbage collection and signals can
run users' code there (so it is an RLock). A future's state leaves PENDING and RUNNING under `lock`; a watch gets its
condition under `lock` too, and only while the state is one of these. So whoever ends a future either sees the
condition, and then tells the waiters while holding it, or nobody can have put a waiter there.
"""

from __future__ import annotations

import os
from _thread import RLock, allocate_lock, get_ident
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError, _base
from typing import TYPE_CHECKING, Any, TypeVar, cast

from netfutures.payload import Misuse, is_error, load_outcome

from .watch import (
    ERROR,
    NO_CONDITION,
    NO_WAITERS,
    NOTHING,
    PACKED,
    VALUE,
    Form,
    Watch,
    call,
    collect_wakers,
    lock,
)
from .watch import release_waiters as release_waiters

if TYPE_CHECKING:
    from netfutures.client.functions import Function
    from netfutures.payload import Buffer

_T = TypeVar("_T")

PENDING, RUNNING, FINISHED = _base.PENDING, _base.RUNNING, _base.FINISHED
CANCELLED, CANCELLED_AND_NOTIFIED = _base.CANCELLED, _base.CANCELLED_AND_NOTIFIED
UNDONE = (PENDING, RUNNING)


class Future(_base.Future[_T]):
    """The result of a task, as soon as there is one."""

    __slots__ = ("_function", "_number", "_payload", "_state", "_watch")
    _payload: Any
    _function: Any  # Function while pending; a Form when done; a thread's number while that thread unpickles
    _number: int | None  # the task's number once it was handed to the broker
    _watch: Watch | None

    def __init__(self, function: Function | None = None, payload: Buffer | None = None) -> None:
        self._state = PENDING
        self._payload = payload
        self._function = function
        self._number = None
        self._watch = None

    # -- asking

    def result(self, timeout: float | None = None) -> _T:
        """Wait for the task, at most `timeout` seconds, and return its result or raise its exception."""
        try:
            if self._state is not FINISHED:
                self._wait(timeout)
            if self._function is not VALUE:
                self._load()
                if self._function is ERROR:
                    raise self._payload
            value: _T = self._payload
            return value
        finally:
            self = None  # type: ignore[assignment]  # else the exception's traceback would keep this future alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the task, at most `timeout` seconds, and return its exception, or None if it has a result."""
        if self._state is not FINISHED:
            self._wait(timeout)
        return self._exception

    def done(self) -> bool:
        """True if the task has a result or an exception, or was cancelled."""
        return self._state not in UNDONE

    def running(self) -> bool:
        """True only while the task is known to run; one of microseconds may go from pending to finished."""
        return self._state == RUNNING

    def cancelled(self) -> bool:
        """True if the task was cancelled: it never started and never will."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def add_done_callback(self, fn: Callable[[Future[_T]], object]) -> None:
        """Call `fn` with this future when it is done: at once if it is, else in a thread of the executor's."""
        if not self._keep_callback(fn):
            call(fn, self)

    # -- ending

    def cancel(self) -> bool:
        """Cancel the task if it has not started, wherever it is queued.

        True means that it never started and never will. False means that it runs or has run, or (after a second of
        silence) that nobody could say.
        """
        while True:
            with lock:
                state, function, number = self._state, self._function, self._number
            if state not in UNDONE:
                return self.cancelled()
            if state is RUNNING:
                return False
            self._refuse_after_fork(function)
            if number is not None:
                if not function.pool.recall(self) and not self.cancelled():
                    return False
                break
            ended = CANCELLED if function is None else CANCELLED_AND_NOTIFIED
            if end(self, ended, NOTHING, None, unsent_only=True):
                break
        release_waiters()
        run_callbacks(self)
        return True

    def set_result(self, result: _T) -> None:
        """Finish the future with a result; for executors and tests."""
        self._set(VALUE, result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Finish the future with an exception; for executors and tests."""
        self._set(ERROR, exception)

    def _set(self, form: Form, content: object) -> None:
        if not end(self, FINISHED, form, content):
            raise InvalidStateError(f"{self._state}: {self!r}")
        release_waiters()
        run_callbacks(self)

    def set_running_or_notify_cancel(self) -> bool:
        """Mark the future as running, or tell those who wait that it was cancelled; for executors and tests."""
        with self._condition:
            if self._state == CANCELLED:
                self._state = CANCELLED_AND_NOTIFIED
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
                return False
            with lock:
                pending = self._state == PENDING
                if pending:
                    self._state = RUNNING
            if pending:
                return True
            _base.LOGGER.critical("Future %s in unexpected state: %s", id(self), self._state)
            raise RuntimeError("Future in unexpected state")

    # -- what the standard library's wait, as_completed and asyncio read

    def _get_condition(self) -> Any:
        watch = self._watch
        if watch is not None and watch.condition is not None:
            return watch.condition
        if self._state not in UNDONE:  # so none is made from here on; but one may have been made just now
            watch = self._watch
            return NO_CONDITION if watch is None or watch.condition is None else watch.condition
        waiters: list[Any] = []
        fresh, condition = Watch(), RLock()
        with lock:
            watch = self._watch
            if watch is not None and watch.condition is not None:
                return watch.condition
            if self._state not in UNDONE:
                return NO_CONDITION
            if watch is None:
                self._watch = watch = fresh
            watch.waiters = waiters
            watch.condition = condition
            return condition

    def _get_waiters(self) -> list[Any]:
        watch = self._watch
        if watch is None or watch.waiters is None:
            if self._condition is NO_CONDITION:
                return NO_WAITERS
            watch = self.watched()
        assert watch.waiters is not None
        return watch.waiters

    # To a type checker these are plain attributes, as those of the standard library's futures are.
    _condition: Any = property(_get_condition)
    _waiters: Any = property(_get_waiters)

    @property
    def _result(self) -> Any:  # type: ignore[override]
        self._load()
        return self._payload if self._function is VALUE else None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        self._load()
        return cast("BaseException", self._payload) if self._function is ERROR else None

    # -- inside

    def watched(self) -> Watch:
        """What is needed to wait for it, made if it is not there; for this package only."""
        watch = self._watch
        if watch is None:
            fresh = Watch()
            with lock:
                watch = self._watch
                if watch is None:
                    self._watch = watch = fresh
        return watch

    def _keep_callback(self, fn: Callable[[Future[_T]], object]) -> bool:
        if self._state not in UNDONE:
            return False
        watch, callbacks = self.watched(), [fn]
        with lock:
            if self._state not in UNDONE:
                return False
            if watch.callbacks is None:
                watch.callbacks = callbacks
            else:
                watch.callbacks.append(fn)
            return True

    def _wait(self, timeout: float | None) -> None:
        """Return when the future is finished; raise when it is cancelled, or not done in time."""
        if self._state in UNDONE and (timeout is None or timeout > 0):
            function = self._function
            self._refuse_after_fork(function)
            pool = getattr(function, "pool", None)
            if pool is not None:
                timeout = pool.glance(self, timeout)
            if self._state in UNDONE:
                self._sleep_while(lambda: self._state in UNDONE, -1 if timeout is None else timeout)
        if self._state == FINISHED:
            return
        raise TimeoutError if self._state in UNDONE else CancelledError

    def _sleep_while(self, unchanged: Callable[[], bool], timeout_s: float) -> None:
        """A bare lock for each sleeper: a condition would make it queue for a second lock after it was woken."""
        waker, watch = allocate_lock(), self.watched()
        waker.acquire()
        woken = False
        try:
            with lock:
                watch.wakers.append(waker)
            if unchanged():  # looked at after the waker is in its place, so that no end can be missed
                woken = waker.acquire(True, timeout_s)
        finally:
            if not woken:
                watch.forget(waker)

    def _load(self) -> None:
        """Unpickle the outcome if nobody has: exactly one thread does, outside of all locks; others wait for it."""
        if self._function is VALUE or self._function is ERROR:
            return
        me, outcome = get_ident(), None
        if self._function == me:
            raise RuntimeError(f"{self._name()} asks for itself while it is unpickled")
        try:
            if not self._claim(me):
                return
            outcome = self._payload
            value, error = load_outcome(outcome, self._name)
            self._unpacked(VALUE, value) if error is None else self._unpacked(ERROR, error)
        except BaseException:  # Ctrl-C: the next who asks starts afresh
            if self._function == me:
                self._unpacked(PACKED, self._payload if outcome is None else outcome)
            raise

    def _claim(self, me: int) -> bool:
        """True if this thread is to unpickle the outcome; False when it is unpickled, or there is none."""
        while True:
            with lock:
                form = self._function
                if form is PACKED:
                    self._function = me
            if form is PACKED:
                return True
            if type(form) is not int:
                return False
            self._sleep_while(lambda: type(self._function) is int, -1)

    def _unpacked(self, form: Form, content: object) -> None:
        self._payload = content
        with lock:
            self._function = form
            watch = self._watch
        if watch is not None and watch.wakers:
            collect_wakers(watch)
            release_waiters()

    def _name(self) -> str:
        return "the result of a task" if self._number is None else f"the result of task {self._number}"

    def _refuse_after_fork(self, function: Function | None) -> None:
        if function is not None and getattr(function, "pid", None) not in (None, os.getpid()):
            raise RuntimeError(
                "this future belongs to the process that this one was forked from, and is settled there only: "
                "make a new Executor in this process"
            )

    def __repr__(self) -> str:
        head = f"<{type(self).__name__} at {id(self):#x} state={_base._STATE_TO_DESCRIPTION_MAP[self._state]}"
        if self._state != FINISHED:
            return f"{head}>"
        error = self._exception
        if error is not None:
            return f"{head} raised {type(error).__name__}>"
        return f"{head} returned {type(self._payload).__name__}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise Misuse(
            "a Future cannot be pickled or copied: its result arrives in the process that submitted it. "
            "Pass future.result() instead, or submit the next call from a callback of this one."
        )


# ---- ending a future ------------------------------------------------------------------------------------------------


def end(
    future: Future[Any], state: str, form: Form, content: Any, *, unsent_only: bool = False, defer: bool = False
) -> bool:
    """Take a future to its last state and tell who waits; False if it is there already.

    With `unsent_only` also False if it was handed out meanwhile; with `defer` also if it has callbacks. Wakers are
    collected for `release_waiters`, callbacks are left to `run_callbacks`.
    """
    raised = form is ERROR or (form is PACKED and is_error(content))  # looked at now: once stored, others unpickle it
    while True:
        watch = future._watch
        if watch is not None and watch.condition is not None:
            with watch.condition:
                ended = _store(future, state, form, content, unsent_only, defer, watch.condition)
                _tell(watch.waiters if ended else None, future, state, raised)
            break
        ended = _store(future, state, form, content, unsent_only, defer, None)
        watch = future._watch  # it may have been made until the store
        if ended or watch is None or watch.condition is None:
            break
    if ended and watch is not None and watch.wakers:  # who adds one from here on sees the state, and does not sleep
        collect_wakers(watch)
    return ended


def _store(
    future: Future[Any], state: str, form: Form, content: object, unsent_only: bool, defer: bool, condition: object
) -> bool:
    with lock:
        watch = future._watch
        if watch is not None and (watch.condition is not condition or (defer and watch.callbacks)):
            return False
        if future._state not in UNDONE or (unsent_only and future._number is not None):
            return False
        before = future._payload, future._function
        future._payload = content
        future._function = form
        future._state = state
    del before
    return True


def _tell(waiters: list[Any] | None, future: Future[Any], state: str, raised: bool) -> None:
    for waiter in waiters or ():
        if state is CANCELLED_AND_NOTIFIED:
            waiter.add_cancelled(future)
        elif state is not FINISHED:
            return  # set_running_or_notify_cancel will tell them
        elif raised:
            waiter.add_exception(future)
        else:
            waiter.add_result(future)


def take_callbacks(future: Future[Any]) -> list[Callable[[Any], object]]:
    """The callbacks of a future that is done: whoever takes them runs them, so that each runs once."""
    watch = future._watch
    if watch is None or watch.callbacks is None:
        return []
    with lock:
        callbacks, watch.callbacks = watch.callbacks, None
    return callbacks or []


def run_callbacks(future: Future[Any]) -> None:
    """Run the callbacks of a future that is done, unless somebody has."""
    for callback in take_callbacks(future):
        call(callback, future)
