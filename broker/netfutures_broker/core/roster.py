"""The workers that the broker knows: their credit, their lease, and what each of them holds."""

from collections.abc import Iterator

from netfutures.fields import Dispatched
from netfutures.limits import SUSPECT_AFTER_S
from netfutures.line import Line
from netfutures.ranges import HELD, KEPT, OVER, parts_of

from .run import Dispatch


class WorkerRecord:
    """One worker as the broker sees it."""

    def __init__(self, identity: bytes, token: bytes, host: str, pid: int, slots: int) -> None:
        self.identity = identity
        self.token = token
        self.host = host
        self.pid = pid
        self.slots = slots
        self.line: Line | None = None
        self.away_since: float | None = None
        self.connection = 0
        self.heard_at = 0.0
        self.credit_tasks = 0
        self.held_tasks = 0
        self.dispatches: dict[int, Dispatch] = {}
        """By base; a dispatch stays until the client has all its outcomes."""
        self.held_of: dict[bytes, int] = {}
        """Tasks held, by session."""
        self.blobs: set[tuple[bytes, bytes]] = set()
        """Session and digest of the blobs that were sent."""
        self.released: list[Dispatched] = []
        self.stale: list[Dispatched] = []

    @property
    def room_tasks(self) -> int:
        """How many tasks it would still take."""
        return self.credit_tasks - self.held_tasks

    def is_usable(self, now: float) -> bool:
        """Whether it may get new tasks now: present, not suspect, with room and an open window."""
        line = self.line
        return (
            line is not None
            and self.credit_tasks > self.held_tasks
            and now - self.heard_at < SUSPECT_AFTER_S
            and line.conversation.is_open
        )

    def hold(self, dispatch: Dispatch) -> None:
        """The tasks of a new dispatch are its own."""
        self.dispatches[dispatch.base] = dispatch
        self.held_tasks += dispatch.count
        self.held_of[dispatch.session] = self.held_of.get(dispatch.session, 0) + dispatch.count

    def finish(self, dispatch: Dispatch, offset: int, count: int) -> None:
        """It has finished these tasks and keeps their outcomes."""
        dispatch.finish(offset, count)
        self._holds_less(dispatch.session, count)

    def let_go(self, dispatch: Dispatch, offset: int, count: int) -> None:
        """It holds or keeps these tasks no longer."""
        self._holds_less(dispatch.session, dispatch.marks.count(HELD, offset, offset + count))
        self._end(dispatch, offset, count)

    def release(self, dispatch: Dispatch, offset: int, count: int) -> None:
        """The client has these outcomes: the worker will be told."""
        if count == dispatch.count == dispatch.marks.count(KEPT):
            self.released.append((dispatch.base, 0, count))
            del self.dispatches[dispatch.base]
            dispatch.end(0, count)
            return
        for start, length in dispatch.kept_parts(offset, count):
            self.released.append((dispatch.base, start, length))
            self._end(dispatch, start, length)

    def dispatch_of(self, number: int) -> Dispatch | None:
        """The dispatch of this worker that a dispatch number belongs to."""
        for dispatch in self.dispatches.values():
            if dispatch.base <= number < dispatch.base + dispatch.count:
                return dispatch
        return None

    def ended_parts(self, base: int, offset: int, count: int) -> list[Dispatched]:
        """Those of these tasks for which the dispatch is over: the worker need not keep anything of them."""
        dispatch = self.dispatches.get(base)
        if dispatch is None:
            return [(base, offset, count)]
        return [(base, start, length) for start, length in parts_of(dispatch.marks, OVER, offset, offset + count)]

    def forget_session(self, session: bytes) -> None:
        """Nothing of this session is expected from it any more."""
        for dispatch in [each for each in self.dispatches.values() if each.session == session]:
            del self.dispatches[dispatch.base]
        self.held_tasks -= self.held_of.pop(session, 0)
        self.blobs = {blob for blob in self.blobs if blob[0] != session}

    def _end(self, dispatch: Dispatch, offset: int, count: int) -> None:
        dispatch.end(offset, count)
        if dispatch.open_count == 0:
            del self.dispatches[dispatch.base]

    def _holds_less(self, session: bytes, count: int) -> None:
        self.held_tasks -= count
        left = self.held_of.get(session, 0) - count
        if left:
            self.held_of[session] = left
        else:
            self.held_of.pop(session, None)


class Roster:
    """All workers, by identity."""

    def __init__(self) -> None:
        self._workers: dict[bytes, WorkerRecord] = {}

    def __iter__(self) -> Iterator[WorkerRecord]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, identity: bytes) -> WorkerRecord | None:
        """The worker of this identity, if it is known."""
        return self._workers.get(identity)

    def add(self, worker: WorkerRecord) -> None:
        """A worker registers."""
        self._workers[worker.identity] = worker

    def remove(self, worker: WorkerRecord) -> None:
        """A worker is lost or has left."""
        del self._workers[worker.identity]

    def choose(self, now: float) -> tuple[WorkerRecord | None, int]:
        """The worker with the most room a slot, and how many workers would take tasks."""
        best: WorkerRecord | None = None
        usable = 0
        for worker in self._workers.values():
            if worker.is_usable(now):
                usable += 1
                # A product instead of two quotients.
                if best is None or worker.room_tasks * best.slots > best.room_tasks * worker.slots:
                    best = worker
        return best, usable
