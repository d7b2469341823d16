"""The worker's core with fake children, towards a broker whose every word a test writes or the real one."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from checks import check_worker
from inbox import EPOCH, FUNCTION, VERSION, FakeClock, Inbox, named, through_codec
from netfutures.conversation import Conversation
from netfutures.fields import Payload, Reference
from netfutures.limits import CREDIT_BYTES, CREDIT_TASKS, LEASE_S
from netfutures.wire import Acknowledge, Envelope, Finished, Message, Open, Tasks, Welcome, WorkerHello
from netfutures_worker.core.commands import (
    Command,
    EndChild,
    GiveFunction,
    GiveTasks,
    Harvest,
    KillChild,
    Look,
    Mute,
    Refusal,
    Send,
    StartChild,
    TakeBack,
    Unmute,
)
from netfutures_worker.core.state import Identity
from netfutures_worker.core.supervisor import Supervisor

CERTIFICATE = {"host": "here", "pid": 4711, "exit_code": None, "signal": 9}


@dataclass
class Given:
    """A packet that a child was given."""

    function: int
    first: int
    payloads: list[Any]


@dataclass
class FakeChild:
    """A child: its packets, claim and limit. Tests start and finish its tasks."""

    slot: int
    initializer: Any = None
    functions: dict[int, Any] = field(default_factory=dict)
    unread: deque[Given] = field(default_factory=deque)
    reading: Given | None = None
    at: int = 0
    claim: int = 0
    limit: int | None = None
    resume: int = 0
    next_index: int = 1
    untold: list[tuple[int, bytes]] = field(default_factory=list)
    is_told_to_end: bool = False
    is_killed: bool = False
    is_muted: bool = False

    def give(self, given: Given) -> None:
        """Puts a packet into its socket."""
        assert given.first >= self.next_index, "an index was given twice"
        assert given.function in self.functions, "a task of a function that it does not know"
        self.next_index = given.first + len(given.payloads)
        self.unread.append(given)

    def start(self) -> int | None:
        """Claims its next task; returns the index at which it stopped instead, if a limit was met."""
        if self.reading is None:
            self.reading, self.at = self.unread.popleft(), 0
        index = self.claim = self.reading.first + self.at
        if self.limit is not None and self.limit <= index < self.resume:
            self.claim = index - 1
            self.reading = None
            return index
        return None

    def end_task(self, outcome: bytes | None = None) -> None:
        """Ends the task that it runs; the outcome is not told yet."""
        given = self.reading
        assert given is not None
        done = b"did " + as_bytes(given.payloads[self.at]) if outcome is None else outcome
        self.untold.append((self.claim, done))
        self.at += 1
        if self.at == len(given.payloads):
            self.reading = None

    def take_back(self) -> tuple[int, list[int], list[int]]:
        """Sets the limit behind its claim and gives back what it has not read."""
        self.limit, self.resume = self.claim + 1, self.next_index
        unread = [given.first for given in self.unread]
        self.unread.clear()
        return self.claim, unread, []

    @property
    def is_busy(self) -> bool:
        """Whether it has something to run."""
        return self.reading is not None or bool(self.unread)


def as_bytes(payload: Any) -> bytes:
    """The bytes of a payload as children get it."""
    assert not isinstance(payload, Reference), "a child was given a reference"
    return bytes(payload.content if isinstance(payload, FakeMemory) else payload)


class FakeMemory:
    """Where a pulled payload gathers."""

    def __init__(self, size_bytes: int) -> None:
        self.content = bytearray(size_bytes)
        self.is_sealed = False

    def __len__(self) -> int:
        return len(self.content)

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Puts bytes at an offset."""
        self.content[offset : offset + len(content)] = content

    def seal(self) -> None:
        """All of it is there."""
        self.is_sealed = True


