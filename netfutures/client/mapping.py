"""`Executor.map`: calls of one function over iterables, in chunks, with ordered and lazy results."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .executor import Executor
    from .future import Future

T = TypeVar("T")


def call_chunk(fn: Callable[..., T], calls: list[tuple[Any, ...]]) -> list[T]:
    """What a chunk is as a task."""
    return [fn(*args) for args in calls]


def map_calls(
    executor: Executor,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    timeout_s: float | None,
    chunksize: int,
    buffersize: int | None,
) -> Iterator[T]:
    """Submits the calls, and returns the iterator of their results."""
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None:
        if not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
    end = None if timeout_s is None else monotonic() + timeout_s
    calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
    if chunksize == 1:
        return _results(_futures(executor, fn, calls, buffersize), end)
    chunks = (([*chunk],) for chunk in _chunks(calls, chunksize))
    buffered_chunks = None if buffersize is None else -(-buffersize // chunksize)
    return itertools.chain.from_iterable(
        _results(_futures(executor, partial(call_chunk, fn), chunks, buffered_chunks), end)
    )


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(itertools.islice(calls, size)):
        yield chunk


class _Futures:
    """The futures of a map: those submitted, and the calls that wait for room in the buffer."""

    def __init__(self, executor: Executor, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]]) -> None:
        self.executor = executor
        self.fn = fn
        self.calls = calls
        self.submitted: deque[Future[Any]] = deque()

    def submit_next(self, count: int | None) -> None:
        """Submits so many more calls, or all."""
        submit, fn = self.executor.submit, self.fn
        for args in itertools.islice(self.calls, count):
            self.submitted.append(submit(fn, *args))


def _futures(
    executor: Executor, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]], buffersize: int | None
) -> _Futures:
    futures = _Futures(executor, fn, calls)
    futures.submit_next(buffersize)
    if buffersize is None:
        futures.calls = iter(())
    return futures


def _results(futures: _Futures, end: float | None) -> Iterator[Any]:
    """Results in order; when it is dropped or a call raises, what has not started is cancelled."""
    submitted = futures.submitted
    try:
        while submitted:
            future = submitted.popleft()
            result = future.result(None if end is None else end - monotonic())
            del future  # Only the caller keeps the result alive.
            futures.submit_next(1)
            yield result
            del result
    finally:
        futures.executor._cancel_later(list(submitted))
