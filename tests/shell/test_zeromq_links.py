"""ZeroMQ links among strangers: garbage, oversized messages, wrong keys, vanished routes, a broker that misbehaves."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from link_stage import LIMIT_S, Ends, chunk, linked, numbered
from netfutures.limits import FRAMES_MAX, MESSAGE_BYTES_MAX
from netfutures.link import BadMessage, Received, Unreachable
from netfutures.transport import DealerLink, KeyPair, RouterLink, new_key_pair

LIMIT_MS = int(LIMIT_S * 1000)
OVERSIZED = bytes(MESSAGE_BYTES_MAX + 1)
ENDED = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL

Socket = zmq.Socket[bytes]


class Strangers:
    """Peers that know ZeroMQ and nothing of the protocol."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._made: list[Socket] = []

    def make(self, kind: int = zmq.DEALER) -> Socket:
        """One that is not connected yet."""
        peer = self._context.socket(kind)
        self._made.append(peer)
        return peer

    def connect(self, endpoint: str) -> Socket:
        """One that is connected."""
        peer = self.make()
        peer.connect(endpoint)
        return peer

    def close(self) -> None:
        for peer in self._made:
            peer.close(linger=0)
        self._context.term()


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    strangers = Strangers()
    yield strangers
    strangers.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with linked("tcp", tmp_path) as ends:
        yield ends


@contextmanager
def an_end_of(peer: Socket) -> Iterator[None]:
    """What is done within makes the other side end the connection, which is awaited."""
    monitor = peer.get_monitor_socket(ENDED)
    try:
        yield
        assert monitor.poll(LIMIT_MS), "the connection was not ended"
    finally:
        peer.disable_monitor()
        monitor.close()


def bad_message_at(ends: Ends) -> BadMessage:
    """What the near end says of the next message, which it cannot understand."""
    ends.wait_until(ends.near.is_ready)
    with pytest.raises(BadMessage) as caught:
        ends.near.receive()
    return caught.value


def next_of_the_others(ends: Ends) -> Received:
    """The next envelope, whatever garbage stands before it."""
    while True:
        try:
            return ends.take(ends.near)
        except BadMessage as bad:
            if bad.route == ends.route:
                raise


def endpoint_of(ends: Ends) -> str:
    assert isinstance(ends.near, RouterLink)
    return ends.near.endpoint


