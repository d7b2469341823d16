"""What this client has submitted and still waits for, found by task number; pure."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from netfutures.fields import Payload


class CallRun(NamedTuple):
    """Consecutive calls of one function; a call is whatever the client keeps for a task, and is not looked into."""

    digest: bytes
    options: dict[str, Any] | None
    calls: Sequence[Any]
    payloads: list[Payload]


class Segment:
    """A run of calls that was submitted; `open` has a byte a call: 1 while its outcome is awaited."""

    __slots__ = ("calls", "first", "left", "open", "run")

    def __init__(self, first: int, run: CallRun) -> None:
        self.first = first
        self.run = run
        self.calls = run.calls
        self.open = bytearray(b"\1") * len(run.calls)
        self.left = len(run.calls)


class Ledger:
    """All segments of which a call is still awaited, in the order of their numbers."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._firsts: list[int] = []
        self.next_number = 1
        self.awaited = 0
        """How many calls are awaited."""

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def add(self, run: CallRun) -> Segment:
        """Numbers the calls of a run."""
        segment = Segment(self.next_number, run)
        self._segments.append(segment)
        self._firsts.append(segment.first)
        self.next_number += len(run.calls)
        self.awaited += len(run.calls)
        return segment

    def segment_of(self, number: int) -> Segment | None:
        """The segment that a task number belongs to, if anything of it is still awaited."""
        at = bisect_right(self._firsts, number) - 1
        if at < 0:
            return None
        segment = self._segments[at]
        return segment if number < segment.first + len(segment.calls) else None

    def close(self, segment: Segment, offset: int, count: int) -> Sequence[Any] | None:
        """The calls `offset` to `offset + count`, which are no longer awaited; None unless all of them were."""
        stop = offset + count
        if segment.open.count(1, offset, stop) != count:
            return None
        is_whole = count == segment.left == len(segment.calls)
        calls = segment.calls if is_whole else segment.calls[offset:stop]
        segment.open[offset:stop] = bytes(count)
        segment.left -= count
        self.awaited -= count
        if segment.left == 0:
            at = 0 if self._segments[0] is segment else bisect_right(self._firsts, segment.first) - 1
            del self._segments[at], self._firsts[at]
        return calls

    def find(self, number: int) -> Any | None:
        """The call of this number while it is awaited."""
        segment = self.segment_of(number)
        if segment is None or not segment.open[number - segment.first]:
            return None
        return segment.calls[number - segment.first]

    def drop_all(self) -> list[Any]:
        """Every call that is awaited; afterwards none is."""
        calls = [
            call
            for segment in self._segments
            for call, awaited in zip(segment.calls, segment.open, strict=True)
            if awaited
        ]
        self._segments.clear()
        self._firsts.clear()
        self.awaited = 0
        return calls
