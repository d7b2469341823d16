"""A session on a worker: its functions, what of it waits, and how long its tasks take."""

from collections import deque
from typing import Any

from netfutures.fields import Reference

from .commands import Given
from .work import Work


class Function:
    """A function of a session, as children get it."""

    __slots__ = ("digest", "estimate_s", "keep", "number", "payload")

    def __init__(self, number: int, digest: bytes, payload: Given, keep: bool) -> None:
        self.number = number
        self.digest = digest
        self.payload = payload
        self.keep = keep
        self.estimate_s: float | None = None
        """Measured time of one task; None before the first."""

    @property
    def is_here(self) -> bool:
        """Whether its payload has been pulled."""
        return type(self.payload) is not Reference

    def measure(self, seconds: float) -> None:
        """A task has taken so long.

        A rise is believed step by step, since a child that was kept from running for once would look slow; what was
        given to it on too low an estimate can be taken back.
        """
        old = self.estimate_s
        if old is None:
            self.estimate_s = seconds
        else:
            self.estimate_s = min(seconds, old * 4) if seconds > old else (old + 3 * seconds) / 4


class WorkerSession:
    """One session, as this worker knows it."""

    __slots__ = (
        "cannot_start",
        "closing",
        "functions",
        "identity",
        "initializer",
        "queue",
        "queued_tasks",
        "recent_estimate_s",
        "settings",
    )

    def __init__(self, identity: bytes, settings: dict[str, Any], initializer: Given | None) -> None:
        self.identity = identity
        self.settings = settings
        self.initializer = initializer
        self.functions: dict[bytes, Function] = {}
        self.queue: deque[Work] = deque()
        self.queued_tasks = 0
        self.recent_estimate_s: float | None = None
        """How long tasks take of the function that was measured last."""
        self.closing = False
        self.cannot_start = False
        """A child of it died before its first task: the broker breaks it, and until then no other is started."""

    def learn(self, digest: bytes, payload: Given, keep: bool) -> Function:
        """A blob of this session; one that is known stays as it is."""
        function = self.functions.get(digest)
        if function is None:
            function = self.functions[digest] = Function(len(self.functions) + 1, digest, payload, keep)
        return function

    def measure(self, digest: bytes, seconds: float) -> None:
        """A task of this function has taken so long."""
        function = self.functions[digest]
        function.measure(seconds)
        self.recent_estimate_s = function.estimate_s

    def put(self, work: Work) -> None:
        """Tasks that wait for a slot."""
        self.queue.append(work)
        self.queued_tasks += work.count

    def put_back(self, works: list[Work]) -> None:
        """Tasks that had their turn and have not started: they wait in front, in their old order."""
        for work in reversed(works):
            self.queue.appendleft(work)
            self.queued_tasks += work.count

    def take(self, count_max: int) -> Work:
        """The first tasks that wait, at most so many; all of one run."""
        work = self.queue[0]
        if work.count <= count_max:
            self.queue.popleft()
        else:
            work, self.queue[0] = work.part(0, count_max), work.part(count_max, work.count)
        self.queued_tasks -= work.count
        return work

    def drop_queue(self) -> list[Work]:
        """Everything that waits, taken out."""
        works = list(self.queue)
        self.queue.clear()
        self.queued_tasks = 0
        return works

    @property
    def is_prepared(self) -> bool:
        """Whether a child of it can be started: its initializer is here, or there is none."""
        return type(self.initializer) is not Reference

    @property
    def tasks_per_child_max(self) -> int | None:
        """How many tasks a child may run before it is replaced; None: no limit."""
        limit = self.settings.get("max_tasks_per_child")
        return limit if isinstance(limit, int) and limit > 0 else None
