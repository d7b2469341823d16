"""The link over an inherited socket: bytes in pieces, readers that are slow, garbage, and the other end of it dying."""

import random
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from link_stage import DIGEST, LIMIT_S, chunk, numbered, same
from netfutures.codec import encode
from netfutures.fields import Payload
from netfutures.limits import CHUNK_BYTES_MAX, FRAMES_MAX, STREAM_BYTES_MAX
from netfutures.link import BadMessage
from netfutures.poller import Poller
from netfutures.stream import StreamLink
from netfutures.wire import Envelope, Submit


class Streamed:
    """A link that is read as a program does it, and the raw socket at its other end."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self.link = StreamLink(near, b"far")
        self._poller = Poller()
        self._poller.watch(self.link.fd, self.link.mark_readable, edge=True)

    def take(self) -> Envelope:
        """The next message."""
        while (received := self.link.receive()) is None:
            assert self.wait(), "nothing came"
        assert received.route == b"far"
        return received.envelope

    def wait(self, limit_s: float = LIMIT_S) -> bool:
        """Sleeps as a program does, which it may only when nothing is ready."""
        if self.link.is_ready():
            return True
        self._poller.watch_room(self.link.fd, self.link.wants_room)
        return self._poller.wait(limit_s)

    def settle(self) -> None:
        """All that has come was looked at, so that nothing but news can wake it."""
        while self.link.is_ready() or self._poller.wait(0):
            assert self.link.receive() is None

    def await_end(self) -> None:
        """Reads on until the link tells its end."""
        while not self.link.has_ended:
            assert self.link.receive() is None
            assert self.link.has_ended or self.wait(), "its end was not noticed"
        assert self.link.receive() is None
        assert not self.link.is_ready()

    def close(self) -> None:
        self._poller.close()
        self.link.close()
        self.far.close()


@pytest.fixture
def streamed() -> Iterator[Streamed]:
    streamed = Streamed()
    yield streamed
    streamed.close()


def packed(envelope: Envelope) -> bytes:
    """A message as it stands in the stream."""
    frames = [bytes(frame) for frame in encode(envelope)]
    return struct.pack(f"<{len(frames) + 1}I", len(frames), *map(len, frames)) + b"".join(frames)


def submit(number: int, sizes: list[int]) -> Envelope:
    """A message with a payload of each of these sizes."""
    payloads: list[Payload] = [bytes([size % 251]) * size for size in sizes]
    return Envelope(1, number, 0, Submit(7, [], [(number, DIGEST, None, payloads)]))


def test_a_message_that_comes_byte_by_byte_wakes_nobody_before_it_is_whole(streamed: Streamed) -> None:
    streamed.settle()
    stream = packed(submit(1, [10]))
    for at in range(len(stream) - 1):
        streamed.far.send(stream[at : at + 1])
        assert streamed.wait()
        assert streamed.link.receive() is None
        assert not streamed.link.is_ready(), "a program would spin here until the rest is read"
    streamed.far.send(stream[-1:])
    assert same(streamed.take(), submit(1, [10]))


@pytest.mark.parametrize("seed", range(4))
def test_messages_arrive_however_the_stream_is_cut(streamed: Streamed, seed: int) -> None:
    chance = random.Random(seed)
    sent = [submit(1 + number, [_size(chance) for _ in range(chance.choice((1, 1, 1, 3)))]) for number in range(80)]
    stream = memoryview(b"".join(map(packed, sent)))
    streamed.far.setblocking(False)
    came: list[Envelope] = []
    at = 0
    while len(came) < len(sent):
        if at < len(stream):
            at += _sent(streamed.far, stream[at : at + chance.choice((1, 7, 4096, 65536, 1 << 20))])
        received = streamed.link.receive()
        if received is not None:
            came.append(received.envelope)
        elif not streamed.link.is_ready():
            streamed.wait(LIMIT_S if at == len(stream) else 0)
    assert all(map(same, came, sent))


def _size(chance: random.Random) -> int:
    return chance.choice((0, 1, 100, 3000, 16383, 16384, 70_000, 262_120, 262_144, 600_000))


def _sent(far: socket.socket, piece: memoryview) -> int:
    try:
        return far.send(piece)
    except BlockingIOError:
        return 0  # The reader is behind.


def test_what_a_slow_reader_leaves_waits_and_goes_when_there_is_room(streamed: Streamed) -> None:
    reader = StreamLink(streamed.far.dup(), b"near")
    streamed.settle()
    sent = [chunk(1), numbered(2), *map(chunk, range(3, 8)), numbered(8)]
    for envelope in sent:
        streamed.link.send(b"far", envelope)
    assert streamed.link.wants_room
    for envelope in sent:
        while (received := reader.receive()) is None:
            assert streamed.link.receive() is None
            streamed.wait(0.05)
            reader.mark_readable()
        assert received.envelope == envelope
    assert not streamed.link.wants_room
    reader.close()


def test_the_largest_message_arrives(streamed: Streamed) -> None:
    writer = StreamLink(streamed.far.dup(), b"near")
    envelope = submit(1, [CHUNK_BYTES_MAX] * (FRAMES_MAX - 8))
    writer.send(b"", envelope)
    while (received := streamed.link.receive()) is None:
        writer.mark_readable()
        streamed.wait(0.05)
    assert same(received.envelope, envelope)
    writer.send(b"", numbered(2))
    assert streamed.take() == numbered(2)
    writer.close()


BROKEN_HEADS = {
    "no frames": struct.pack("<II", 0, 5),
    "too many frames": struct.pack("<II", FRAMES_MAX + 1, 5),
    "a frame beyond all measure": struct.pack("<II", 1, STREAM_BYTES_MAX),
    "frames beyond all measure": struct.pack("<III", 2, STREAM_BYTES_MAX // 2, STREAM_BYTES_MAX // 2),
    "text": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("what", BROKEN_HEADS)
def test_a_head_that_makes_no_sense_ends_the_link_for_both(streamed: Streamed, what: str) -> None:
    streamed.far.sendall(packed(numbered(1)) + BROKEN_HEADS[what] + packed(numbered(2)))
    assert streamed.take() == numbered(1)
    with pytest.raises(BadMessage) as caught:
        streamed.take()
    assert caught.value.route == b"far"
    streamed.await_end()
    streamed.link.send(b"far", numbered(3))
    assert not streamed.link.wants_room
    assert streamed.far.recv(100) == b""


@pytest.mark.parametrize(
    "frame", [b"", b"\xc1", b"\x95\x06\x01", b"\x80", b"\x2a", b"\x94\xcc\xf0\x01\x01\x00", b"\x94\x0f\x01\x01\x00"]
)
def test_a_frame_that_makes_no_sense_is_told_and_the_next_one_is_taken(streamed: Streamed, frame: bytes) -> None:
    streamed.far.sendall(struct.pack("<II", 1, len(frame)) + frame + packed(numbered(2)))
    with pytest.raises(BadMessage) as caught:
        streamed.take()
    assert caught.value.route == b"far"
    assert streamed.take() == numbered(2)


def test_what_was_sent_before_the_other_side_closed_is_taken_and_then_its_end(streamed: Streamed) -> None:
    streamed.settle()
    streamed.far.sendall(packed(numbered(1)) + packed(chunk(2))[:100])
    streamed.far.close()
    assert streamed.take() == numbered(1)
    streamed.await_end()
    streamed.link.send(b"far", chunk(3))
    assert not streamed.link.wants_room


def test_what_waited_for_a_reader_that_is_gone_is_dropped(streamed: Streamed) -> None:
    for number in range(1, 6):
        streamed.link.send(b"far", chunk(number))
    assert streamed.link.wants_room
    streamed.far.close()
    streamed.await_end()
    streamed.wait(0)
    assert not streamed.link.wants_room


def test_a_killed_process_is_an_end_like_any_other(streamed: Streamed) -> None:
    code = f"import os, signal; os.write({streamed.far.fileno()}, {packed(numbered(1))!r}); signal.pause()"
    with subprocess.Popen([sys.executable, "-I", "-c", code], pass_fds=[streamed.far.fileno()]) as process:
        streamed.far.close()
        streamed.link.send(b"far", numbered(7))  # Never read, so that the death is a reset of the connection.
        assert streamed.take() == numbered(1)
        process.send_signal(signal.SIGKILL)
        streamed.await_end()
