"""The cores among fakes: a client's core with a broker that a test plays, and all three cores joined by lists."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from checks import (
    CreditWatch,
    check_broker,
    check_broker_is_idle,
    check_client,
    check_client_is_idle,
    check_worker_is_idle,
)
from inbox import EPOCH, FUNCTION, VERSION, FakeClock, Inbox, named, through_codec
from netfutures.client.core.commands import Break, Command, Connected, Ended, GiveBack, MarkRunning, Print, Send, Settle
from netfutures.client.core.ledger import CallRun
from netfutures.client.core.session import Session, SessionIdentity
from netfutures.conversation import Conversation
from netfutures.fields import Payload
from netfutures.limits import CREDIT_BYTES, CREDIT_TASKS, LEASE_S
from netfutures.wire import ClientHello, Envelope, Message, Welcome
from netfutures_broker.core import commands as broker_commands
from netfutures_broker.core.scheduler import Scheduler
from worker_stage import FakeMemory, FakeWorker


class FakeClient:
    """The client's core in a shell that notes what becomes of each call; a call is a text."""

    def __init__(self, clock: FakeClock, name: str, initializer: bytes | None = None, /, **settings: Any) -> None:
        self.clock = clock
        self.name = name
        identity = SessionIdentity(
            session=named(name),
            token=named(f"token {name}"),
            versions={},
            settings=settings,
            initializer=initializer,
            initializer_digest=named(f"initializer {name}"),
            reconnect_timeout_s=60.0,
        )
        self.core = Session(identity, FakeMemory)
        self.sent: deque[Envelope] = deque()
        self.outcomes: dict[str, bytes] = {}
        self.running: list[str] = []
        self.printed: list[tuple[int, int, bytes]] = []
        self.given_back: dict[int, list[str]] = {}
        self.answered: list[int] = []
        self.certificate: dict[str, Any] | None = None
        self.broken_calls: list[str] = []
        self.has_ended = False
        self.connections = 0

    def submit(
        self, calls: Sequence[str], payloads: Sequence[bytes] | None = None, options: dict[str, Any] | None = None
    ) -> None:
        """Submits calls of one function; the payload of a call is its name unless told otherwise."""
        contents: list[Payload] = [call.encode() for call in calls] if payloads is None else list(payloads)
        run = CallRun(FUNCTION, options, list(calls), contents)
        self.perform(self.core.submit([(FUNCTION, b"code", True)], [run], self.clock.now))
        self.flush()

    def recall(self) -> int:
        """Calls back what has not started."""
        request, commands = self.core.recall(self.clock.now)
        self.perform(commands)
        return request

    def goodbye(self) -> None:
        """Leaves."""
        self.perform(self.core.goodbye("done", self.clock.now))

    def connect(self) -> None:
        """There is a connection, or another one."""
        self.perform(self.core.connect(self.clock.now))

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

    def perform(self, commands: list[Command]) -> None:
        """Does what the core decides."""
        for command in commands:
            match command:
                case Send(envelope):
                    self.sent.append(envelope)
                case Settle(_, calls, outcomes):
                    for call, outcome in zip(calls, outcomes, strict=True):
                        assert call not in self.outcomes, f"{call} has ended twice"
                        self.outcomes[call] = bytes(outcome)  # type: ignore[arg-type]  # no reference gets here
                case MarkRunning(calls):
                    self.running += calls
                case Print(number, stream, text):
                    self.printed.append((number, stream, text))
                case GiveBack(request, calls, is_last):
                    self.given_back.setdefault(request, []).extend(calls)
                    if is_last:
                        self.answered.append(request)
                case Break(certificate, calls):
                    assert self.certificate is None, "broken twice"
                    self.certificate = certificate
                    self.broken_calls = list(calls)
                case Connected():
                    self.connections += 1
                case Ended():
                    self.has_ended = True
        check_client(self.core)


class ClientStage(FakeClient):
    """One client towards a broker that a test plays."""

    def __init__(self, initializer: bytes | None = None, /, **settings: Any) -> None:
        self.broker = Inbox("broker")
        super().__init__(FakeClock(), "client", initializer, **settings)

    def perform(self, commands: list[Command]) -> None:
        """Does what the core decides."""
        super().perform(commands)
        while self.sent:
            envelope = self.sent.popleft()
            if isinstance(envelope.message, ClientHello):
                self.broker.conversation = Conversation(envelope.connection)
            self.broker.hear(envelope)

    def say(self, message: Message, *, batch: bool = False) -> None:
        """The broker says something; the client's turn follows."""
        self.receive(Envelope(*self.broker.conversation.stamp(batch), message))
        self.flush()

    def lose(self, message: Message) -> None:
        """The broker says something that never arrives."""
        self.broker.conversation.stamp()

    def welcome(self, *, epoch: int = EPOCH, tasks: int = CREDIT_TASKS, size_bytes: int = CREDIT_BYTES) -> ClientHello:
        """The client says hello, if it has not, and is welcome; returns the hello."""
        if not self.broker.has(ClientHello):
            self.connect()
        hello = self.broker.take(ClientHello)
        self.say(Welcome(VERSION, epoch, tasks, size_bytes, LEASE_S))
        return hello

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


