"""A simulated child and its worker's side of it: the claim and limit words, packets, a ring, and death at any moment.

It keeps the rules of `netfutures_worker.channel`. What it does between two looks at it is caught up with when somebody
looks, so a packet of tiny tasks costs one event, and yet can be cut or killed in its middle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from netfutures.fields import Reference
from netfutures_worker.core.commands import Given
from simulation.calls import CALL, Execution

if TYPE_CHECKING:
    from simulation.world import World

NO_LIMIT = 1 << 63
WAKE_S = 20e-6
"""From a packet's arrival until an idle child has read it."""


class Store:
    """Where a payload that is pulled in chunks gathers."""

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


def in_bytes(payload: Given) -> bytes:
    """The bytes of a payload; a reference must never reach a child."""
    assert not isinstance(payload, Reference), "a child was given a reference"
    if isinstance(payload, Store):
        assert payload.is_sealed, "a child was given a payload that is not whole"
        return bytes(payload.content)
    return bytes(payload)  # type: ignore[arg-type]  # what is no Store here is bytes-like


def seconds_of(payload: Given) -> float:
    """How long the call in this payload takes."""
    microseconds: int = CALL.unpack_from(in_bytes(payload))[3]
    return microseconds / 1e6


class Packet(NamedTuple):
    """A packet on the way to the child."""

    kind: str
    given_at: float
    first: int = 0
    function: int = 0
    payloads: Sequence[Given] = ()
    dispatches: Sequence[int] = ()


class Said(NamedTuple):
    """A record on the way to the worker."""

    kind: str
    first: int = 0
    outcomes: Sequence[bytes] = ()
    microseconds: int = 0
    stream: int = 1
    text: bytes = b""


@dataclass
class Nature:
    """How the children of this world are."""

    exact: bool = True
    start_s: float = 0.003
    failing_initializers: frozenset[bytes] = frozenset()
    hangs_at_end: float = 0.0


