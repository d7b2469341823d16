"""Tasks on a worker: stretches that wait or run, and the dispatched runs that they came in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netfutures.ranges import HELD, KEPT, OVER, parts_of

if TYPE_CHECKING:
    from .commands import Given


class Holding:
    """A run as it was handed to this worker: which of its tasks are to be run, which outcomes are kept."""

    __slots__ = ("base", "count", "marks", "open_count", "outcomes", "session")

    def __init__(self, base: int, count: int, session: bytes) -> None:
        self.base = base
        self.count = count
        self.session = session
        self.marks = bytearray([HELD]) * count
        self.open_count = count
        self.outcomes: list[Any] = [None] * count

    def holds(self, offset: int, count: int) -> bool:
        """Whether all of these tasks are still to be run here."""
        return self.marks.count(HELD, offset, offset + count) == count

    def keep(self, offset: int, outcomes: list[Any]) -> None:
        """These tasks are finished; their outcomes stay until they are released."""
        stop = offset + len(outcomes)
        self.marks[offset:stop] = bytes([KEPT]) * len(outcomes)
        self.outcomes[offset:stop] = outcomes

    def end(self, offset: int, count: int) -> None:
        """Nothing of these tasks is here any more."""
        stop = offset + count
        self.open_count -= count - self.marks.count(OVER, offset, stop)
        self.marks[offset:stop] = bytes(count)
        self.outcomes[offset:stop] = [None] * count

    def parts(self, mark: int) -> list[tuple[int, int, int]]:
        """Its stretches (base, offset, count) with this mark."""
        return [(self.base, start, length) for start, length in parts_of(self.marks, mark, 0, self.count)]


class Work:
    """A stretch of consecutive tasks of one holding, with their payloads."""

    __slots__ = ("count", "digest", "holding", "offset", "options", "payloads")

    def __init__(
        self, holding: Holding, offset: int, digest: bytes, options: dict[str, Any] | None, payloads: list[Given]
    ) -> None:
        self.holding = holding
        self.offset = offset
        self.digest = digest
        self.options = options
        self.payloads = payloads
        self.count = len(payloads)

    def current_parts(self) -> list[Work]:
        """Those stretches of it that are still to be run here."""
        marks, offset = self.holding.marks, self.offset
        found = parts_of(marks, HELD, offset, offset + self.count)
        return [self.part(start - offset, start - offset + count) for start, count in found]

    def part(self, start: int, stop: int) -> Work:
        """Its tasks from `start` to `stop`."""
        return Work(self.holding, self.offset + start, self.digest, self.options, self.payloads[start:stop])
