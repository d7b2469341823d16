"""What is needed to wait for a light future, made only when somebody waits; and the one lock of all futures."""

import os
from _thread import RLock
from collections import deque
from collections.abc import Callable
from concurrent.futures._base import LOGGER
from typing import Any, Final

_inner = RLock()


class _Lock:
    """An RLock for `with`, which an interrupt cannot leave locked.

    From Python 3.14 on a signal's handler may run, and raise, between an `__enter__` written in C and the body: then
    nobody would release. After an `__enter__` in Python that cannot be; an `__exit__` in C has released before.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        try:
            _inner.acquire()
        except BaseException:
            if _inner._is_owned():  # type: ignore[attr-defined]  # the standard library's conditions ask for it, too
                _inner.release()
            raise

    __exit__ = _inner.__exit__


lock = _Lock()
"""The innermost lock; see the house rules in `netfutures.client.future`."""
_to_wake: deque[Any] = deque()
"""Locks of those who sleep in `result` and whose futures are done; `release_waiters` releases them."""


class Form:
    """How the payload of a future that is done must be read."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


PACKED: Final = Form("bytes of an outcome, not unpickled yet")
VALUE: Final = Form("the value")
ERROR: Final = Form("the exception")
NOTHING: Final = Form("cancelled")


class Watch:
    """Who waits for one future."""

    __slots__ = ("callbacks", "condition", "waiters", "wakers")

    def __init__(self) -> None:
        self.condition: Any = None
        self.waiters: list[Any] | None = None
        """Those of the standard library's `wait` and `as_completed`; made together with the condition."""
        self.callbacks: list[Callable[[Any], object]] | None = None
        self.wakers: list[Any] = []
        """A lock for each who sleeps in `result` or `exception`."""

    def forget(self, waker: Any) -> None:
        """Its sleeper was not woken, and sleeps no more."""
        with lock:
            if waker in self.wakers:
                self.wakers.remove(waker)


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


NO_CONDITION: Final = _NoCondition()
NO_WAITERS: Final = _NoWaiters()


def call(callback: Callable[[Any], object], future: Any) -> None:
    """Run one callback; what it raises is logged, as the standard library does it."""
    try:
        callback(future)
    except Exception:
        LOGGER.exception("exception calling callback for %r", future)


def collect_wakers(watch: Watch) -> None:
    """Take those who sleep for a future that is done; `release_waiters` wakes them."""
    fresh: list[Any] = []
    with lock:
        wakers, watch.wakers = watch.wakers, fresh
    _to_wake.extend(wakers)


def take_wakers(watch: Watch) -> None:
    """The same for one who holds the lock already, after the future's state was stored."""
    _to_wake.extend(watch.wakers)
    watch.wakers.clear()


def release_waiters() -> None:
    """Wake those whose futures are done. The I/O thread calls this last, just before the sleep that frees the GIL."""
    while _to_wake:
        try:
            waker = _to_wake.popleft()
        except IndexError:  # another thread took the last one
            return
        waker.release()


def _renew_lock() -> None:
    """In a forked copy a lock that another thread held would stay locked for ever."""
    getattr(_inner, "_at_fork_reinit")()  # noqa: B009 (the type stubs do not know it)
    _to_wake.clear()


os.register_at_fork(after_in_child=_renew_lock)
