"""A concurrent.futures.Future that is light until somebody waits, and the doors by which the I/O thread settles it.

A pending future holds the bytes of its call; a finished one the bytes of its outcome, until somebody asks: whoever asks
first unpickles them, once, in their own thread. What is needed to wait (a `_Watch`) is made when somebody waits.

House rules. `_lock` is the innermost lock: nothing is acquired while it is held, no user object is freed under it, and
between a look at a future and the store that follows from it there is no call, since garbage collection and signals can
run users' code there (so it is an RLock). A future's state leaves PENDING and RUNNING under `_lock`; a watch gets its
condition under `_lock` too, and only while the state is one of these. So whoever ends a future either sees the
condition, and then tells the waiters while holding it, or nobody can have put a waiter there.
"""

from __future__ import annotations

import os
from _thread import RLock, allocate_lock, get_ident
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, InvalidStateError, _base
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from netfutures.payload import Misuse, is_error, load_outcome

if TYPE_CHECKING:
    from netfutures.client.functions import Function
    from netfutures.payload import Buffer

_T = TypeVar("_T")

PENDING, RUNNING, FINISHED = _base.PENDING, _base.RUNNING, _base.FINISHED
CANCELLED, CANCELLED_AND_NOTIFIED = _base.CANCELLED, _base.CANCELLED_AND_NOTIFIED
_UNDONE = (PENDING, RUNNING)

_lock = RLock()
_to_wake: deque[Any] = deque()
"""Locks of those who sleep in `result` and whose futures are done; `release_waiters` releases them."""


class _Form:
    """How the payload of a future that is done must be read."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


PACKED: Final = _Form("bytes of an outcome, not unpickled yet")
VALUE: Final = _Form("the value")
ERROR: Final = _Form("the exception")
NOTHING: Final = _Form("cancelled")


class Pool(Protocol):
    """What a future needs of the pool that it was submitted to: the way back for what was handed to the broker."""

    def recall(self, future: Future[Any]) -> bool:
        """Ask that a task which was handed out never starts; True if so, and then `cancel_returned` has been called."""


class _Watch:
    """What is needed to wait for one future, made when somebody does."""

    __slots__ = ("callbacks", "condition", "waiters", "wakers")

    def __init__(self) -> None:
        self.condition: Any = None
        self.waiters: list[Any] | None = None
        self.callbacks: list[Callable[[Any], object]] | None = None
        self.wakers: list[Any] = []


class _NoCondition:
    """The condition of a future that was done before anybody waited: nothing can change any more."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return True

    def release(self) -> None:
        return None

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc: object) -> None:
        return None


class _NoWaiters(list[Any]):
    """The waiters of such a future: they need not be told, so they are not kept."""

    def append(self, waiter: Any) -> None:
        return None

    def remove(self, waiter: Any) -> None:
        return None


_NO_CONDITION: Final = _NoCondition()
_NO_WAITERS: Final = _NoWaiters()


