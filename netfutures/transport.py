"""The only file that knows ZeroMQ: links (see `netfutures.link`) over it, with keys where others could listen.

ZeroMQ's descriptor is edge-triggered, and a send may swallow the edge: so `is_ready` is asked after the last send and
before each sleep.
Each socket belongs to one thread; each process has a context of its own, made after its last fork.
"""

import random
import re
from typing import Any, NamedTuple

import zmq

from netfutures.codec import decode, encode
from netfutures.limits import MESSAGE_BYTES_MAX, RECONNECT_INTERVAL_MS_MAX, RECONNECT_INTERVAL_MS_MIN
from netfutures.link import BadMessage, Received, Unreachable
from netfutures.wire import Envelope, RemoteProtocolError

_READABLE = int(zmq.POLLIN)
_MAPPED_ADDRESS = re.compile(r"\[::ffff:([\d.]+)\]")
"""How an IPv4 address is told by a socket that takes both versions."""


class KeyPair(NamedTuple):
    """A CURVE key pair, Z85-encoded."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=...)"


def new_key_pair() -> KeyPair:
    """A fresh CURVE key pair."""
    return KeyPair(*zmq.curve_keypair())


class _Socket:
    """What both kinds of ZeroMQ link share: one socket in a context of its own."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.Context(io_threads=1)
        socket = self._socket = self._context.socket(kind)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 20)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 5)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 4)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        self.fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]  # this option is a number
        self._getsockopt = socket.getsockopt
        self._recv = socket.recv

    def is_ready(self) -> bool:
        """Whether a message is there."""
        events: int = self._getsockopt(zmq.EVENTS)  # type: ignore[assignment]  # this option is a number
        return bool(events & _READABLE)

    def _receive_frames(self) -> list[bytes]:
        recv = self._recv
        frames = [recv(zmq.NOBLOCK)]
        while self._getsockopt(zmq.RCVMORE):
            frames.append(recv(zmq.NOBLOCK))
        return frames

    def close(self) -> None:
        """Gives the socket and its context up at once."""
        self._socket.close(linger=0)
        self._context.term()


class DealerLink(_Socket):
    """The client's and the worker's link to a broker."""

    def __init__(self, endpoint: str, *, broker_key: bytes | None = None, keys: KeyPair | None = None) -> None:
        super().__init__(zmq.DEALER)
        socket = self._socket
        socket.setsockopt(zmq.RECONNECT_IVL, random.randint(RECONNECT_INTERVAL_MS_MIN, RECONNECT_INTERVAL_MS_MAX))
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        if broker_key is not None:
            assert keys is not None
            socket.curve_serverkey = broker_key
            socket.curve_publickey, socket.curve_secretkey = keys
        self._endpoint = endpoint
        socket.connect(endpoint)

    def send(self, route: bytes, envelope: Envelope) -> None:
        """Sends to the broker; the route is not looked at, since there is only one."""
        frames = encode(envelope)
        try:
            self._send(frames)
        except zmq.Again:
            # ZeroMQ gives a connection up for good on which it got what it does not take, as an oversized frame.
            self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
            self._send(frames)

    def _send(self, frames: list[Any]) -> None:
        socket = self._socket
        if len(frames) == 1:
            socket.send(frames[0], zmq.NOBLOCK)
        else:
            socket.send_multipart(frames, zmq.NOBLOCK)

    def receive(self) -> Received | None:
        """The next envelope from the broker."""
        if not self.is_ready():
            return None
        frames = self._receive_frames()
        try:
            return Received(b"", decode(frames))
        except RemoteProtocolError as error:
            raise BadMessage(b"", str(error)) from None


class RouterLink(_Socket):
    """The broker's link to everybody."""

    def __init__(self, endpoint: str, *, keys: KeyPair | None = None) -> None:
        super().__init__(zmq.ROUTER)
        socket = self._socket
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.BACKLOG, 4096)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 1000)
        if keys is not None:
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = keys
        socket.bind(endpoint)
        bound: str = socket.getsockopt(zmq.LAST_ENDPOINT).decode()  # type: ignore[union-attr]  # bytes
        self.endpoint = _MAPPED_ADDRESS.sub(r"\1", bound)
        """Where it listens, with the port that it got."""

    def send(self, route: bytes, envelope: Envelope) -> None:
        """Sends to a peer; raises `Unreachable` when it is gone."""
        try:
            self._socket.send_multipart([route, *encode(envelope)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise Unreachable(str(error)) from None
            raise

    def receive(self) -> Received | None:
        """The next envelope from anybody."""
        if not self.is_ready():
            return None
        route, *frames = self._receive_frames()
        try:
            return Received(route, decode(frames))
        except RemoteProtocolError as error:
            raise BadMessage(route, str(error)) from None
