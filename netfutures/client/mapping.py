"""`Executor.map`: calls of one function over iterables, in chunks, with ordered and lazy results."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .future import Future

T = TypeVar("T")


def call_chunk(fn: Callable[..., T], calls: list[tuple[Any, ...]]) -> list[T]:
    """What a chunk is as a task."""
    return [fn(*args) for args in calls]


def map_calls(
    submit: Callable[..., Future[Any]],
    cancel_later: Callable[[list[Future[Any]]], None],
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    timeout_s: float | None,
    chunksize: int,
    buffersize: int | None,
) -> Iterator[T]:
    """Submits the calls, and returns the iterator of their results; `cancel_later` cancels without waiting."""
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
        return _results(*_begin(partial(submit, fn), calls, buffersize), cancel_later, end)
    chunks = (([*chunk],) for chunk in _chunks(calls, chunksize))
    buffered_chunks = None if buffersize is None else -(-buffersize // chunksize)
    lists = _results(*_begin(partial(submit, partial(call_chunk, fn)), chunks, buffered_chunks), cancel_later, end)
    return itertools.chain.from_iterable(lists)


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(itertools.islice(calls, size)):
        yield chunk


def _begin(
    submit: Callable[..., Future[Any]], calls: Iterator[tuple[Any, ...]], buffersize: int | None
) -> tuple[deque[Future[Any]], Iterator[Future[Any]]]:
    """The futures to begin with, and those that are submitted one by one as results are taken."""
    first = deque([submit(*args) for args in itertools.islice(calls, buffersize)])
    return first, iter(()) if buffersize is None else (submit(*args) for args in calls)


def _results(
    submitted: deque[Future[Any]],
    following: Iterator[Future[Any]],
    cancel_later: Callable[[list[Future[Any]]], None],
    end: float | None,
) -> Iterator[Any]:
    """Results in order; when it is dropped or a call raises, what has not started is cancelled."""
    try:
        while submitted:
            submitted.extend(itertools.islice(following, 1))
            result = submitted[0].result(None if end is None else end - monotonic())
            submitted.popleft()  # Only the caller keeps the result alive.
            yield result
            del result
    finally:
        cancel_later([future for future in submitted if not future.done()])
