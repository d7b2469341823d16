"""Both ends of a link of any kind in one test, where waiting for one end never holds the other up."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inbox import named, through_codec
from netfutures.fields import Blob, Payload
from netfutures.limits import CHUNK_BYTES_MAX, FRAME_BYTES_MIN
from netfutures.link import Link, LocalLink, Received, Unreachable
from netfutures.poller import Poller
from netfutures.stream import StreamLink
from netfutures.transport import DealerLink, RouterLink, new_key_pair
from netfutures.wire import Beat, Chunk, Envelope, Message, Results, Submit, Tasks

LIMIT_S = 20.0
SESSION = named("session")
DIGEST = named("function")


class Ends:
    """The end that routes (a broker's), the other one, and the route that leads from the first to the second."""

    def __init__(self, near: Link, far: Link, route: bytes = b"") -> None:
        self.near, self.far, self.route = near, far, route
        self._poller = Poller()
        for link in (near, far):
            if isinstance(link, StreamLink):
                self._poller.watch(link.fd, link.mark_readable, edge=True)
            elif isinstance(link, RouterLink | DealerLink):
                self._poller.watch(link.fd, _nothing)

    def take(self, link: Link) -> Received:
        """The next envelope that comes to this end."""
        received: list[Received] = []

        def has_come() -> bool:
            received.extend(filter(None, [link.receive()]))
            return bool(received)

        self.wait_until(has_come)
        return received[0]

    def greet(self) -> None:
        """The far end says something, from which the near one learns the route."""
        self.far.send(b"", numbered(1))
        self.route = self.take(self.near).route

    def vanish(self) -> None:
        """The far end closes, and the near one gets to know it."""
        if isinstance(self.far, StreamLink | DealerLink):
            self._poller.unwatch(self.far.fd)
        far, self.far = self.far, LocalLink(b"")
        far.close()
        self.wait_until(self._is_unreachable)

    def _is_unreachable(self) -> bool:
        try:
            self.near.send(self.route, numbered(1))
        except Unreachable:
            return True
        return False

    def wait_until(self, holds: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Lets both ends read and write until something holds."""
        deadline = time.monotonic() + limit_s
        while not holds():
            self.turn(deadline)

    def turn(self, deadline: float) -> None:
        """Waits for the next thing that happens to either end, unless something has come already."""
        assert time.monotonic() < deadline, "nothing came in time"
        is_ready = [self.near.is_ready(), self.far.is_ready()]
        for link in (self.near, self.far):
            if isinstance(link, StreamLink):
                self._poller.watch_room(link.fd, link.wants_room)
        # ZeroMQ ends a route in a thread of its own and tells it by its descriptor, which a send may silence.
        self._poller.wait(0.0 if any(is_ready) else 0.02)

    def close(self) -> None:
        self._poller.close()
        self.near.close()
        self.far.close()


def _nothing() -> None:
    """What has come is looked at after each wait."""


@contextmanager
def linked(kind: str, folder: Path) -> Iterator[Ends]:
    """Both ends of a link of this kind, whose route is known."""
    ends = KINDS[kind](folder)
    try:
        if not ends.route:
            ends.greet()
        yield ends
    finally:
        ends.close()


def _local(folder: Path) -> Ends:
    near, far = LocalLink.pair(b"far")
    return Ends(near, far, b"far")


def _stream(folder: Path) -> Ends:
    near, far = socket.socketpair()
    return Ends(StreamLink(near, b"far"), StreamLink(far, b"near"), b"far")


def _tcp(folder: Path) -> Ends:
    near = RouterLink("tcp://127.0.0.1:*")
    return Ends(near, DealerLink(near.endpoint))


def _ipc(folder: Path) -> Ends:
    near = RouterLink(f"ipc://{folder}/s")
    return Ends(near, DealerLink(near.endpoint))


def _curve(folder: Path) -> Ends:
    keys = new_key_pair()
    near = RouterLink("tcp://127.0.0.1:*", keys=keys)
    return Ends(near, DealerLink(near.endpoint, broker_key=keys.public, keys=new_key_pair()))


KINDS: dict[str, Callable[[Path], Ends]] = {
    "local": _local,
    "stream": _stream,
    "tcp": _tcp,
    "ipc": _ipc,
    "curve": _curve,
}


def numbered(number: int) -> Envelope:
    """A small message that can be told from others."""
    return Envelope(1, number, 0, Beat(number))


def chunk(number: int) -> Envelope:
    """The largest chunk there may be, of bytes that tell its number."""
    return Envelope(1, number, 0, Chunk(SESSION, number, 0, bytes([number % 251]) * CHUNK_BYTES_MAX, False))


def messages() -> list[Message]:
    """Messages with payloads of all sizes that travel in another way."""
    sizes = [0, 1, FRAME_BYTES_MIN - 1, FRAME_BYTES_MIN, FRAME_BYTES_MIN + 1, 300_000, CHUNK_BYTES_MAX]
    payloads: list[Payload] = [bytes([size % 251]) * size for size in sizes]
    blobs: list[Blob] = [(DIGEST, b"small", True), (named("large"), payloads[4], False)]
    return [
        Beat(3),
        Submit(7, blobs, [(1, DIGEST, None, [*payloads])]),
        Tasks(SESSION, [], [(1, DIGEST, {"priority": 1}, payloads[:3]), (8, DIGEST, None, payloads[3:])]),
        Results([(1, [*payloads])]),
        Chunk(SESSION, DIGEST, 17, bytes(CHUNK_BYTES_MAX), False),
        Chunk(SESSION, 5, 0, b"", True),
    ]


def same(came: Envelope, sent: Envelope) -> bool:
    """Whether this is what was sent, though it may not have been through the codec, or only through half of it."""
    return through_codec(came) == through_codec(sent)