class Future(_base.Future[_T]):
    """The result of a task, as soon as there is one."""

    __slots__ = ("_function", "_number", "_payload", "_state", "_watch")
    _payload: Any
    _function: Any  # Function while pending; a _Form when done; a thread's number while that thread unpickles
    _number: int | None  # the task's number once it was handed to the broker
    _watch: _Watch | None

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
        return self._state not in _UNDONE

    def running(self) -> bool:
        """True only while the task is known to run; one of microseconds may go from pending to finished."""
        return self._state == RUNNING

    def cancelled(self) -> bool:
        """True if the task was cancelled: it never started and never will."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def add_done_callback(self, fn: Callable[[Future[_T]], object]) -> None:
        """Call `fn` with this future when it is done: at once if it is, else in a thread of the executor's."""
        if self._state in _UNDONE:
            watch, callbacks = self._watched(), [fn]
            with _lock:
                if self._state in _UNDONE:
                    if watch.callbacks is None:
                        watch.callbacks = callbacks
                    else:
                        watch.callbacks.append(fn)
                    return
        call(fn, self)

    # -- ending

    def cancel(self) -> bool:
        """Cancel the task if it has not started, wherever it is queued.

        True means that it never started and never will. False means that it runs or has run, or (after a second of
        silence) that nobody could say.
        """
        while True:
            with _lock:
                state, function, number = self._state, self._function, self._number
            if state not in _UNDONE:
                return self.cancelled()
            if state is RUNNING:
                return False
            if number is not None:
                self._refuse_after_fork(function)
                if not function.pool.recall(self):
                    return self.cancelled()
                break
            ended = CANCELLED if function is None else CANCELLED_AND_NOTIFIED
            if _end(self, ended, NOTHING, None, unsent_only=True):
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

    def _set(self, form: _Form, content: object) -> None:
        if not _end(self, FINISHED, form, content):
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
            with _lock:
                pending = self._state == PENDING
                if pending:
                    self._state = RUNNING
            if pending:
                return True
            _base.LOGGER.critical("Future %s in unexpected state: %s", id(self), self._state)
            raise RuntimeError("Future in unexpected state")

    # -- what the standard library's wait, as_completed and asyncio read

    @property
    def _condition(self) -> Any:  # type: ignore[override]
        watch = self._watch
        if watch is not None and watch.condition is not None:
            return watch.condition
        if self._state not in _UNDONE:  # so none is made from here on; but one may have been made just now
            watch = self._watch
            return _NO_CONDITION if watch is None or watch.condition is None else watch.condition
        waiters: list[Any] = []
        fresh, condition = _Watch(), RLock()
        with _lock:
            watch = self._watch
            if watch is not None and watch.condition is not None:
                return watch.condition
            if self._state not in _UNDONE:
                return _NO_CONDITION
            if watch is None:
                self._watch = watch = fresh
            watch.waiters = waiters
            watch.condition = condition
            return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        watch = self._watch
        if watch is None or watch.waiters is None:
            if self._condition is _NO_CONDITION:
                return _NO_WAITERS
            watch = self._watched()
        assert watch.waiters is not None
        return watch.waiters

    @property
    def _result(self) -> Any:  # type: ignore[override]
        self._load()
        return self._payload if self._function is VALUE else None

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        self._load()
        return cast("BaseException", self._payload) if self._function is ERROR else None

    # -- inside

    def _watched(self) -> _Watch:
        watch = self._watch
        if watch is None:
            fresh = _Watch()
            with _lock:
                watch = self._watch
                if watch is None:
                    self._watch = watch = fresh
        return watch

    def _wait(self, timeout: float | None) -> None:
        """Return when the future is finished; raise when it is cancelled, or not done in time."""
        if self._state in _UNDONE and (timeout is None or timeout > 0):
            self._refuse_after_fork(self._function)
            self._sleep_while(lambda: self._state in _UNDONE, -1 if timeout is None else timeout)
        if self._state == FINISHED:
            return
        raise TimeoutError if self._state in _UNDONE else CancelledError

    def _sleep_while(self, unchanged: Callable[[], bool], timeout_s: float) -> None:
        """A bare lock for each sleeper: a condition would make it queue for a second lock after it was woken."""
        waker, watch = allocate_lock(), self._watched()
        waker.acquire()
        woken = False
        try:
            with _lock:
                watch.wakers.append(waker)
            if unchanged():  # looked at after the waker is in its place, so that no end can be missed
                woken = waker.acquire(True, timeout_s)
        finally:
            if not woken:
                with _lock:
                    if waker in watch.wakers:
                        watch.wakers.remove(waker)

    def _load(self) -> None:
        """Unpickle the outcome if nobody has: exactly one thread does, outside of all locks; others wait for it."""
        me = get_ident()
        claimed = False
        try:
            while not claimed:
                with _lock:
                    form = self._function
                    if form is PACKED:
                        self._function = me
                        claimed = True
                if claimed:
                    break
                if type(form) is not int:
                    return
                if form == me:
                    raise RuntimeError(f"{self._name()} asks for itself while it is unpickled")
                self._sleep_while(lambda: type(self._function) is int, -1)
            value, error = load_outcome(self._payload, self._name)
            self._unpacked(VALUE, value) if error is None else self._unpacked(ERROR, error)
        except BaseException:  # Ctrl-C, or the error above: the next who asks starts afresh
            if claimed and self._function == me:
                self._unpacked(PACKED, self._payload)
            raise

    def _unpacked(self, form: _Form, content: object) -> None:
        self._payload = content
        with _lock:
            self._function = form
            watch = self._watch
        if watch is not None and watch.wakers:
            _collect_wakers(watch)
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


