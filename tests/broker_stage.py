"""The broker's core among clients and workers whose every word a test writes."""

from collections.abc import Sequence
from typing import Any

from checks import CreditWatch, check_broker
from inbox import EPOCH, FUNCTION, VERSION, FakeClock, Inbox, through_codec
from netfutures.conversation import Conversation
from netfutures.fields import Dispatched, Payload, SubmittedRun
from netfutures.wire import (
    Acknowledge,
    Cancelled,
    ClientHello,
    Envelope,
    Finished,
    Message,
    RemoteProtocolError,
    Results,
    Submit,
    TakenBack,
    Tasks,
    Welcome,
    WorkerHello,
)
from netfutures_broker.core.commands import Command, Note, Send, SessionEnded
from netfutures_broker.core.scheduler import Scheduler


class Peer(Inbox):
    """A client or worker that a test plays towards the broker."""

    def __init__(self, stage: "BrokerStage", name: str) -> None:
        super().__init__(name)
        self.stage = stage
        self.route = b"route of " + name.encode()

    def say(self, message: Message, *, batch: bool = False) -> None:
        """Says something on its present connection; the broker's turn follows."""
        self.stage.receive(self.route, Envelope(*self.conversation.stamp(batch), message))

    def lose(self, message: Message, *, batch: bool = False) -> None:
        """Says something that never arrives."""
        self.conversation.stamp(batch)

    def acknowledge(self) -> None:
        """Says nothing but its numbers."""
        self.say(Acknowledge())

    def new_connection(self) -> None:
        """The next hello is that of another connection."""
        self.conversation = Conversation(self.conversation.connection + 1)


class ClientPeer(Peer):
    """A client that a test plays."""

    next_number = 1

    def hello(self, *, reconnect_timeout_s: float = 60.0, initializer: Payload | None = None, **settings: Any) -> None:
        """Opens its session or comes back to it, and is welcome."""
        self.new_connection()
        self.say(ClientHello(VERSION, self.identity, self.token, {}, reconnect_timeout_s, settings, initializer))
        self.take(Welcome)

    def submission(self, *payloads: Payload, options: dict[str, Any] | None = None, digest: bytes = FUNCTION) -> Submit:
        """The message that submits one run of new tasks."""
        first, self.next_number = self.next_number, self.next_number + len(payloads)
        return Submit(EPOCH, [(digest, b"code", True)], [(first, digest, options, list(payloads))])

    def submit(self, *payloads: Payload, options: dict[str, Any] | None = None) -> None:
        """Submits one run of new tasks."""
        self.say(self.submission(*payloads, options=options), batch=True)

    def results(self) -> dict[int, Payload]:
        """All outcomes that came, by task number; none came twice."""
        found: dict[int, Payload] = {}
        for message in self.take_all(Results):
            for first, outcomes in message.runs:
                for number, outcome in enumerate(outcomes, first):
                    assert number not in found, f"two outcomes of task {number}"
                    found[number] = outcome
        return found

    def cancelled(self) -> list[int]:
        """The numbers of all tasks that were given back."""
        return sorted(
            number
            for message in self.take_all(Cancelled)
            for first, count in message.numbers
            for number in range(first, first + count)
        )


class WorkerPeer(Peer):
    """A worker that a test plays; it holds what it was handed until the test says how it ended."""

    credit = 4

    def __init__(self, stage: "BrokerStage", name: str) -> None:
        super().__init__(stage, name)
        self.runs: list[SubmittedRun] = []

    def hello(
        self,
        *,
        credit: int | None = None,
        slots: int = 2,
        held: Sequence[Dispatched] = (),
        finished: Sequence[Dispatched] = (),
        sessions: Sequence[bytes] = (),
    ) -> None:
        """Registers or comes back, and is welcome."""
        self.credit = self.credit if credit is None else credit
        self.new_connection()
        self.say(
            WorkerHello(
                protocol=VERSION,
                worker=self.identity,
                token=self.token,
                versions={},
                host=f"host of {self.name}",
                pid=4000,
                slots=slots,
                credit_tasks=self.credit,
                sessions=list(sessions),
                held=list(held),
                finished=list(finished),
            )
        )
        self.take(Welcome)

    def handed(self) -> list[SubmittedRun]:
        """The runs that were handed to it since this was last asked."""
        runs = [run for message in self.take_all(Tasks) for run in message.runs]
        self.runs += runs
        return runs

    def payloads(self) -> list[Payload]:
        """The payloads of the tasks that were handed to it since this was last asked."""
        return [payload for run in self.handed() for payload in run[3]]

    def finish(self, base: int, *outcomes: Payload, offset: int = 0) -> None:
        """Says that consecutive tasks of a dispatch have ended."""
        self.say(Finished(self.credit, [(base, offset, list(outcomes))]), batch=True)

    def take_back(self, request: int, *dispatched: Dispatched) -> None:
        """Answers a `Cancel`."""
        self.say(TakenBack(request, list(dispatched)), batch=True)


class BrokerStage:
    """The broker's core among peers that a test plays."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.core = Scheduler(EPOCH)
        self.peers: dict[bytes, Peer] = {}
        self.notes: list[str] = []
        self.ended: list[bytes] = []
        self.is_in_turn = False
        self._credit = CreditWatch()

    def client(self, name: str = "client", **settings: Any) -> ClientPeer:
        """A client that has said hello."""
        peer = ClientPeer(self, name)
        self.peers[peer.route] = peer
        peer.hello(**settings)
        return peer

    def worker(self, name: str = "worker", *, credit: int = 4, slots: int = 2) -> WorkerPeer:
        """A worker that has said hello."""
        peer = WorkerPeer(self, name)
        self.peers[peer.route] = peer
        peer.hello(credit=credit, slots=slots)
        return peer

    def stranger(self, name: str = "stranger") -> Peer:
        """Somebody who has said nothing yet."""
        peer = Peer(self, name)
        self.peers[peer.route] = peer
        return peer

    def receive(self, route: bytes, envelope: Envelope) -> None:
        """One message, and the turn that it brings."""
        self.perform(self.core.receive(route, through_codec(envelope), self.clock.now))
        if not self.is_in_turn:
            self.flush()

    def flush(self) -> None:
        """The end of a turn."""
        self.perform(self.core.flush(self.clock.now))

    def advance(self, seconds: float, *, sleeping: bool = False) -> None:
        """Time passes, with a turn at each deadline; `sleeping`: the broker itself does not run meanwhile."""
        until = self.clock.now + seconds
        while not sleeping:
            deadline = self.core.next_deadline()
            if deadline is None or deadline > until:
                break
            self.clock.now = max(self.clock.now, deadline)
            self._turn()
        self.clock.now = until
        self._turn()

    def _turn(self) -> None:
        self.perform(self.core.wake(self.clock.now))
        self.flush()

    def perform(self, commands: list[Command]) -> None:
        """Does what the core decides."""
        for command in commands:
            match command:
                case Send(route, envelope):
                    if route in self.peers:
                        self._deliver(self.peers[route], envelope)
                case Note(text):
                    self.notes.append(text)
                case SessionEnded(session):
                    self.ended.append(session)
        check_broker(self.core.state)
        self._credit.check(self.core.state)

    def _deliver(self, peer: Peer, envelope: Envelope) -> None:
        try:
            peer.hear(envelope)
        except RemoteProtocolError as error:
            raise AssertionError(f"{peer.name} cannot read {envelope}") from error

    def leave(self) -> None:
        """The end of a test."""
        for peer in self.peers.values():
            peer.refuse_unclaimed()
