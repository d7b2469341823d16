"""A network as ZeroMQ shows it: in order, until a connection breaks and takes in silence what was under way.

`Network.hostility` adds what ZeroMQ does not do: single messages that are lost or repeated within a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgpack

from netfutures.codec import encode
from netfutures.wire import MESSAGES, ClientHello, Envelope, Tasks, WorkerHello

if TYPE_CHECKING:
    from simulation.faults import Nemesis
    from simulation.parties import BrokerParty, Peer
    from simulation.timeline import Timeline

RECONNECT_S = (0.05, 0.15)
TO_BROKER, TO_PEER = 0, 1
OVERHEARD_MAX = 30
TASKS = next(number for number, message in MESSAGES.items() if message is Tasks)
HELLOS = {number for number, message in MESSAGES.items() if message in (ClientHello, WorkerHello)}
"""A token in them is what a stranger would need to be taken for the peer; keys keep it secret."""


@dataclass
class Hostility:
    """What happens to messages, by probability, and how long they take."""

    drop: float = 0.0
    repeat: float = 0.0
    spike: float = 0.0
    spike_s: float = 0.0
    latency_s: float = 0.0001


class Connection:
    """One connection of a peer: two directions, each in order; `route` is what the broker calls it."""

    def __init__(self, network: Network, peer: Peer, route: bytes) -> None:
        self.network = network
        self.peer = peer
        self.route = route
        self.is_open = True
        self.peer_knows = False
        """The peer's side has seen that it ended."""
        self.broker_knows = False
        self.late_until = 0.0
        """What would have arrived by then was in the receiver's queue already when the connection ended."""
        self.late_s = 0.0
        self._arrival = [0.0, 0.0]

    def send(self, direction: int, frames: list[bytes]) -> None:
        """Puts a message on its way."""
        network, timeline = self.network, self.network.timeline
        network.sent_kinds.add(frames[0][1])
        if frames[0][1] == TASKS:
            network.nemesis.aim_at(self.peer, 0.15)
        if len(network.overheard) < OVERHEARD_MAX and frames[0][1] not in HELLOS:
            network.overheard.append(frames)
        hostility = network.hostility
        if hostility.drop and timeline.chance(hostility.drop):
            network.drops += 1
            network.excuse(self.peer, "a message was dropped")
            timeline.trace(self.peer.name, "dropped", frames[0])
            return
        delay_s = hostility.latency_s * (0.5 + timeline.random.random())
        if hostility.spike and timeline.chance(hostility.spike):
            delay_s += hostility.spike_s * timeline.random.random()
        arrival = self._arrival[direction] = max(self._arrival[direction], timeline.now + delay_s)
        timeline.at(arrival, self._arrive, direction, frames, True)
        if hostility.repeat and timeline.chance(hostility.repeat):
            network.repeats += 1
            timeline.at(arrival + hostility.latency_s * timeline.random.random(), self._arrive, direction, frames, True)

    def _arrive(self, direction: int, frames: list[bytes], is_first: bool) -> None:
        network, peer, timeline = self.network, self.peer, self.network.timeline
        if not self.is_open:
            if timeline.now <= self.late_until and is_first and self.late_s:
                network.late += 1
                timeline.after(self.late_s, self._deliver, direction, frames)
            return
        if peer.cut[direction]:
            peer.held.append((self, direction, frames))
            return
        self._deliver(direction, frames)

    def _deliver(self, direction: int, frames: list[bytes]) -> None:
        receiver = self.network.broker if direction == TO_BROKER else self.peer
        if receiver.is_alive:
            receiver.take(self.route, frames)


class Network:
    """All connections, and what is wrong with them."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.hostility = Hostility()
        self.broker: BrokerParty
        self.nemesis: Nemesis
        self.routes: dict[bytes, Connection] = {}
        self.excuses: dict[str, str] = {}
        """Peers that may be taken for dead though they live, and why."""
        self.sent_kinds: set[int] = set()
        self.overheard: list[list[bytes]] = []
        """Some messages that a stranger may have seen."""
        self.drops = self.repeats = self.late = self.breaks = 0

    def excuse(self, peer: Peer, why: str) -> None:
        """After this the broker may give up the peer."""
        self.excuses.setdefault(peer.name, why)

    def connect(self, peer: Peer) -> None:
        """The peer has a new connection, and sends on it what waits."""
        if not peer.is_alive or peer.connection is not None:
            return
        if any(peer.cut):
            self.timeline.after(self.timeline.random.uniform(*RECONNECT_S), self.connect, peer)
            return
        route = b"\0" + self.timeline.random.randbytes(4)
        connection = peer.connection = self.routes[route] = Connection(self, peer, route)
        self.timeline.trace(peer.name, f"connected as {route.hex()}")
        waiting, peer.unsent = peer.unsent, []
        for frames in waiting:
            connection.send(TO_BROKER, frames)

    def send_to_broker(self, peer: Peer, envelope: Envelope) -> None:
        """A peer sends; while it has no connection its messages wait."""
        frames = freeze(encode(envelope))
        if peer.connection is None:
            peer.unsent.append(frames)
        elif peer.connection.is_open:
            peer.connection.send(TO_BROKER, frames)

    def send_to_peer(self, route: bytes, envelope: Envelope) -> bool:
        """The broker sends; False if it would be told that the route is unreachable."""
        connection = self.routes.get(route)
        if connection is None:
            return False
        if connection.is_open:
            connection.send(TO_PEER, freeze(encode(envelope)))
        return True

    def end(self, connection: Connection, peer_after_s: float, broker_after_s: float) -> None:
        """A connection breaks; each side sees it after a while of its own."""
        if not connection.is_open:
            return
        self.breaks += 1
        timeline = self.timeline
        connection.is_open = False
        if timeline.chance(0.8):
            connection.late_until = timeline.now + self.hostility.latency_s * 3 * timeline.random.random()
            connection.late_s = timeline.random.choice((0.0, 0.2, 1.2, 1.5)) + 1e-6
        timeline.trace(connection.peer.name, f"connection {connection.route.hex()} ended")
        timeline.after(peer_after_s, self._peer_sees, connection)
        timeline.after(broker_after_s, self._broker_sees, connection)

    def _peer_sees(self, connection: Connection) -> None:
        peer = connection.peer
        if peer.connection is connection:
            peer.connection = None
            self.timeline.after(self.timeline.random.uniform(*RECONNECT_S), self.connect, peer)

    def _broker_sees(self, connection: Connection) -> None:
        self.routes.pop(connection.route, None)

    def heal(self, peer: Peer) -> None:
        """What was held while the peer was cut off goes on, where its connection has survived."""
        peer.cut = [False, False]
        held, peer.held = peer.held, []
        for connection, direction, frames in held:
            if connection.is_open:
                self.timeline.at(self.timeline.now, connection._arrive, direction, frames, True)


def freeze(frames: list[bytes | bytearray | memoryview]) -> list[bytes]:
    """The frames as bytes, which nobody can change any more."""
    return [bytes(frame) for frame in frames]


def describe(header: bytes) -> str:
    """The kind and the numbers of an encoded message, for the trace."""
    try:
        unpacker = msgpack.Unpacker()
        unpacker.feed(header)
        unpacker.read_array_header()
        kind, connection, sequence, acknowledged = (unpacker.unpack() for _ in range(4))
        return f"{MESSAGES[kind].__name__} {connection}.{sequence}/{acknowledged}"
    except (ValueError, KeyError, TypeError, msgpack.UnpackException):
        return "nonsense"