class FakeWorker:
    """The worker's core in a shell that has fake children."""

    def __init__(self, clock: FakeClock, name: str, slots: int, send: Callable[[Envelope], None]) -> None:
        self.clock = clock
        self.name = name
        identity = Identity(named(name), named(f"token {name}"), f"host of {name}", 4000, {})
        self.core = Supervisor(identity, slots, FakeMemory)
        self.children: dict[int, FakeChild] = {}
        self.refusals: list[str] = []
        self._send = send
        self._commands: deque[Command] = deque()

    def receive(self, envelope: Envelope) -> None:
        """A message of the broker."""
        self.perform(self.core.receive(through_codec(envelope), self.clock.now))

    def flush(self) -> None:
        """The end of a turn."""
        self.perform(self.core.flush(self.clock.now))

    def turn(self) -> None:
        """A turn in which nothing comes."""
        deadline = self.core.next_deadline()
        if deadline is not None and self.clock.now >= deadline:
            self.perform(self.core.wake(self.clock.now))
        self.flush()

    # What children do.

    def ready(self, slot: int = 0, *, exact: bool = True) -> FakeChild:
        """The child in this slot is prepared."""
        child = self.children[slot]
        self.perform(self.core.ready(slot, 5000 + slot, exact, self.clock.now))
        self.flush()
        return child

    def start(self, slot: int = 0) -> None:
        """The child claims its next task; if it stops at its limit it says so."""
        stopped_at = self.children[slot].start()
        if stopped_at is not None:
            self.tell(slot, 0)
            self.perform(self.core.stopped(slot, stopped_at, self.clock.now))
            self.flush()

    def finish(self, slot: int = 0, *outcomes: bytes, seconds: float = 0.0) -> None:
        """The child ends the task that it runs, and as many more of its packet as there are outcomes; tells of them."""
        child = self.children[slot]
        for at, outcome in enumerate(outcomes or (None,)):
            if at:
                assert child.start() is None
            child.end_task(outcome)
        self.tell(slot, int(seconds * 1e6))
        self.flush()

    def run(self, slot: int = 0, count: int = 1, *, seconds: float = 0.0) -> None:
        """The child runs tasks from begin to end, each told by itself."""
        for _ in range(count):
            self.start(slot)
            self.finish(slot, seconds=seconds)

    def tell(self, slot: int, microseconds: int = 0) -> None:
        """Hands in what the child has finished."""
        child = self.children[slot]
        untold, child.untold = child.untold, []
        if untold:
            outcomes = [outcome for _, outcome in untold]
            self.perform(self.core.results(slot, untold[0][0], outcomes, microseconds, self.clock.now))

    def die(self, slot: int = 0, **certificate: Any) -> None:
        """The child is dead: what it had finished is handed in, then its death."""
        self.tell(slot)
        child = self.children.pop(slot)
        self.perform(self.core.exited(slot, {**CERTIFICATE, **certificate}, child.claim, self.clock.now))
        self.flush()

    def bury_ended(self) -> None:
        """Whoever was told to end, or killed, dies."""
        for slot, child in list(self.children.items()):
            if child.is_killed or (child.is_told_to_end and not child.is_busy):
                self.die(slot)

    # What the core decides.

    def perform(self, commands: list[Command]) -> None:
        """Does what the core decides, as the shell does it."""
        self._commands.extend(commands)
        while self._commands:
            self._perform_one(self._commands.popleft())
        check_worker(self.core.state)

    def _perform_one(self, command: Command) -> None:
        core, children, now = self.core, self.children, self.clock.now
        match command:
            case Send(envelope):
                self._send(envelope)
            case StartChild(slot, initializer):
                assert slot not in children, "a child was started in a slot that has one"
                children[slot] = FakeChild(slot, initializer)
            case GiveFunction(slot, number, payload, _):
                children[slot].functions[number] = payload
            case GiveTasks(slot, number, first, payloads):
                children[slot].give(Given(number, first, list(payloads)))
            case Look(slot):
                self._commands.extend(core.looked(slot, children[slot].claim, now))
            case TakeBack(slot):
                self._commands.extend(core.revoked(slot, *children[slot].take_back(), now))
                self.tell(slot)
            case Harvest(slot):
                self.tell(slot)
            case EndChild(slot):
                children[slot].is_told_to_end = True
            case KillChild(slot):
                children[slot].is_killed = True
            case Mute(slot) | Unmute(slot):
                children[slot].is_muted = isinstance(command, Mute)
            case Refusal(reason):
                self.refusals.append(reason)


class WorkerStage(FakeWorker):
    """One worker towards a broker that a test plays."""

    def __init__(self, *, slots: int = 1) -> None:
        self.broker = Inbox("broker")
        super().__init__(FakeClock(), "worker", slots, self._hear)
        self.session = named("session")
        self.next_base = 1

    def _hear(self, envelope: Envelope) -> None:
        if isinstance(envelope.message, WorkerHello):
            self.broker.conversation = Conversation(envelope.connection)
        self.broker.hear(envelope)

    def say(self, message: Message, *, batch: bool = False) -> None:
        """The broker says something; the worker's turn follows."""
        self.receive(Envelope(*self.broker.conversation.stamp(batch), message))
        self.flush()

    def lose(self, message: Message) -> None:
        """The broker says something that never arrives."""
        self.broker.conversation.stamp()

    def welcome(self) -> WorkerHello:
        """The worker says hello, if it has not, and is welcome; returns the hello."""
        if not self.broker.has(WorkerHello):
            self.perform(self.core.connect(self.clock.now))
        hello = self.broker.take(WorkerHello)
        self.say(Welcome(VERSION, EPOCH, CREDIT_TASKS, CREDIT_BYTES, LEASE_S))
        return hello

    def open(self, session: bytes | None = None, *, initializer: Payload | None = None, **settings: Any) -> None:
        """A session is opened."""
        self.say(Open(session or self.session, settings, initializer))

    def hand(self, *payloads: Payload, session: bytes | None = None, digest: bytes = FUNCTION) -> int:
        """Tasks are handed to the worker; returns the dispatch number of the first."""
        base, self.next_base = self.next_base, self.next_base + len(payloads)
        run = (base, digest, None, list(payloads))
        self.say(Tasks(session or self.session, [(digest, b"code", True)], [run]), batch=True)
        return base

    def outcomes(self) -> dict[int, Payload]:
        """All outcomes, by dispatch number, acknowledged as they are told; none was told twice."""
        found: dict[int, Payload] = {}
        while messages := self.broker.take_all(Finished):
            for base, offset, outcomes in (run for message in messages for run in message.runs):
                for number, outcome in enumerate(outcomes, base + offset):
                    assert number not in found, f"two outcomes of dispatch {number}"
                    found[number] = outcome
            self.say(Acknowledge())
        return found

    def advance(self, seconds: float) -> None:
        """Time passes, with a turn at each deadline."""
        until = self.clock.now + seconds
        while (deadline := self.core.next_deadline()) is not None and deadline <= until:
            self.clock.now = max(self.clock.now, deadline)
            self.turn()
        self.clock.now = until
        self.turn()

    def leave(self) -> None:
        """The end of a test."""
        self.broker.refuse_unclaimed()
