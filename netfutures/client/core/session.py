"""The client's core: a session on a broker; calls, messages and the time go in, messages and outcomes come out.

Doors: `connect`, `receive`, `submit`, `recall`, `goodbye`, `wake`, `flush`, `next_deadline`, `statistics`. The client
owns its tasks: until a task has ended, everything needed to submit it again is in the ledger.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from netfutures.conversation import Verdict
from netfutures.fetch import Fetch, abort, chunks
from netfutures.fields import BLOB, CHUNKS, Blob, Payload, Reference, SubmittedRun
from netfutures.limits import (
    CHUNK_BYTES_MAX,
    HELLO_RETRY_S,
    PAUSE_S,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    SUSPECT_AFTER_S,
)
from netfutures.line import Line
from netfutures.outbox import Outbox
from netfutures.wire import (
    Acknowledge,
    Beat,
    Broken,
    Cancel,
    Cancelled,
    Chunk,
    ClientHello,
    Envelope,
    Goodbye,
    Message,
    Need,
    Printed,
    Refused,
    RemoteProtocolError,
    Results,
    Running,
    Submit,
    Welcome,
    Who,
)

from .commands import (
    Break,
    Command,
    Connected,
    Ended,
    GiveBack,
    MarkRunning,
    Print,
    Send,
    Settle,
    Statistics,
)
from .ledger import CallRun, Ledger, Segment


class SessionIdentity(NamedTuple):
    """Who this session is, and what the broker has to know of it."""

    session: bytes
    token: bytes
    versions: dict[str, Any]
    settings: dict[str, Any]
    initializer: Payload | None
    initializer_digest: bytes
    reconnect_timeout_s: float


class Submission(NamedTuple):
    """A message of tasks: what was new in it when it was made."""

    first_epoch: int
    blobs: list[Blob]
    runs: list[SubmittedRun]


Item = Submission | Need
"""What the broker has to acknowledge: tasks, and the word that an outcome was pulled whole."""


class Session:
    """One executor's life on one broker."""

    def __init__(self, identity: SessionIdentity, allocate: Callable[[int], Any]) -> None:
        self.identity = identity
        self.ledger = Ledger()
        self._allocate = allocate
        self._connection = 0
        self._line: Line | None = None
        self._is_welcome = False
        self._is_leaving = False
        self._is_over = False
        self._epoch: int | None = None
        self._credit_tasks = 0
        self._credit_bytes = 0
        self._awaited_bytes = 0
        self._hello_at: float | None = None
        self._heard_at = 0.0
        self._outbox: Outbox[Item] = Outbox()
        self._blobs: dict[bytes, Payload] = {}
        """Large blobs, for whoever needs them."""
        self._large: dict[int, Payload] = {}
        """Large argument payloads, by task number, until their task has ended."""
        self._fetches: dict[int | bytes, tuple[Fetch, int]] = {}
        """Outcomes that are being pulled, with their task numbers."""
        self._recalls: set[int] = set()
        self._next_request = 1
        self._commands: list[Command] = []
        self._stale_outcomes = 0
        self._gaps = 0
        if identity.initializer is not None and len(identity.initializer) > CHUNK_BYTES_MAX:
            self._blobs[identity.initializer_digest] = identity.initializer

    # -- doors

    def connect(self, now: float) -> list[Command]:
        """There is a connection, or another one: says hello."""
        self._heard_at = now
        self._say_hello(now)
        return self._drain()

    def receive(self, envelope: Envelope, now: float) -> list[Command]:
        """A message of the broker.

        Raises `RemoteProtocolError` when the broker broke the protocol.
        """
        self._heard_at = now
        message = envelope.message
        line = self._line
        if envelope.connection == 0:
            self._on_unnumbered(message, now)
        elif line is not None and not self._is_over:
            verdict = line.conversation.accept(envelope.connection, envelope.sequence, envelope.acknowledged)
            if verdict is Verdict.FRESH:
                self._outbox.acknowledged(line.conversation.acknowledged)
                self._on_message(line, message, now)
            elif verdict is Verdict.GAP:
                self._gaps += 1
                self._say_hello(now)
        return self._drain()

    def _on_unnumbered(self, message: Message, now: float) -> None:
        """What a broker says to somebody whom it does not know, or no more."""
        if isinstance(message, Refused):
            self._break({"note": f"the broker refused this session: {message.reason}"})
        elif isinstance(message, Who) and self._is_welcome:
            self._say_hello(now)

    @property
    def room(self) -> tuple[int, int]:
        """How many tasks and bytes may be submitted now; (0, 0) while there is no room in window or credit."""
        line = self._line
        if not self._is_welcome or line is None or self._outbox.waiting or not line.conversation.is_open:
            return 0, 0
        tasks = self._credit_tasks - self.ledger.awaited
        size_bytes = self._credit_bytes - self._awaited_bytes
        return (tasks, size_bytes) if tasks > 0 and size_bytes > 0 else (0, 0)

    def submit(self, blobs: list[Blob], runs: list[CallRun], now: float) -> list[Command]:
        """Takes calls, which are numbered from `ledger.next_number` on; within `room`. They leave with `flush`."""
        assert self._epoch is not None
        submitted: list[SubmittedRun] = []
        for run in runs:
            segment = self.ledger.add(run)
            payloads = self._refer_to_large(segment.first, run.payloads)
            self._awaited_bytes += sum(map(len, run.payloads))
            submitted.append((segment.first, run.digest, run.options, payloads))
        self._outbox.put(Submission(self._epoch, [self._refer_to_blob(blob) for blob in blobs], submitted))
        return []

    def recall(self, now: float) -> tuple[int, list[Command]]:
        """Calls back everything that has not started; the answer is a `GiveBack` with this request's number."""
        request = self._next_request
        self._next_request += 1
        self._recalls.add(request)
        self._send(Cancel(request, self.identity.session))
        return request, self._drain()

    def goodbye(self, reason: str, now: float) -> list[Command]:
        """Leaves: what is still awaited is not wanted any more. `Ended` follows when the broker has answered."""
        self._is_leaving = True
        self._send(Goodbye(reason))
        return self._drain()

    def wake(self, now: float) -> list[Command]:
        """A deadline has passed: beats, hellos that were not answered, a broker that is silent."""
        self._notice_pause(now)
        line = self._line
        if self._is_over or line is None:
            return []
        if now - self._heard_at >= self.identity.reconnect_timeout_s:
            self._break({"note": f"nothing was heard of the broker for {now - self._heard_at:.0f} s"})
        elif not self._is_welcome:
            if self._hello_at is not None and now >= self._hello_at:
                self._say_hello(now)
        elif now - self._heard_at >= SUSPECT_AFTER_S:
            self._say_hello(now)
        elif line.is_beat_due(now):
            self._send(Beat(0))
        return self._drain()

    def flush(self, now: float) -> list[Command]:
        """The end of a turn: sends what has gathered, acknowledges what has to be."""
        line = self._line
        if line is None or not self._is_welcome or self._is_over:
            return []
        while self._outbox.waiting and line.conversation.is_open:
            item = self._outbox.take_batch(line.conversation.sent + 1, _alone)[0]
            self._send(Submit(*item) if isinstance(item, Submission) else item, batch=True)
        if line.conversation.must_acknowledge(now):
            self._send(Acknowledge())
        return self._drain()

    def next_deadline(self) -> float | None:
        """When `wake` or `flush` is due although nothing happens."""
        if self._is_over or self._line is None:
            return None
        return self._line.deadline if self._is_welcome else self._hello_at

    def give_up(self, certificate: dict[str, Any]) -> list[Command]:
        """The shell knows that the broker is gone for good."""
        self._break(certificate)
        return self._drain()

    def statistics(self) -> Statistics:
        """Gauges and counters of this moment."""
        return Statistics(
            awaited_tasks=self.ledger.awaited,
            awaited_bytes=self._awaited_bytes,
            connection=self._connection,
            stale_outcomes=self._stale_outcomes,
            gaps=self._gaps,
        )

    # -- the connection

    def _drain(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands

    def _send(self, message: Message, *, batch: bool = False) -> None:
        if self._line is not None and self._is_welcome:
            self._commands.append(Send(self._line.envelope(message, batch=batch)))

    def _say_hello(self, now: float) -> None:
        self._connection += 1
        self._is_welcome = False
        self._hello_at = now + HELLO_RETRY_S
        self._outbox.repeat_sent()
        line = self._line = Line(None, self._connection, now)
        who = self.identity
        initializer = who.initializer
        if initializer is not None and len(initializer) > CHUNK_BYTES_MAX:
            initializer = Reference(BLOB, who.initializer_digest, len(initializer))
        hello = ClientHello(
            protocol=(PROTOCOL_MAJOR, PROTOCOL_MINOR),
            session=who.session,
            token=who.token,
            versions=who.versions,
            reconnect_timeout_s=who.reconnect_timeout_s,
            settings=who.settings,
            initializer=initializer,
        )
        self._commands.append(Send(line.envelope(hello)))

    def _notice_pause(self, now: float) -> None:
        """A gap in our own running is not the broker's silence."""
        deadline = self.next_deadline()
        if deadline is not None and now - deadline > PAUSE_S:
            self._heard_at += now - deadline

    def _on_message(self, line: Line, message: Message, now: float) -> None:
        match message:
            case Results(runs):
                line.conversation.owe(now)
                for first, outcomes in runs:
                    self._on_outcomes(first, outcomes)
            case Beat() | Acknowledge():
                pass  # Their numbers, which were taken above, are all that they bring.
            case Printed(records):
                line.conversation.owe(now)
                self._commands += [Print(*record) for record in records]
            case Running(numbers):
                line.conversation.owe(now)
                self._on_running(numbers)
            case Cancelled():
                line.conversation.owe(now)
                self._on_cancelled(message)
            case Need():
                self._on_need(message)
            case Chunk():
                self._on_chunk(message)
            case Welcome():
                self._on_welcome(message)
            case Broken(certificate):
                line.conversation.owe(now)
                self._break(certificate)
            case Goodbye(reason):
                self._on_goodbye(reason)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} from a broker to a client")

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._epoch is not None and welcome.epoch != self._epoch:
            self._break({"note": "the broker was started again, and what it had is gone"})
            return
        self._is_welcome = True
        self._hello_at = None
        self._epoch = welcome.epoch
        self._credit_tasks = welcome.credit_tasks
        self._credit_bytes = welcome.credit_bytes
        for request in self._recalls:
            self._send(Cancel(request, self.identity.session))
        for fetch, _ in self._fetches.values():
            fetch.restart()
            self._ask(fetch)
        if self._is_leaving:
            self._send(Goodbye("leaving"))
        self._commands.append(Connected())

    def _on_goodbye(self, reason: str) -> None:
        if not self._is_leaving:
            self._break({"note": f"the broker has said goodbye: {reason}"})
            return
        self._is_over = True
        self._commands.append(Ended())

    def _break(self, certificate: dict[str, Any]) -> None:
        if self._is_over:
            return
        self._is_over = True
        running = [self.ledger.find(number) for number in certificate.get("tasks", ())]
        named = {**certificate, "calls": [call for call in running if call is not None]}
        self._commands.append(Break(named, self.ledger.drop_all()))

    # -- tasks

    def _refer_to_large(self, first: int, payloads: list[Payload]) -> list[Payload]:
        if max(map(len, payloads)) <= CHUNK_BYTES_MAX:
            return payloads
        referred: list[Payload] = []
        for number, payload in enumerate(payloads, first):
            if len(payload) > CHUNK_BYTES_MAX:
                self._large[number] = payload
                referred.append(Reference(CHUNKS, number, len(payload)))
            else:
                referred.append(payload)
        return referred

    def _refer_to_blob(self, blob: Blob) -> Blob:
        digest, payload, keep = blob
        if len(payload) <= CHUNK_BYTES_MAX:
            return blob
        self._blobs[digest] = payload
        return digest, Reference(BLOB, digest, len(payload)), keep

    def _on_outcomes(self, first: int, outcomes: list[Payload]) -> None:
        segment = self.ledger.segment_of(first)
        offset = 0 if segment is None else first - segment.first
        if segment is None or offset + len(outcomes) > len(segment.calls):
            self._stale_outcomes += len(outcomes)
            return
        if Reference in set(map(type, outcomes)):
            self._pull_large(first, outcomes)
            return
        self._settle_in(segment, first, outcomes)

    def _settle(self, first: int, outcomes: list[Payload]) -> None:
        segment = self.ledger.segment_of(first)
        if segment is None:
            self._stale_outcomes += len(outcomes)
        else:
            self._settle_in(segment, first, outcomes)

    def _settle_in(self, segment: Segment, first: int, outcomes: list[Payload]) -> None:
        offset, count = first - segment.first, len(outcomes)
        calls = self.ledger.close(segment, offset, count)
        if calls is None:
            # Some of them ended before: an outcome that was repeated after a reconnect.
            if count > 1:
                for at, outcome in enumerate(outcomes):
                    self._settle(first + at, [outcome])
            else:
                self._stale_outcomes += 1
            return
        if self._fetches:
            self._drop_fetches(first, count)
        payloads = segment.run.payloads
        self._awaited_bytes -= sum(map(len, payloads if count == len(payloads) else payloads[offset : offset + count]))
        if self._large:
            for number in range(first, first + count):
                self._large.pop(number, None)
        self._commands.append(Settle(first, calls, outcomes))

    def _drop_fetches(self, first: int, count: int) -> None:
        """These tasks have ended by other outcomes, since they were run again."""
        for key in [key for key, (_, number) in self._fetches.items() if first <= number < first + count]:
            del self._fetches[key]

    def _pull_large(self, first: int, outcomes: list[Payload]) -> None:
        for number, outcome in enumerate(outcomes, first):
            if type(outcome) is not Reference:
                self._settle(number, [outcome])
            elif self.ledger.find(number) is not None and outcome.key not in self._fetches:
                fetch = Fetch(self.identity.session, outcome, self._allocate(outcome.size_bytes))
                self._fetches[outcome.key] = (fetch, number)
                self._ask(fetch)

    def _ask(self, fetch: Fetch) -> None:
        need = fetch.need()
        if need is not None:
            self._send(need)

    def _on_chunk(self, chunk: Chunk) -> None:
        found = self._fetches.get(chunk.key)
        if found is None:
            return
        fetch, number = found
        if chunk.abort:
            # It was lost with the worker that kept it: the broker says how its task ends, or lets it run again.
            del self._fetches[chunk.key]
            return
        if not fetch.take(chunk):
            self._ask(fetch)
            return
        del self._fetches[chunk.key]
        # The worker need not keep it any longer.
        self._outbox.put(Need(self.identity.session, chunk.key, fetch.size_bytes, fetch.size_bytes))
        store: Any = fetch.store
        self._settle(number, [store.content])

    def _on_need(self, need: Need) -> None:
        key = need.key
        payload = self._large.get(key) if isinstance(key, int) else self._blobs.get(key)
        if payload is None:
            self._send(abort(need))
            return
        for chunk in chunks(need, payload):
            self._send(chunk)

    def _on_running(self, numbers: list[tuple[int, int]]) -> None:
        calls = [self.ledger.find(number) for first, count in numbers for number in range(first, first + count)]
        self._commands.append(MarkRunning([call for call in calls if call is not None]))

    def _on_cancelled(self, message: Cancelled) -> None:
        calls: list[Any] = []
        for first, count in message.numbers:
            calls += self._take_out(first, count)
        is_last = message.is_last and message.request in self._recalls
        if is_last:
            self._recalls.discard(message.request)
        self._commands.append(GiveBack(message.request, calls, is_last))

    def _take_out(self, first: int, count: int) -> list[Any]:
        segment = self.ledger.segment_of(first)
        if segment is None or first + count > segment.first + len(segment.calls):
            return []
        offset = first - segment.first
        calls = self.ledger.close(segment, offset, count)
        if calls is None:
            return []
        self._awaited_bytes -= sum(map(len, segment.run.payloads[offset : offset + count]))
        for number in range(first, first + count):
            self._large.pop(number, None)
        return list(calls)


def _alone(item: Item) -> tuple[int, int]:
    """It is a message already."""
    return 0, 0