GARBAGE = {
    "empty": [b""],
    "not msgpack": [b"\xc1garbage"],
    "cut off": [b"\x95\x06\x01"],
    "not an array": [b"\x80"],
    "unknown kind": [b"\x94\xcc\xf0\x01\x01\x00"],
    "a reply's empty frame": [b"", b"\x95\x06\x01\x01\x00\x00"],
    "frames that nothing names": [b"\x95\x06\x01\x01\x00\x00", b"more"],
    "too many frames": [b"\x95\x06\x01\x01\x00\x00"] * (FRAMES_MAX + 1),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_told_with_its_route_and_the_link_goes_on(ends: Ends, strangers: Strangers, what: str) -> None:
    peer = strangers.connect(endpoint_of(ends))
    peer.send_multipart(GARBAGE[what])
    bad = bad_message_at(ends)
    assert bad.route != ends.route
    ends.near.send(bad.route, numbered(9))
    assert peer.poll(LIMIT_MS), "the sender of garbage could not be answered"
    ends.far.send(b"", numbered(2))
    assert ends.take(ends.near).route == ends.route


def test_a_stranger_that_speaks_http_disturbs_nobody(ends: Ends) -> None:
    address, _, port = endpoint_of(ends).removeprefix("tcp://").partition(":")
    with socket.create_connection((address, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n" * 10)
        assert bad_message_at(ends).route != ends.route  # Its first byte is a size in the oldest ZeroMQ protocol.
        ends.far.send(b"", chunk(2))
        assert next_of_the_others(ends).route == ends.route


def test_an_oversized_frame_is_not_taken_and_costs_its_sender_the_connection(ends: Ends, strangers: Strangers) -> None:
    peer = strangers.connect(endpoint_of(ends))
    peer.send(b"before")
    bad_message_at(ends)
    with an_end_of(peer):
        peer.send(OVERSIZED)
    ends.far.send(b"", chunk(2))
    assert ends.take(ends.near).route == ends.route
    assert ends.near.receive() is None


def test_what_a_vanished_peer_is_sent_is_told_to_be_unreachable(ends: Ends) -> None:
    ends.vanish()
    with pytest.raises(Unreachable):
        ends.near.send(ends.route, numbered(2))


def test_a_route_that_never_was_is_unreachable_at_once(ends: Ends) -> None:
    with pytest.raises(Unreachable):
        ends.near.send(b"nobody", chunk(1))
    ends.near.send(ends.route, numbered(1))
    assert ends.take(ends.far).envelope == numbered(1)


def test_a_peer_that_reads_nothing_holds_nobody_up(ends: Ends, strangers: Strangers) -> None:
    peer = strangers.make()
    peer.rcvhwm = 1
    peer.setsockopt(zmq.RCVBUF, 4096)
    peer.connect(endpoint_of(ends))
    peer.send(b"hello")
    route = bad_message_at(ends).route
    for number in range(48):
        ends.near.send(route, chunk(number))
    ends.near.send(ends.route, numbered(3))
    assert ends.take(ends.far).envelope == numbered(3)


def test_a_dealer_comes_back_by_itself_when_its_broker_does(tmp_path: Path) -> None:
    with linked("ipc", tmp_path) as ends:
        endpoint = endpoint_of(ends)
        ends._poller.unwatch(ends.near.fd)  # type: ignore[attr-defined]  # it is a router
        ends.near.close()
        ends.near = RouterLink(endpoint)
        ends._poller.watch(ends.near.fd, lambda: None)
        ends.wait_until(lambda: _was_heard_again(ends))


def _was_heard_again(ends: Ends) -> bool:
    ends.far.send(b"", numbered(5))
    return ends.near.receive() is not None


def test_a_dealer_outlives_a_broker_that_sends_what_is_not_taken(strangers: Strangers) -> None:
    """ZeroMQ gives up for good a connection on which an oversized frame came; the link makes another one."""
    broker = strangers.make(zmq.ROUTER)
    broker.bind("tcp://127.0.0.1:*")
    endpoint = broker.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    link = DealerLink(endpoint.decode())
    link.send(b"", numbered(1))
    assert broker.poll(LIMIT_MS)
    route, _ = broker.recv_multipart()
    with an_end_of(broker):
        broker.send_multipart([route, OVERSIZED])
    for _ in range(100):
        link.send(b"", numbered(2))
        if broker.poll(50):
            break
    assert broker.recv_multipart()[0] != route
    link.close()


@pytest.mark.parametrize("who", ["another broker's key", "no key"])
def test_without_the_broker_s_key_nothing_passes(strangers: Strangers, tmp_path: Path, who: str) -> None:
    with linked("curve", tmp_path) as ends:
        peer = strangers.make()
        if who != "no key":
            peer.curve_serverkey = new_key_pair().public
            peer.curve_publickey, peer.curve_secretkey = new_key_pair()
        with an_end_of(peer):
            peer.connect(endpoint_of(ends))
            peer.send_multipart([b"\x95\x06\x01\x01\x00\x00"])
        ends.far.send(b"", chunk(2))
        assert ends.take(ends.near).route == ends.route
        assert ends.near.receive() is None
        assert not peer.poll(0)


def test_a_dealer_with_another_broker_s_key_gets_nothing_and_stays_calm(tmp_path: Path) -> None:
    with linked("curve", tmp_path) as ends:
        stranger = DealerLink(endpoint_of(ends), broker_key=new_key_pair().public, keys=new_key_pair())
        for number in range(1, 20):
            stranger.send(b"", numbered(number))
            ends.far.send(b"", numbered(number))
            assert ends.take(ends.near).route == ends.route
        assert stranger.receive() is None
        stranger.close()


def test_a_secret_key_is_not_shown() -> None:
    keys = KeyPair(b"public", b"secret")
    assert "secret'" not in repr(keys)
    assert b"public" in eval(repr(keys).replace("...", "None"), {"KeyPair": KeyPair})
