"""Runs of tasks and their dispatches: what the broker moves around instead of single tasks."""

from typing import Any

from netfutures.fields import Payload
from netfutures.ranges import HELD, KEPT, parts_of

from .task import Event, advance

_HELD_MARK = bytes([HELD])
_KEPT_MARK = bytes([KEPT])


class Run:
    """Consecutive tasks of one session that call the same function with the same options, as they were submitted."""

    __slots__ = ("digest", "first", "options", "payloads", "states")

    def __init__(self, first: int, digest: bytes, options: dict[str, Any] | None, payloads: list[Payload]) -> None:
        self.first = first
        self.digest = digest
        self.options = options
        self.payloads = payloads
        self.states = bytearray(len(payloads))

    @property
    def retries(self) -> int | None:
        """How often a task of this run may be run again after a loss; None: a loss breaks the pool."""
        return None if self.options is None else self.options.get("retries")

    def __len__(self) -> int:
        return len(self.states)


class Piece:
    """Part of a run that waits in a backlog."""

    __slots__ = ("count", "offset", "run")

    def __init__(self, run: Run, offset: int, count: int) -> None:
        self.run = run
        self.offset = offset
        self.count = count


class Dispatch:
    """One handing of part of a run to a worker, under consecutive dispatch numbers from `base` on.

    `marks` has a byte a task: HELD, KEPT, or 0 when this dispatch is over for it. It is the fence: whatever a worker
    says of a task counts only while its mark is HELD.
    """

    __slots__ = ("base", "count", "marks", "offset", "open_count", "run", "session", "worker")

    def __init__(self, base: int, run: Run, offset: int, count: int, session: bytes, worker: bytes) -> None:
        self.base = base
        self.run = run
        self.offset = offset
        self.count = count
        self.session = session
        self.worker = worker
        self.marks = bytearray(_HELD_MARK) * count
        self.open_count = count

    @property
    def first(self) -> int:
        """The task number of its first task."""
        return self.run.first + self.offset

    def current_parts(self, offset: int, count: int) -> list[tuple[int, int]]:
        """The parts (offset, count) of this part for which the dispatch is the current one."""
        return parts_of(self.marks, HELD, offset, offset + count)

    def kept_parts(self, offset: int, count: int) -> list[tuple[int, int]]:
        """The parts of this part whose outcomes the worker keeps."""
        return parts_of(self.marks, KEPT, offset, offset + count)

    def finish(self, offset: int, count: int) -> None:
        """The worker finished these tasks and keeps their outcomes."""
        self.marks[offset : offset + count] = _KEPT_MARK * count

    def end(self, offset: int, count: int) -> None:
        """This dispatch is over for these tasks."""
        self.marks[offset : offset + count] = bytes(count)
        self.open_count -= count

    def advance(self, offset: int, count: int, event: Event) -> None:
        """Moves these tasks of the run."""
        advance(self.run.states, self.offset + offset, self.offset + offset + count, event)
