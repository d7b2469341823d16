"""The nemesis of a simulated world: what goes wrong, drawn from the seed; another mixture for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from netfutures.limits import LEASE_S, PAUSE_S, SUSPECT_AFTER_S
from simulation.client import ClientParty
from simulation.parties import Peer, WorkerParty

if TYPE_CHECKING:
    from simulation.world import World

SHORT_S, MIDDLE_S, LONG_S = (0.01, 1.0), (2.5, 25.0), (31.0, 45.0)
UNHEARD_S = 4.0
"""Between two beats, and while a connection comes back, nothing is heard either."""
REPLACED_S = (0.1, 3.0)
RECONNECTS_SAFELY_S = PAUSE_S - 0.5
"""A worker whose connection has ended and is back after this time is not given up."""


class Nemesis:
    """Plans the faults of a run, and notes what may be lost because of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.timeline.random
        self.span_s = self.random.choice((1.0, 3.0, 10.0))
        """During this time users submit and faults happen."""
        self.over_at = self.span_s
        self.aims = self.random.random() < 0.4
        """Connections break while something important is under way."""
        self.happened: list[str] = []
        self._whole_at: dict[str, float] = {}
        """Until when peers suffer from something; what happens to them meanwhile adds up."""

    def plan(self) -> None:
        """Everything that will go wrong."""
        random, world = self.random, self.world
        for _ in range(random.randint(1, 3)):
            world.add_worker(random.randint(1, 4))
        self._plan_hostility()
        kinds: list[Callable[[], None]] = [
            self.break_connection, self.break_half, self.cut, self.cut_one_way, self.kill_child, self.kill_worker,
            self.kill_client, self.pause_broker, self.pause_peer, self.speak_nonsense, self.add_worker,
            self.add_rogue,
        ]  # fmt: skip
        mixture = random.sample(kinds, random.randint(0, 4))
        for _ in range(random.randint(0, 6) if mixture else 0):
            world.timeline.at(random.random() * self.span_s, random.choice(mixture))
        if random.random() < 0.4:
            for _ in range(random.randint(1, 4)):
                world.dooms[int(random.random() ** 2 * 200)] = random.choice((0.0, 0.5, 1.0, 1.0))
        world.timeline.at(self.span_s, self._end)

    def _plan_hostility(self) -> None:
        random, hostility = self.random, self.world.network.hostility
        hostility.latency_s = random.choice((20e-6, 100e-6, 1e-3, 30e-3))
        if random.random() < 0.3:
            hostility.spike, hostility.spike_s = 0.02, random.choice((0.01, 0.3, 1.0))
        if random.random() < 0.3:
            hostility.repeat = 0.02
        if random.random() < 0.25:
            hostility.drop = random.choice((0.002, 0.01, 0.03))

    def _end(self) -> None:
        """No new faults from now on; those that have a length run out."""
        hostility = self.world.network.hostility
        hostility.drop = hostility.repeat = hostility.spike = 0.0
        self.world.dooms.clear()
        if not self.world.live_workers():
            self.world.add_worker(2)

    def _note(self, what: str, lasts_s: float = 0.0) -> None:
        self.happened.append(what)
        self.world.timeline.trace("nemesis", what)
        self.over_at = max(self.over_at, self.world.timeline.now + lasts_s)

    def _length_s(self) -> float:
        return self.random.uniform(*self.random.choice((SHORT_S, SHORT_S, MIDDLE_S, LONG_S)))

    def _suffers(self, peer: Peer, lasts_s: float, *, bearable_s: float) -> None:
        """Something happens to the peer for a while; if that is too long, or too much, it may be given up."""
        now = self.world.timeline.now
        whole_at = self._whole_at.get(peer.name, 0.0)
        self._whole_at[peer.name] = max(whole_at, now + lasts_s + UNHEARD_S)
        if now < whole_at or lasts_s > bearable_s:
            self.world.network.excuse(peer, "too much has happened to it")

    def _silence(self, peer: Peer, lasts_s: float) -> None:
        """The peer hears nothing for so long; a client gives up when that is too long for it."""
        if isinstance(peer, ClientParty) and lasts_s > peer.wishes.reconnect_timeout_s - UNHEARD_S:
            self.world.network.excuse(peer, "it heard nothing for long")

    def _peer(self) -> Peer | None:
        peers: list[Peer] = [*self.world.live_workers(), *self.world.live_clients()]
        return self.random.choice(peers) if peers else None

    # The faults.

    def break_connection(self) -> None:
        """A connection ends, both sides see it, and the peer is back at once."""
        peer = self._peer()
        if peer is not None:
            self._break_connection_of(peer)

    def aim_at(self, peer: Peer, probability: float) -> None:
        """The connection of this peer breaks around a message, if this is such a world."""
        if self.aims and self.random.random() < probability and self.world.timeline.now < self.span_s:
            delay_s = self.world.network.hostility.latency_s * self.random.choice((0.5, 0.5, 4)) * self.random.random()
            delay_s += self.random.choice((0.0, 0.0, 0.01))
            self.world.timeline.after(delay_s, self._break_connection_of, peer)

    def _break_connection_of(self, peer: Peer) -> None:
        if peer.is_alive and peer.connection is not None:
            self._note(f"connection of {peer.name} breaks", 1.0)
            self._suffers(peer, 0.0, bearable_s=1.0)
            self.world.network.end(peer.connection, self.random.random() * 0.01, self.random.random() * 0.01)

    def break_half(self) -> None:
        """A connection ends, and one side does not see it for long."""
        peer = self._peer()
        if peer is None or peer.connection is None:
            return
        late_s = self.random.uniform(0.5, 40.0)
        self._note(f"connection of {peer.name} half breaks for {late_s:.1f} s", late_s)
        self._silence(peer, late_s)
        if self.random.random() < 0.5:
            self._suffers(peer, 0.0, bearable_s=1.0)
            self.world.network.end(peer.connection, 0.0, late_s)
        else:
            self._suffers(peer, late_s, bearable_s=0.0)
            self.world.network.end(peer.connection, late_s, 0.0)

    def cut(self) -> None:
        """A peer is cut off: nothing gets through, and later the connection may be found to have ended."""
        self._cut([True, True])

    def cut_one_way(self) -> None:
        """Nothing gets through in one direction."""
        self._cut(self.random.choice(([True, False], [False, True])))

    def _cut(self, directions: list[bool]) -> None:
        peer, lasts_s = self._peer(), self._length_s()
        if peer is None:
            return
        self._note(f"{peer.name} is cut off {directions} for {lasts_s:.2f} s", lasts_s + 1.0)
        peer.cut = directions
        ends = self.random.random() < 0.5
        self._silence(peer, lasts_s)
        self._suffers(peer, lasts_s, bearable_s=RECONNECTS_SAFELY_S if ends else LEASE_S - 5.0)
        if ends and peer.connection is not None:
            moment = self.random.random() * 0.3
            self.world.timeline.after(moment * lasts_s, self.world.network.end, peer.connection, 0.0, 0.0)
        self.world.timeline.after(lasts_s, self.world.network.heal, peer)

    def kill_child(self) -> None:
        """A child is killed, whatever it does."""
        children = [child for worker in self.world.live_workers() for child in worker.children.values()]
        living = [child for child in children if not child.is_dead]
        if living:
            child = self.random.choice(living)
            self._note(f"child {child.pid} is killed")
            self.world.killed_children.add(child.pid)
            child.kill()

    def kill_worker(self) -> None:
        """A worker is killed, and another one started later."""
        workers = self.world.live_workers()
        if not workers:
            return
        worker = self.random.choice(workers)
        self._note(f"{worker.name} is killed", REPLACED_S[1])
        self.world.network.excuse(worker, "it was killed")
        self.world.killed_children.update(child.pid for child in worker.children.values())
        worker.die(self.random.choice((0.001, 0.001, 20.0)))
        self.world.timeline.after(self.random.uniform(*REPLACED_S), self.world.add_worker, self.random.randint(1, 3))

    def kill_client(self) -> None:
        """A client is killed."""
        clients = self.world.live_clients()
        if clients:
            client = self.random.choice(clients)
            self._note(f"{client.name} is killed")
            client.disappear(self.random.choice((0.001, 0.001, 20.0)))

    def pause_broker(self) -> None:
        """The broker is stopped for a while."""
        self._pause_for(self.random.uniform(0.5, 40.0))

    def _pause_for(self, lasts_s: float) -> None:
        self._note(f"the broker is stopped for {lasts_s:.1f} s", lasts_s)
        for client in self.world.live_clients():
            self._silence(client, lasts_s)
        for worker in self.world.live_workers():
            self._suffers(worker, lasts_s, bearable_s=math.inf)
        self.world.broker.paused_until = self.world.timeline.now + lasts_s

    def pause_peer(self) -> None:
        """A client or a worker is stopped for a while; its children go on."""
        peer, lasts_s = self._peer(), self._length_s()
        if peer is None:
            return
        self._note(f"{peer.name} is stopped for {lasts_s:.2f} s", lasts_s)
        if isinstance(peer, WorkerParty):
            self._suffers(peer, lasts_s, bearable_s=LEASE_S - SUSPECT_AFTER_S)
        peer.paused_until = self.world.timeline.now + lasts_s

    def speak_nonsense(self) -> None:
        """Strangers send the broker what is no message, or one that they have seen, with bytes changed."""
        random = self.random
        self._note("strangers speak")
        for _ in range(20):
            frames = random.choice(self.world.network.overheard) if self.world.network.overheard else [b"\x90"]
            spoilt = [bytearray(frame[:2000]) for frame in frames]
            if spoilt[0]:
                spoilt[0][random.randrange(len(spoilt[0]))] = random.randrange(256)
            self.world.broker.take(b"\1" + random.randbytes(2), [bytes(frame) for frame in spoilt])

    def add_rogue(self) -> None:
        """A peer with a key talks nonsense."""
        self._note("a rogue comes", 5.0)
        self.world.add_rogue(is_worker=self.random.random() < 0.5)

    def add_worker(self) -> None:
        """Another worker starts."""
        self._note("another worker starts")
        self.world.add_worker(self.random.randint(1, 3))
