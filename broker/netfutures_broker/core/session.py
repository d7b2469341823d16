"""A client's session at the broker: what of it waits, what goes back, and what the client may not have yet."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from netfutures.fields import Blob, Numbers, Payload, SubmittedRun
from netfutures.limits import BATCH_TASKS_MAX
from netfutures.line import Line
from netfutures.outbox import Outbox
from netfutures.wire import Broken, Cancelled, Message, Need, Printed, RemoteProtocolError, Results

from .run import Dispatch, Piece, Run
from .task import Event, advance


class Outcomes(NamedTuple):
    """Outcomes of consecutive tasks on their way to the client."""

    first: int
    payloads: list[Payload]
    dispatch: Dispatch | None
    """Where they come from; None when no worker keeps them."""
    offset: int


class Recall:
    """A `Cancel` of the client that waits for workers, which know it by a number of the broker's own."""

    __slots__ = ("awaited", "number", "numbers")

    def __init__(self, number: int) -> None:
        self.number = number
        self.awaited: set[bytes] = set()
        self.numbers: list[Numbers] = []


class Wanted(NamedTuple):
    """A `Need` of a worker that was passed on to the client and is not answered yet."""

    worker: bytes
    key: int | bytes
    """The payload's name at the worker."""
    offset: int
    limit: int


Item = Outcomes | Message
"""What waits in an outbox."""


class ClientSession:
    """One session: its backlog, its blobs, and its outbox."""

    def __init__(self, identity: bytes, token: bytes, settings: dict[str, Any], initializer: Payload | None) -> None:
        self.identity = identity
        self.token = token
        self.settings = settings
        self.initializer = initializer
        self.reconnect_timeout_s = 0.0
        self.line: Line | None = None
        self.away_since: float | None = None
        self.connection = 0
        self.submitted = 1
        """The next task number: everything below it is known."""
        self.backlog: deque[Piece] = deque()
        self.backlog_tasks = 0
        self.blobs: dict[bytes, Blob] = {}
        self.opened: set[bytes] = set()
        """Workers that were told of this session."""
        self.outbox: Outbox[Item] = Outbox()
        self.recalls: dict[int, Recall] = {}
        self.attempts: dict[int, int] = {}
        """Attempts of those tasks that were run again."""
        self.wanted: dict[int | bytes, deque[Wanted]] = {}
        """Arguments (by task number) and blobs (by digest) under way; the client answers in this order."""
        self.large: dict[int, bytes] = {}
        """Outcomes that stay at their worker until they are pulled: dispatch number to worker."""
        self.pulled: dict[int, deque[Need]] = {}
        """What was asked of them, by dispatch number; the worker answers in this order."""
        self.is_broken = False

    def unknown_part(self, run: SubmittedRun) -> SubmittedRun | None:
        """What is new in a submitted run: a client that came back repeats what was not acknowledged."""
        first, digest, options, payloads = run
        known = self.submitted - first
        if known < 0:
            raise RemoteProtocolError(f"task {first} was submitted before task {self.submitted}")
        if known >= len(payloads):
            return None
        return run if known == 0 else (self.submitted, digest, options, payloads[known:])

    def submit(self, blobs: Sequence[Blob], runs: Sequence[SubmittedRun]) -> None:
        """Takes what is new into the backlog."""
        for blob in blobs:
            self.blobs[blob[0]] = blob
        for each in runs:
            run = self.unknown_part(each)
            if run is None:
                continue
            first, digest, options, payloads = run
            if digest not in self.blobs:
                raise RemoteProtocolError(f"task {first} calls a function that was never sent")
            self.queue(Piece(Run(first, digest, options, payloads), 0, len(payloads)))
            self.submitted = first + len(payloads)

    def queue(self, piece: Piece, *, in_front: bool = False) -> None:
        """Adds a piece to the backlog, in front when its tasks had their turn before."""
        if in_front:
            self.backlog.appendleft(piece)
        else:
            self.backlog.append(piece)
        self.backlog_tasks += piece.count

    def take(self, count_max: int) -> Piece:
        """The first piece of the backlog, at most so many tasks of it."""
        piece = self.backlog[0]
        if piece.count <= count_max:
            self.backlog.popleft()
            taken = piece
        else:
            taken = Piece(piece.run, piece.offset, count_max)
            piece.offset += count_max
            piece.count -= count_max
        self.backlog_tasks -= taken.count
        return taken

    def give_back_backlog(self) -> list[Numbers]:
        """Takes out of the backlog what never started, for a client that calls it back."""
        numbers = []
        backlog, attempts = list(self.backlog), self.attempts
        self.drop_backlog()
        for piece in backlog:
            first = piece.run.first + piece.offset
            if first in attempts:
                self.queue(piece)  # It was lost and runs again, and such tasks wait one by one.
                continue
            advance(piece.run.states, piece.offset, piece.offset + piece.count, Event.GIVE_BACK)
            numbers.append((first, piece.count))
        return numbers

    def drop_backlog(self) -> None:
        """Forgets what waits."""
        self.backlog.clear()
        self.backlog_tasks = 0

    def attempt_failed(self, number: int, retries: int) -> bool:
        """Notes that an attempt was lost; whether the task may run again."""
        attempts = self.attempts.get(number, 1)
        self.attempts[number] = attempts + 1
        return attempts <= retries

    def forget_attempts(self, first: int, count: int) -> None:
        """These tasks have ended."""
        if self.attempts:
            for number in range(first, first + count):
                self.attempts.pop(number, None)

    def next_batch(self) -> Message | None:
        """The next message for the client out of the outbox; it stays noted until the client acknowledges it."""
        line = self.line
        if line is None or not self.outbox.waiting or not line.conversation.is_open:
            return None
        items = self.outbox.take_batch(line.conversation.sent + 1, _sizes)
        first = items[0]
        if isinstance(first, Outcomes):
            if len(items) == 1:
                return Results([(first.first, first.payloads)])
            return Results([(item.first, item.payloads) for item in items if isinstance(item, Outcomes)])
        if isinstance(first, Printed):
            return Printed([record for item in items if isinstance(item, Printed) for record in item.records])
        return first

    def acknowledged(self) -> list[Outcomes]:
        """The outcomes that the client has by its own word, since this was last asked."""
        if self.line is None:
            return []
        items = self.outbox.acknowledged(self.line.conversation.acknowledged)
        return [item for item in items if isinstance(item, Outcomes)]

    def finish_recall(self, request: int) -> None:
        """Answers a `Cancel` for which no worker is awaited any more."""
        recall = self.recalls.pop(request)
        numbers = recall.numbers
        for start in range(0, max(1, len(numbers)), BATCH_TASKS_MAX):
            stop = start + BATCH_TASKS_MAX
            self.outbox.put(Cancelled(request, numbers[start:stop], stop >= len(numbers)))

    def break_with(self, certificate: dict[str, Any]) -> None:
        """The session is broken: nothing of it runs any more, and the client is told why."""
        self.is_broken = True
        self.drop_backlog()
        self.recalls.clear()
        self.attempts.clear()
        self.large.clear()
        self.pulled.clear()
        self.wanted.clear()
        self.outbox.put(Broken(certificate))


def _sizes(item: Item) -> tuple[int, int]:
    """Tasks and bytes of what waits in an outbox; (0, 0): it travels alone."""
    match item:
        case Outcomes():
            return len(item.payloads), sum(map(len, item.payloads))
        case Printed(records):
            return len(records), sum(len(text) for *_, text in records)
    return 0, 0