def _end(
    future: Future[Any], state: str, form: _Form, content: Any, *, unsent_only: bool = False, defer: bool = False
) -> bool:
    """Take a future to its last state and tell who waits; False if it is there already.

    With `unsent_only` also False if it was handed out meanwhile; with `defer` also if it has callbacks. Wakers are
    collected for `release_waiters`, callbacks are left to `run_callbacks`.
    """
    raised = form is ERROR or (form is PACKED and is_error(content))  # looked at now: once stored, others unpickle it
    while True:
        watch = future._watch
        condition = None if watch is None else watch.condition
        if watch is not None and condition is not None:
            with condition:
                if not _store(future, state, form, content, unsent_only, defer, condition):
                    return False
                if watch.waiters:
                    _tell(watch.waiters, future, state, raised)
            break
        if _store(future, state, form, content, unsent_only, defer, None):
            break
        watch = future._watch
        if watch is None or watch.condition is None:
            return False
    watch = future._watch  # it may have been made until the store
    if watch is not None and watch.wakers:  # who adds one from here on sees that the future is done, and does not sleep
        _collect_wakers(watch)
    return True


def _store(
    future: Future[Any], state: str, form: _Form, content: object, unsent_only: bool, defer: bool, condition: object
) -> bool:
    with _lock:
        watch = future._watch
        if watch is not None and (watch.condition is not condition or (defer and watch.callbacks)):
            return False
        if future._state not in _UNDONE or (unsent_only and future._number is not None):
            return False
        before = future._payload, future._function
        future._payload = content
        future._function = form
        future._state = state
    del before
    return True


def _tell(waiters: list[Any], future: Future[Any], state: str, raised: bool) -> None:
    for waiter in waiters:
        if state is CANCELLED_AND_NOTIFIED:
            waiter.add_cancelled(future)
        elif state is not FINISHED:
            return  # set_running_or_notify_cancel will tell them
        elif raised:
            waiter.add_exception(future)
        else:
            waiter.add_result(future)


def _collect_wakers(watch: _Watch) -> None:
    fresh: list[Any] = []
    with _lock:
        wakers, watch.wakers = watch.wakers, fresh
    _to_wake.extend(wakers)


def release_waiters() -> None:
    """Wake those whose futures are done. The I/O thread calls this last, just before the sleep that frees the GIL."""
    while _to_wake:
        try:
            waker = _to_wake.popleft()
        except IndexError:  # another thread took the last one
            return
        waker.release()


def take_callbacks(future: Future[Any]) -> list[Callable[[Any], object]]:
    """The callbacks of a future that is done: whoever takes them runs them, so that each runs once."""
    watch = future._watch
    if watch is None or watch.callbacks is None:
        return []
    with _lock:
        callbacks, watch.callbacks = watch.callbacks, None
    return callbacks or []


def run_callbacks(future: Future[Any]) -> None:
    """Run the callbacks of a future that is done, unless somebody has."""
    for callback in take_callbacks(future):
        call(callback, future)


def call(callback: Callable[[Any], object], future: Future[Any]) -> None:
    """Run one callback; what it raises is logged, as the standard library does it."""
    try:
        callback(future)
    except Exception:
        _base.LOGGER.exception("exception calling callback for %r", future)


