"""The doors by which the I/O thread hands futures out and ends them; `netfutures.client.future` has the house rules."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .future import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING, UNDONE, Future, end
from .watch import ERROR, NOTHING, PACKED, lock, take_wakers

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
    with lock:
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
        with lock:
            if future._state in UNDONE:
                future._state = PENDING
                future._number = None
        if future._state is PENDING:
            pending.append(future)
    return pending


def cancel_returned(future: Future[Any]) -> bool:
    """Cancel a future that was recalled with success; True if it has callbacks, which somebody must run."""
    if not end(future, CANCELLED_AND_NOTIFIED, NOTHING, None):
        return False
    watch = future._watch
    return watch is not None and bool(watch.callbacks)


def mark_running(futures: Iterable[Future[Any]]) -> None:
    """The broker says that these run."""
    for future in futures:
        with lock:
            if future._state is PENDING:
                future._state = RUNNING


def settle(futures: Sequence[Future[Any]], outcomes: Sequence[Outcome]) -> list[tuple[Future[Any], Outcome]]:
    """Finish a run of futures with the bytes of their outcomes; what is done already stays as it is.

    Returns, with their outcomes and not settled, those that have callbacks: the delivery thread settles them.
    """
    watched: list[tuple[Future[Any], Outcome]] = []
    with lock:
        for future, outcome in zip(futures, outcomes, strict=True):
            watch = future._watch
            if watch is not None and (watch.condition is not None or watch.callbacks is not None):
                watched.append((future, outcome))
                continue
            state = future._state
            if state is not PENDING and state is not RUNNING:
                continue
            future._payload = outcome
            future._function = PACKED
            future._state = FINISHED
            if watch is not None:
                take_wakers(watch)
    return [pair for pair in watched if not settle_one(*pair, defer=True)] if watched else watched


def settle_one(future: Future[Any], outcome: Outcome, defer: bool = False) -> bool:
    """Finish one future with an outcome or an exception; False if it has callbacks and `defer` is asked for."""
    form = ERROR if isinstance(outcome, BaseException) else PACKED
    if end(future, FINISHED, form, outcome, defer=defer):
        return True
    return future._state not in UNDONE


def fail(
    futures: Iterable[Future[Any]], make_exception: Callable[[Future[Any]], BaseException]
) -> list[tuple[Future[Any], Outcome]]:
    """Finish futures with an exception each; returns those that have callbacks, as `settle` does."""
    pairs = [(future, make_exception(future)) for future in futures if future._state in UNDONE]
    return [pair for pair in pairs if not settle_one(*pair, defer=True)]