class Child:
    """One life of a child."""

    def __init__(self, world: World, worker: str, pid: int, initializer: Given | None, changed: Callable[[], None]):
        self.world = world
        self.worker = worker
        self.pid = pid
        self.client: int | None = None
        """Whose calls it runs; known with the first."""
        self.initializer = None if initializer is None else in_bytes(initializer)
        self.unread: deque[Packet] = deque()
        self.said: deque[Said] = deque()
        self.is_dead = False
        self.is_muted = False
        self.exit_code: int | None = None
        self.starts = 0
        self.functions: dict[int, bytes] = {}
        self.claim = 0
        self._limit = NO_LIMIT
        self._resume = 0
        self._next_index = 1
        self._clock = world.timeline.now
        self._changed = changed
        self._packet: Packet | None = None
        self._at = 0
        self._running: Execution | None = None
        self._running_until = 0.0
        self._dies_at = math.inf
        self._region: list[bytes] = []
        self._region_first = 0
        self._heard_to = 0
        self._packet_began = 0.0
        self._packet_until = 0.0
        self._planned: float | None = None
        self.unread.append(
            Packet("prepare", self._clock + world.nature.start_s * (0.5 + world.timeline.random.random()))
        )
        self._plan()

    # What the worker does to it.

    def give(self, packet: Packet) -> None:
        """Puts a packet into its socket."""
        if packet.kind == "tasks":
            assert packet.first >= self._next_index, "an index was given twice"
            self._next_index = packet.first + len(packet.payloads)
        self.unread.append(packet)
        self._plan()

    def look(self) -> int:
        """Reads the claim."""
        self.catch_up()
        if self.said:
            self._changed()
        return self._seen_claim()

    def revoke(self) -> tuple[int, list[int], list[int]]:
        """Takes back what has not started: the claim, and what was unread."""
        self.catch_up()
        claim = self.claim
        limit = claim + 1
        if self._limit != NO_LIMIT and claim < self._resume:
            limit = min(limit, self._limit)
        self._limit, self._resume = limit, self._next_index
        tasks = [packet.first for packet in self.unread if packet.kind == "tasks"]
        functions = [packet.function for packet in self.unread if packet.kind == "function"]
        self.unread = deque(packet for packet in self.unread if packet.kind not in ("tasks", "function"))
        self._plan()
        return self._seen_claim(), tasks, functions

    def _seen_claim(self) -> int:
        """Without a memory barrier the worker may see an older one."""
        if self.world.nature.exact or self.is_dead:
            return self.claim
        return max(0, self.claim - self.world.timeline.random.randrange(3))

    def hear(self, count_max: int) -> list[Said]:
        """What it has said, each result once."""
        heard: list[Said] = []
        while self.said and len(heard) < count_max:
            self._hear(self.said.popleft(), heard)
        return heard

    def harvest(self) -> list[Said]:
        """All that it has said and published."""
        self.catch_up()
        heard = self.hear(len(self.said))
        if self._region:
            self._hear(Said("results", self._region_first, list(self._region)), heard)
        return heard

    def _hear(self, said: Said, heard: list[Said]) -> None:
        if said.kind == "results":
            known = max(0, self._heard_to + 1 - said.first)
            if known >= len(said.outcomes):
                return
            self._heard_to = said.first + len(said.outcomes) - 1
            said = said._replace(first=said.first + known, outcomes=said.outcomes[known:])
        heard.append(said)

    def kill(self, exit_code: int | None = None) -> None:
        """Ends it at once, wherever it is."""
        if self.is_dead:
            return
        if self._dies_at > self.world.timeline.now:
            self.catch_up()
        self.is_dead = True
        self.exit_code = exit_code
        if self._running is not None:
            self.world.auditor.died(self._running)
        self.world.timeline.trace(self.worker, f"child {self.pid} died")
        self.world.timeline.after(WAKE_S * 5, self._changed)

    # What it does by itself.

    def catch_up(self) -> None:
        """Does everything that it has done by now."""
        now = self.world.timeline.now
        while not self.is_dead:
            if self._running is not None:
                if min(self._running_until, self._dies_at) > now:
                    return
                if self._dies_at < self._running_until:
                    self.kill()
                    return
                self._finish_task(self._running)
                if self._dies_at == self._running_until:
                    self.kill()  # What it has published is there; no note of it was sent.
            elif self._packet is not None:
                self._next_task(self._packet)
            elif self.unread and max(self._clock, self.unread[0].given_at + WAKE_S) <= now:
                packet = self.unread.popleft()
                self._clock = max(self._clock, packet.given_at + WAKE_S)
                self._read(packet)
            else:
                return

    def _read(self, packet: Packet) -> None:
        match packet.kind:
            case "tasks":
                self._packet, self._at = packet, 0
                self._packet_began = self._clock
                self._packet_until = self._clock + sum(map(seconds_of, packet.payloads))
            case "function":
                self.functions[packet.function] = in_bytes(packet.payloads[0])
            case "prepare":
                self._prepare()
            case "finish":
                if self.world.timeline.chance(self.world.nature.hangs_at_end):
                    self._clock += 3600.0
                    return
                self.kill(0)

    def _prepare(self) -> None:
        if self.initializer is not None and self.initializer in self.world.nature.failing_initializers:
            self.said.append(Said("failed", text=b"the initializer raised"))
            self.kill(1)
            return
        self.said.append(Said("ready"))

    def _next_task(self, packet: Packet) -> None:
        index = packet.first + self._at
        if self._at == len(packet.payloads):
            self._note()
            self._packet = None
            return
        self.claim = index
        if self._limit <= index < self._resume or packet.function not in self.functions:
            self._note()
            self._packet = None
            self.claim = index - 1
            self.said.append(Said("stopped", index))
            return
        payload = in_bytes(packet.payloads[self._at])
        execution = self.world.auditor.started(self, payload, packet.dispatches[self._at], self._clock)
        self._running = execution
        self._running_until = self._clock + execution.call.microseconds / 1e6
        is_poison = execution.call.number in self.world.poison
        doom = 0.5 if is_poison else self.world.dooms.get(execution.number)
        if doom is not None:
            self.world.killed_children.add(self.pid)
            self._dies_at = self._clock + doom * (self._running_until - self._clock)

    def _finish_task(self, execution: Execution) -> None:
        self._clock = self._running_until
        self._running = None
        call = execution.call
        index = self.claim
        for _ in range(call.written):
            self.said.append(Said("output", index, stream=1 + call.number % 2, text=execution.text()))
        self.world.auditor.finished(execution, self._clock)
        self._at += 1
        if call.outcome_bytes > 65536:
            self._note()
            self.said.append(Said("results", index, [execution.outcome()], call.microseconds))
            return
        if not self._region:
            self._region_first = index
        self._region.append(execution.outcome())

    def _note(self) -> None:
        if self._region:
            microseconds = int((self._clock - self._packet_began) * 1e6) or 1
            self._packet_began = self._clock
            self.said.append(Said("results", self._region_first, self._region, microseconds))
            self._region = []

    # When somebody has to look at it.

    def _plan(self) -> None:
        if self.is_dead or not (self._running or self._packet or self.unread):
            return
        at = self._next_event()
        if self._planned is None or at < self._planned:
            self._planned = at
            self.world.timeline.at(at, self._wake, at)

    def _next_event(self) -> float:
        if self._running is not None:
            until = self._running_until if self._limit != NO_LIMIT else max(self._running_until, self._packet_until)
            return min(until, self._dies_at)
        return self._clock if self._packet is not None else max(self._clock, self.unread[0].given_at + WAKE_S)

    def _wake(self, planned: float) -> None:
        if self.is_dead or planned != self._planned:
            return
        self._planned = None
        self.catch_up()
        if self.said:
            self._changed()
        self._plan()

    @property
    def certificate(self) -> dict[str, Any]:
        """How it died."""
        return {"pid": self.pid, "exit_code": self.exit_code, "signal": None if self.exit_code is not None else 9}
