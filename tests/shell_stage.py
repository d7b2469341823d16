"""Shells over ZeroMQ in one loop of a test: the real broker, a client, hand-written peers, and workers beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from checks import check_broker
from inbox import Inbox
from netfutures.client.core.commands import Break, Command, Connected, Ended, Print, Send, Settle
from netfutures.client.core.ledger import CallRun
from netfutures.client.core.session import Session, SessionIdentity
from netfutures.client.functions import FunctionTable
from netfutures.client.io_thread import Mapped
from netfutures.conversation import Conversation
from netfutures.fields import Blob
from netfutures.link import Link
from netfutures.payload import dump_call, load_outcome
from netfutures.poller import Poller
from netfutures.transport import DealerLink, KeyPair, RouterLink
from netfutures.wire import Envelope, Message
from netfutures_broker.core.scheduler import Scheduler
from netfutures_broker.shell import BrokerShell

LIMIT_S = 30.0
WORKER_PROGRAM = Path(__file__).with_name("worker_program.py")
M = TypeVar("M", bound=Message)

clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Shell(Protocol):
    """What a loop turns: a real shell, or a peer that a test plays."""

    def step(self) -> None:
        """One turn."""

    def is_ready(self) -> bool:
        """Whether something has come for the next turn."""

    def deadline(self) -> float | None:
        """When the next turn is due although nothing comes."""


class Loop:
    """Turns shells when something has come for them or their time has, as each program does it for its own."""

    def __init__(self) -> None:
        self._poller = Poller()
        self._shells: dict[int, Shell] = {}

    def add(self, fd: int, shell: Shell) -> None:
        """A shell takes part, with the descriptor that wakes it."""
        self._shells[fd] = shell
        self._poller.watch(fd, _nothing)

    def remove(self, fd: int) -> None:
        """It does not any more."""
        if self._shells.pop(fd, None) is not None:
            self._poller.unwatch(fd)

    def run_until(self, holds: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Turns until something holds."""
        end = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < end, "it did not come to that in time"
            self._turn()

    def _turn(self) -> None:
        shells = self._shells.values()
        ready = [shell for shell in shells if shell.is_ready()]
        if not ready and not self._poller.wait(self._timeout_s()):
            ready = [*shells]
        for shell in ready:
            shell.step()

    def _timeout_s(self) -> float:
        deadlines = filter(None, [shell.deadline() for shell in self._shells.values()])
        return min(1.0, max(0.0, min(deadlines, default=clock() + 1) - clock()))

    def close(self) -> None:
        self._poller.close()


def _nothing() -> None:
    """Being woken is all that was wanted."""


class Broker:
    """The real broker, whose state is checked after each turn."""

    def __init__(self, loop: Loop, keys: KeyPair | None = None) -> None:
        self.core = Scheduler(int.from_bytes(os.urandom(7), "little"))
        self.ended: list[bytes] = []
        self._router = RouterLink("tcp://127.0.0.1:*", keys=keys)
        self.endpoint = self._router.endpoint
        self._shell = BrokerShell(self.core, {}, clock, self.ended.append, self._router)
        self.is_ready = self._shell.is_ready
        self.deadline = self._shell.deadline
        loop.add(self._router.fd, self)

    def step(self) -> None:
        self._shell.step()
        check_broker(self.core.state)

    def close(self) -> None:
        self._router.close()


class Peer(Inbox):
    """A party that a test plays, on a link of its own."""

    def __init__(self, loop: Loop, name: str, link: DealerLink | RouterLink) -> None:
        super().__init__(name)
        self.link: Link = link
        self.fd = link.fd
        self.route = b""
        self._loop = loop
        loop.add(link.fd, self)

    def say(self, message: Message, *, batch: bool = False) -> None:
        """Says something on its present connection."""
        self.link.send(self.route, Envelope(*self.conversation.stamp(batch), message))

    def open(self, hello: Message) -> None:
        """Says hello with a new connection number."""
        self.conversation = Conversation(self.conversation.connection + 1)
        self.say(hello)

    def await_message(self, kind: type[M]) -> M:
        """The next message of this kind."""
        self._loop.run_until(lambda: self.has(kind))
        return self.take(kind)

    def step(self) -> None:
        while (received := self.link.receive()) is not None:
            self.route = received.route
            self.hear(received.envelope)

    def is_ready(self) -> bool:
        return self.link.is_ready()

    def deadline(self) -> None:
        return None

    def vanish(self) -> None:
        """Ends its connection, without a word."""
        self._loop.remove(self.fd)
        self.link.close()