class World:
    """The three real cores, joined by lists; nothing moves but by `settle`, `step` and `advance`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.broker = Scheduler(EPOCH)
        self.clients: list[FakeClient] = []
        self.workers: list[FakeWorker] = []
        self.runs_children = True
        """Whether children run what they have by themselves."""
        self._to_broker: deque[tuple[bytes, Envelope]] = deque()
        self._from_broker: deque[tuple[bytes, Envelope]] = deque()
        self._routes: dict[bytes, FakeClient | FakeWorker] = {}
        self._credit = CreditWatch()
        self._cut_off: set[bytes] = set()

    def client(self, name: str = "client", initializer: bytes | None = None, /, **settings: Any) -> FakeClient:
        """A client that is welcome."""
        client = FakeClient(self.clock, name, initializer, **settings)
        self.clients.append(client)
        self._routes[name.encode()] = client
        client.connect()
        self.settle()
        assert client.connections == 1
        return client

    def worker(self, name: str = "worker", *, slots: int = 1) -> FakeWorker:
        """A worker that is registered."""
        route = name.encode()
        worker = FakeWorker(self.clock, name, slots, lambda envelope: self._to_broker.append((route, envelope)))
        self.workers.append(worker)
        self._routes[route] = worker
        worker.perform(worker.core.connect(self.clock.now))
        self.settle()
        return worker

    def cut(self, party: FakeClient | FakeWorker) -> None:
        """The connection of a party ends with all that is on its way; it has another one at once."""
        self.lose(party)
        self._perform(self.broker.unreachable(party.name.encode(), self.clock.now))
        if isinstance(party, FakeClient):
            party.connect()
        else:
            party.perform(party.core.connect(self.clock.now))

    def lose(self, party: FakeClient | FakeWorker) -> None:
        """What is on its way from and to a party is lost, unnoticed."""
        route = party.name.encode()
        if isinstance(party, FakeClient):
            party.sent.clear()
        self._to_broker = deque(each for each in self._to_broker if each[0] != route)
        self._from_broker = deque(each for each in self._from_broker if each[0] != route)

    def cut_off(self, party: FakeClient | FakeWorker) -> None:
        """From now on nothing gets through from and to a party, and nobody notices."""
        self._cut_off.add(party.name.encode())
        self.lose(party)

    def rejoin(self, party: FakeClient | FakeWorker) -> None:
        """Everything gets through again."""
        self._cut_off.remove(party.name.encode())

    def kill(self, worker: FakeWorker) -> None:
        """The process of a worker is gone, and its children with it."""
        self.lose(worker)
        self.workers.remove(worker)
        del self._routes[worker.name.encode()]
        self._perform(self.broker.unreachable(worker.name.encode(), self.clock.now))

    def settle(self) -> None:
        """Everybody takes turns until nothing is on its way any more."""
        while self.step():
            pass

    def step(self) -> bool:
        """One turn of everybody; whether anything moved."""
        for client in self.clients:
            client.flush()
            while client.sent:
                self._to_broker.append((client.name.encode(), client.sent.popleft()))
        moved = bool(self._to_broker)
        while self._to_broker:
            route, envelope = self._to_broker.popleft()
            if route in self._cut_off:
                continue
            self._perform(self.broker.receive(route, through_codec(envelope), self.clock.now))
        self._perform(self.broker.flush(self.clock.now))
        moved = moved or bool(self._from_broker)
        while self._from_broker:
            route, envelope = self._from_broker.popleft()
            if route in self._routes and route not in self._cut_off:
                self._routes[route].receive(envelope)
        for worker in self.workers:
            worker.flush()
            moved = self._run_children(worker) or moved
        return moved or bool(self._to_broker)

    def _run_children(self, worker: FakeWorker) -> bool:
        if not self.runs_children:
            return False
        moved = False
        for slot, child in list(worker.children.items()):
            if worker.core.state.slots[slot].pid == 0 and not child.is_killed:
                worker.ready(slot)
                moved = True
            elif child.is_busy and not child.is_killed:
                worker.run(slot, seconds=1e-6)
                moved = True
        worker.bury_ended()
        return moved

    def advance(self, seconds: float) -> None:
        """Time passes, with a turn of everybody at each deadline."""
        until = self.clock.now + seconds
        while (deadline := self._next_deadline()) is not None and deadline <= until:
            self.clock.now = max(self.clock.now, deadline)
            self._turn()
        self.clock.now = until
        self._turn()

    def _turn(self) -> None:
        self._perform(self.broker.wake(self.clock.now))
        for party in self._routes.values():
            party.turn()
        self.settle()

    def _next_deadline(self) -> float | None:
        deadlines = [party.core.next_deadline() for party in self._routes.values()]
        return min((each for each in (*deadlines, self.broker.next_deadline()) if each is not None), default=None)

    def _perform(self, commands: list[broker_commands.Command]) -> None:
        for command in commands:
            if isinstance(command, broker_commands.Send):
                self._from_broker.append((command.route, command.envelope))
        check_broker(self.broker.state)
        self._credit.check(self.broker.state)

    def leave(self) -> None:
        """The end of a test: all is acknowledged and nothing is left of any task."""
        self.advance(1.1)
        for client in self.clients:
            if client.certificate is None:
                check_client_is_idle(client.core)
        check_broker_is_idle(self.broker.state)
        for worker in self.workers:
            check_worker_is_idle(worker.core.state)
