"""The three real cores, each in a shell that moves its messages through the simulated network instead of sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_never

from netfutures.codec import decode
from netfutures.wire import Envelope, RemoteProtocolError
from netfutures_broker.core import commands as broker_commands
from netfutures_broker.core.scheduler import Scheduler
from netfutures_worker.core import commands as worker_commands
from netfutures_worker.core.state import Identity
from netfutures_worker.core.supervisor import Supervisor
from simulation.child import Child, Packet, Said, Store
from simulation.network import Connection

if TYPE_CHECKING:
    from simulation.world import World

SPINS_MAX = 20
"""Turns in a row with a deadline that is past: more would be a loop that never sleeps."""


class Party:
    """A program with a core: its messages, its turns, and the pauses that it does not notice."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.timeline = world.timeline
        self.name = name
        self.is_alive = True
        self.paused_until = 0.0
        self.inbox: deque[tuple[bytes, list[bytes]]] = deque()
        self.decode: Callable[[list[bytes]], Envelope] = decode
        self._turn_at: float | None = None
        self._spins = 0

    def take(self, route: bytes, frames: list[bytes]) -> None:
        """A message arrives."""
        self.inbox.append((route, frames))
        self.plan_turn(self.timeline.now + 10e-6)

    def plan_turn(self, at: float) -> None:
        """There will be a turn at this time, or before."""
        at = max(at, self.timeline.now, self.paused_until)
        if self._turn_at is None or at < self._turn_at:
            self._turn_at = at
            self.timeline.at(at, self._turn, at)

    def _turn(self, planned: float) -> None:
        if not self.is_alive or planned != self._turn_at:
            return
        self._turn_at = None
        now = self.timeline.now
        if now < self.paused_until:
            self.plan_turn(self.paused_until)
            return
        self.turn(now)
        self.world.auditor.check(self)
        if not self.is_alive:
            return
        if self.inbox:
            self.plan_turn(now + 10e-6)
        deadline = self.next_deadline()
        if deadline is None:
            return
        self._spins = self._spins + 1 if deadline <= now else 0
        if self._spins > SPINS_MAX:
            self.world.auditor.fault(f"{self.name} never sleeps: its deadline {deadline:.6f} is past and stays so")
        self.plan_turn(max(deadline, now + 1e-6))

    def turn(self, now: float) -> None:
        """One turn of the program's loop."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When the core wants a turn."""
        raise NotImplementedError

    def messages(self) -> list[tuple[bytes, Envelope]]:
        """What has come, decoded."""
        received = []
        for _ in range(min(len(self.inbox), self.world.messages_per_turn)):
            route, frames = self.inbox.popleft()
            self.timeline.trace(self.name, "<", frames[0])
            try:
                received.append((route, self.decode(frames)))
            except RemoteProtocolError as error:
                self.garbage(route, str(error))
        return received

    def garbage(self, route: bytes, why: str) -> None:
        """Something has come that is no message."""
        self.world.auditor.fault(f"{self.name} was sent what is no message: {why}")


class Peer(Party):
    """A party that dials out to the broker."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.decode = world.decode
        self.connection: Connection | None = None
        self.unsent: list[list[bytes]] = []
        self.cut = [False, False]
        """What does not get through: to the broker, to the peer."""
        self.held: list[tuple[Connection, int, list[bytes]]] = []
        world.network.connect(self)

    def send(self, envelope: Envelope) -> None:
        """Sends to the broker."""
        self.world.network.send_to_broker(self, envelope)

    def disappear(self, broker_after_s: float) -> None:
        """The process is gone, whatever it was doing; the broker's side of its connection sees it after a while."""
        self.is_alive = False
        self.timeline.trace(self.name, "disappeared")
        if self.connection is not None:
            self.world.network.end(self.connection, 0.0, broker_after_s)


