"""Cancels that have to ask the broker: who waits for an answer, and what becomes of tasks that were called back."""

from _thread import allocate_lock
from collections import deque
from collections.abc import Iterable
from typing import Any

from netfutures.limits import CANCEL_HOLD_S, CANCEL_HOLD_S_MAX

from .doors import cancel_returned, give_back
from .future import Future


class Asked:
    """Somebody who called `cancel` on a task that was handed out, and waits."""

    __slots__ = ("answer", "future", "is_abandoned", "lock", "waits")

    def __init__(self, future: Future[Any], *, waits: bool = False) -> None:
        self.future = future
        self.waits = waits
        """Whether somebody waits for the answer, who then runs the callbacks before `cancel` returns."""
        self.answer = False
        self.is_abandoned = False
        """They gave up waiting and said False, so the task must run."""
        self.lock = allocate_lock()
        self.lock.acquire()

    def reply(self, answer: bool) -> None:
        """Answers, and lets them go on."""
        self.answer = answer
        self.lock.release()


class Recalls:
    """The I/O thread's book of cancels; one request to the broker at a time calls back all that has not started."""

    def __init__(self, queue: deque[Future[Any]]) -> None:
        self._queue = queue
        self._asked: list[Asked] = []
        """Those whom the present request will answer."""
        self._next: list[Asked] = []
        """Those who asked after it was sent."""
        self.request: int | None = None
        self.hold_until = 0.0
        self._hold_since = 0.0
        self.cancels_all = False
        """The executor is shut down with its futures cancelled: whatever comes back is cancelled."""

    @property
    def wants_request(self) -> bool:
        """Whether a request has to be sent."""
        return self.request is None and bool(self._next)

    def add(self, asked: Asked, now: float) -> list[Future[Any]]:
        """Somebody asks; what waits in the client already is answered at once.

        Returns the future if somebody has to run its callbacks.
        """
        self._hold(now)
        future = asked.future
        if future._number is not None and not future.done():
            self._next.append(asked)
            return []
        has_callbacks = not future.done() and not asked.is_abandoned and cancel_returned(future)
        asked.reply(future.cancelled())
        return [future] if has_callbacks and not asked.waits else []

    def sent(self, request: int) -> None:
        """The request is on its way."""
        self.request = request
        self._asked, self._next = self._next, []

    def returned(self, calls: Iterable[Future[Any]], is_last: bool, now: float) -> list[Future[Any]]:
        """Tasks have come back; returns those whose callbacks somebody has to run."""
        by_future = {id(asked.future): asked for asked in (*self._asked, *self._next)}
        with_callbacks: list[Future[Any]] = []
        again: list[Future[Any]] = []
        for future in give_back(calls):
            asked = by_future.get(id(future))
            if self.cancels_all or (asked is not None and not asked.is_abandoned):
                if cancel_returned(future) and (asked is None or not asked.waits):
                    with_callbacks.append(future)
            else:
                again.append(future)
        self._queue.extendleft(reversed(again))
        self._answer(is_last)
        self._hold(now)
        if is_last:
            self.request = None
        return with_callbacks

    def _answer(self, is_last: bool) -> None:
        for waiting in (self._asked, self._next):
            for asked in list(waiting):
                cancelled = asked.future.cancelled()
                if cancelled or (is_last and waiting is self._asked) or asked.future.done():
                    waiting.remove(asked)
                    asked.reply(cancelled)

    def give_up(self) -> None:
        """There is nobody to ask any more."""
        for asked in (*self._asked, *self._next):
            asked.reply(asked.future.cancelled())
        self._asked, self._next, self.request = [], [], None

    def _hold(self, now: float) -> None:
        if now > self.hold_until:
            self._hold_since = now
        self.hold_until = min(now + CANCEL_HOLD_S, self._hold_since + CANCEL_HOLD_S_MAX)
