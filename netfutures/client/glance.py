"""Lets whoever waits for the only task see its outcome on the link, with no thread switch in the way.

While somebody looks, the I/O thread naps: it sleeps on although something comes. Nothing is taken from the link, so
the I/O thread finds the message there when it wakes, and treats it as if nobody had looked. Hence whoever looks may be
interrupted at any point, by Ctrl-C too. What is no plain outcome of that task alone is left to the I/O thread.
"""

import os
import select
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any, Final

from netfutures.stream import StreamLink
from netfutures.wire import Results

from .doors import settle
from .future import Future
from .lost import is_loss

GLANCE_S: Final = 0.005
"""So long somebody may look; a task that takes longer does not notice a thread switch."""
NAP_S: Final = 2 * GLANCE_S
"""So long the I/O thread naps at most, should nobody wake it."""


class _Bell:
    """Stands among the locks of those who sleep for a future: rung by whoever settles it meanwhile."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def release(self) -> None:
        """Rings, as a lock is released."""
        os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Forgets that it was rung."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return

    def __del__(self) -> None:
        os.close(self.fd)


class Glance:
    """A look at the link, for one thread at a time."""

    def __init__(self, link: StreamLink, wake_io_thread: Callable[[], None]) -> None:
        self.is_on = False
        """Somebody looks, or is about to."""
        self.naps = 0
        """Counted by the I/O thread before and after each nap, so that it is odd while it naps."""
        self.unread = 0
        """Outcomes that were seen here, and not read by the I/O thread yet."""
        self._seen = 0  # number of the task whose outcome was seen last
        self._link = link
        self._wake_io_thread = wake_io_thread
        self._is_free = allocate_lock()
        self._bell = _Bell()
        self._epoll = select.epoll()
        self._epoll.register(link.fd, select.EPOLLIN | select.EPOLLET)
        self._epoll.register(self._bell.fd, select.EPOLLIN)

    def wait(self, future: Future[Any], timeout_s: float | None) -> None:
        """Returns when the future is done, or somebody else has to see to it, or after `GLANCE_S`."""
        if not self._is_free.acquire(False):
            return
        watch, bell = future.watched(), self._bell
        is_seen = False
        try:
            self.is_on = True
            watch.wakers.append(bell)
            if not future.done():  # looked at after the bell is in its place, so that no end can be missed
                is_seen = self._look(future, GLANCE_S if timeout_s is None else min(timeout_s, GLANCE_S))
        finally:
            self.is_on = False
            if not is_seen:
                watch.forget(bell)
                bell.silence()
                self._wake_io_thread()
            self._is_free.release()

    def _look(self, future: Future[Any], timeout_s: float) -> bool:
        """Whether the outcome was seen, and the future settled."""
        while True:
            events = self._epoll.poll(timeout_s)
            if len(events) != 1 or events[0][0] == self._bell.fd:
                return False
            outcome = self._outcome_of(future)
            if outcome is not None:
                break
        watch = future.watched()
        if not outcome or is_loss(outcome) or watch.callbacks:
            return False
        watch.forget(self._bell)
        self._seen = future._number or 0
        self.unread += 1
        settle([future], [outcome])
        return True

    def _outcome_of(self, future: Future[Any]) -> bytes | None:
        """What is there for this future; b"" if it is something else, None if it is only what was seen before."""
        nap = self.naps
        messages = self._link.peek() if nap & 1 else []
        if not messages or self.naps != nap:
            return b""  # Not whole, or the I/O thread reads, and this may be the rest of what it has taken.
        for message in messages:
            if type(message) is not Results or len(message.runs) != 1:
                return b""
            first, outcomes = message.runs[0]
            if first == future._number and len(outcomes) == 1:
                return outcomes[0] if type(outcomes[0]) is bytes else b""
            if first != self._seen:
                return b""
        return None