class BrokerParty(Party):
    """The broker's core in its shell."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "broker")
        self.core = Scheduler(self.timeline.random.getrandbits(64))
        self.ended_sessions: set[bytes] = set()

    def turn(self, now: float) -> None:
        for route, envelope in self.messages():
            try:
                self._perform(self.core.receive(route, envelope, now), now)
            except RemoteProtocolError as error:
                self.world.auditor.refused(route, str(error))
                self._perform(self.core.refuse(route, str(error), now), now)
        deadline = self.core.next_deadline()
        if deadline is not None and now >= deadline:
            self._perform(self.core.wake(now), now)
        self._perform(self.core.flush(now), now)

    def next_deadline(self) -> float | None:
        return self.core.next_deadline()

    def garbage(self, route: bytes, why: str) -> None:
        self._perform(self.core.refuse(route, why, self.timeline.now), self.timeline.now)

    def _perform(self, commands: list[broker_commands.Command], now: float) -> None:
        for command in commands:
            match command:
                case broker_commands.Send(route, envelope):
                    if not self.world.network.send_to_peer(route, envelope):
                        self._perform(self.core.unreachable(route, now), now)
                case broker_commands.SessionEnded(session):
                    self.ended_sessions.add(session)
                case broker_commands.Note(text):
                    self.timeline.trace(self.name, f"# {text}")
                case _:
                    assert_never(command)


class WorkerParty(Peer):
    """A worker's core in its shell, with simulated children."""

    def __init__(self, world: World, name: str, slots: int) -> None:
        super().__init__(world, name)
        randbytes = self.timeline.random.randbytes
        identity = Identity(randbytes(16), randbytes(16), f"host of {name}", 4000 + len(world.workers), {})
        self.core = Supervisor(identity, slots, Store)
        self.children: dict[int, Child] = {}
        self._commands: deque[worker_commands.Command] = deque()
        now = self.timeline.now
        self._perform(self.core.connect(now), now)
        self.plan_turn(now)

    def turn(self, now: float) -> None:
        for _, envelope in self.messages():
            self.world.auditor.worker_receives(self, envelope)
            self._perform(self.core.receive(envelope, now), now)
        for slot, child in list(self.children.items()):
            if self.children.get(slot) is child:
                self._attend(slot, child, now)
        deadline = self.core.next_deadline()
        if deadline is not None and now >= deadline:
            self._perform(self.core.wake(now), now)
        self._perform(self.core.flush(now), now)

    def next_deadline(self) -> float | None:
        return self.core.next_deadline()

    def die(self, broker_after_s: float) -> None:
        """The worker's process is killed, and its children with it."""
        self.disappear(broker_after_s)
        for child in self.children.values():
            child.kill()

    def _attend(self, slot: int, child: Child, now: float) -> None:
        if child.is_dead:
            self._hear(slot, child.harvest(), now)
            self._perform([], now)
            del self.children[slot]
            certificate = {"host": self.core.state.identity.host, "slot": slot, **child.certificate}
            self._perform(self.core.exited(slot, certificate, child.claim, now), now)
        elif child.said and not child.is_muted:
            heard = child.hear(self.timeline.random.randint(1, 4))
            self._hear(slot, heard, now)
            self._perform([], now)
            if child.said:
                self._changed()

    def _changed(self) -> None:
        self.plan_turn(self.timeline.now + 10e-6)

    def _hear(self, slot: int, heard: list[Said], now: float) -> None:
        core, commands = self.core, self._commands
        for said in heard:
            match said.kind:
                case "results":
                    commands.extend(core.results(slot, said.first, list(said.outcomes), said.microseconds, now))
                case "output":
                    commands.extend(core.output(slot, said.first, said.stream, said.text, now))
                case "stopped":
                    commands.extend(core.stopped(slot, said.first, now))
                case "ready":
                    commands.extend(core.ready(slot, self.children[slot].pid, self.world.nature.exact, now))
                case "failed":
                    commands.extend(core.failed(slot, said.text.decode(), now))

    def _perform(self, commands: list[worker_commands.Command], now: float) -> None:
        self._commands.extend(commands)
        while self._commands:
            self._perform_one(self._commands.popleft(), now)

    def _perform_one(self, command: worker_commands.Command, now: float) -> None:
        children = self.children
        match command:
            case worker_commands.Send(envelope):
                self.send(envelope)
            case worker_commands.GiveTasks(slot, number, first, payloads):
                children[slot].give(Packet("tasks", now, first, number, payloads, self._dispatches(slot, first)))
            case worker_commands.GiveFunction(slot, number, payload, _):
                children[slot].give(Packet("function", now, 0, number, [payload]))
            case worker_commands.Look(slot):
                self._commands.extend(self.core.looked(slot, children[slot].look(), now))
            case worker_commands.TakeBack(slot):
                self._commands.extend(self.core.revoked(slot, *children[slot].revoke(), now))
                self._hear(slot, children[slot].harvest(), now)
            case worker_commands.Harvest(slot):
                self._hear(slot, children[slot].harvest(), now)
            case worker_commands.StartChild(slot, initializer):
                assert slot not in children, "a child was started in a slot that has one"
                children[slot] = Child(self.world, self.name, self.world.next_pid(), initializer, self._changed)
            case worker_commands.EndChild(slot):
                children[slot].give(Packet("finish", now))
            case worker_commands.KillChild(slot):
                children[slot].kill()
            case worker_commands.Mute(slot) | worker_commands.Unmute(slot):
                children[slot].is_muted = isinstance(command, worker_commands.Mute)
                self._changed()
            case worker_commands.Note(text):
                self.timeline.trace(self.name, f"# {text}")
            case worker_commands.Refusal(reason):
                self.world.auditor.fault(f"the broker has refused {self.name}: {reason}")
            case _:
                assert_never(command)

    def _dispatches(self, slot: int, first: int) -> list[int]:
        """The dispatch numbers of the tasks that a child is given."""
        packet: Any = next(each for each in self.core.state.slots[slot].packets if each.first == first)
        start = packet.work.holding.base + packet.work.offset
        return list(range(start, start + packet.work.count))