class Call:
    """What a client keeps for a task: its number, once it has one, and its outcome."""

    outcome: Any = None


class Client:
    """The client's core on a link of its own."""

    def __init__(
        self, loop: Loop, link: DealerLink, *, reconnect_timeout_s: float = 60.0, retries: int | None = None
    ) -> None:
        settings = {"max_tasks_per_child": None, "retries": retries}
        identity = SessionIdentity(os.urandom(16), os.urandom(16), {}, settings, None, bytes(16), reconnect_timeout_s)
        self.core = Session(identity, Mapped)
        self.printed = b""
        self.broken: dict[str, Any] | None = None
        self.is_connected = False
        self.has_ended = False
        self._loop = loop
        self._link = link
        self._fd = link.fd
        self._functions = FunctionTable()
        self._queue: deque[tuple[Blob, CallRun]] = deque()
        loop.add(link.fd, self)
        self._perform(self.core.connect(clock()))

    def submit(self, fn: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Call]:
        """A call for each of the arguments."""
        function = self._functions.find(fn)
        calls = [Call() for _ in arguments]
        payloads: list[Any] = [dump_call(each, {}) for each in arguments]
        run = CallRun(function.digest, None, calls, payloads)
        self._queue.append(((function.digest, function.payload, function.cacheable), run))
        self.step()
        return calls

    def results(self, calls: list[Call]) -> list[Any]:
        """What they return, once all have."""
        self._loop.run_until(lambda: all(call.outcome is not None for call in calls) or self.broken is not None)
        assert self.broken is None, self.broken
        values = []
        for call in calls:
            value, error = load_outcome(call.outcome)
            if error is not None:
                raise error
            values.append(value)
        return values

    def leave(self) -> None:
        """Says goodbye, and waits for the answer."""
        self._perform(self.core.goodbye("the test is over", clock()))
        self._loop.run_until(lambda: self.has_ended or self.broken is not None)
        self.vanish()

    def vanish(self) -> None:
        """Ends its connection, without a word more."""
        self._loop.remove(self._fd)
        self._link.close()

    def step(self) -> None:
        now = clock()
        while (received := self._link.receive()) is not None:
            self._perform(self.core.receive(received.envelope, now))
        while self._queue and self.core.room[0] >= len(self._queue[0][1].calls):
            blob, run = self._queue.popleft()
            self._perform(self.core.submit([blob], [run], now))
            self._perform(self.core.flush(now))
        deadline = self.core.next_deadline()
        if deadline is not None and now >= deadline:
            self._perform(self.core.wake(now))
        self._perform(self.core.flush(now))

    def is_ready(self) -> bool:
        return self._link.is_ready()

    def deadline(self) -> float | None:
        return self.core.next_deadline()

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(envelope):
                    self._link.send(b"", envelope)
                case Settle(_, calls, outcomes):
                    for call, outcome in zip(calls, outcomes, strict=True):
                        assert call.outcome is None, "a task has ended twice"
                        call.outcome = outcome
                case Print(_, _, text):
                    self.printed += text
                case Break(certificate, _):
                    self.broken = certificate
                case Connected():
                    self.is_connected = True
                case Ended():
                    self.has_ended = True


@contextmanager
def worker(endpoint: str, slots: int = 1, keys: tuple[bytes, KeyPair] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own, which ends in good order with its stdin; what it logs is in its stderr."""
    words = [] if keys is None else [keys[0].decode(), *(key.decode() for key in keys[1])]
    command = [sys.executable, str(WORKER_PROGRAM), endpoint, str(slots), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
            process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