# ---- doors for the I/O thread ---------------------------------------------------------------------------------------

Outcome = Any
"""The bytes of an outcome, or an exception that was made here."""


def take_for_sending(queue: deque[Future[Any]], count_max: int, bytes_max: int, first_number: int) -> list[Future[Any]]:
    """Take the next futures from the queue to hand them out, numbered from `first_number`; cancelled ones are dropped.

    Takes at most `count_max`, of at most `bytes_max` bytes together, but one at least, however large. From here on
    `cancel` must recall them.
    """
    taken: list[Future[Any]] = []
    dropped: list[Future[Any]] = []
    number, bytes_left = first_number, bytes_max
    with _lock:
        while queue and len(taken) < count_max:
            future = queue[0]
            payload = future._payload
            if future._state is not PENDING or payload is None:
                dropped.append(queue.popleft())
                continue
            bytes_left -= len(payload)
            if bytes_left < 0 and taken:
                break
            queue.popleft()
            taken.append(future)
            if future._state is PENDING:
                future._number = number
                number += 1
            else:
                dropped.append(taken.pop())
    return taken


def give_back(futures: Iterable[Future[Any]]) -> list[Future[Any]]:
    """Futures that were recalled from the broker wait in the client again; returns those that are still wanted."""
    pending = []
    for future in futures:
        with _lock:
            if future._state in _UNDONE:
                future._state = PENDING
                future._number = None
        if future._state is PENDING:
            pending.append(future)
    return pending


def cancel_returned(future: Future[Any]) -> bool:
    """Cancel a future that was recalled with success; True if it has callbacks, which somebody must run."""
    if not _end(future, CANCELLED_AND_NOTIFIED, NOTHING, None):
        return False
    watch = future._watch
    return watch is not None and bool(watch.callbacks)


def mark_running(futures: Iterable[Future[Any]]) -> None:
    """The broker says that these run."""
    for future in futures:
        with _lock:
            if future._state is PENDING:
                future._state = RUNNING


def mark_pending(futures: Iterable[Future[Any]]) -> None:
    """The broker says that these, which ran on a worker that was lost, wait again."""
    for future in futures:
        with _lock:
            if future._state is RUNNING:
                future._state = PENDING


def settle(futures: Sequence[Future[Any]], outcomes: Sequence[Outcome]) -> list[tuple[Future[Any], Outcome]]:
    """Finish a run of futures with the bytes of their outcomes; what is done already stays as it is.

    Returns, with their outcomes and not settled, those that have callbacks: the delivery thread settles them.
    """
    watched: list[tuple[Future[Any], Outcome]] = []
    with _lock:
        for future, outcome in zip(futures, outcomes, strict=True):
            if future._watch is not None:
                watched.append((future, outcome))
                continue
            state = future._state
            if state is PENDING or state is RUNNING:
                future._payload = outcome
                future._function = PACKED
                future._state = FINISHED
    return [pair for pair in watched if not settle_one(*pair, defer=True)] if watched else watched


def settle_one(future: Future[Any], outcome: Outcome, defer: bool = False) -> bool:
    """Finish one future with an outcome or an exception; False if it has callbacks and `defer` is asked for."""
    form = ERROR if isinstance(outcome, BaseException) else PACKED
    if _end(future, FINISHED, form, outcome, defer=defer):
        return True
    return future._state not in _UNDONE


def fail(
    futures: Iterable[Future[Any]], make_exception: Callable[[Future[Any]], BaseException]
) -> list[tuple[Future[Any], Outcome]]:
    """Finish futures with an exception each; returns those that have callbacks, as `settle` does."""
    pairs = [(future, make_exception(future)) for future in futures if future._state in _UNDONE]
    return [pair for pair in pairs if not settle_one(*pair, defer=True)]


def _renew_lock() -> None:
    """In a forked copy a lock that another thread held would stay locked for ever."""
    global _lock
    _lock = RLock()
    _to_wake.clear()


os.register_at_fork(after_in_child=_renew_lock)
