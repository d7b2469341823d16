"""All that comes from one child, on the worker's side: its results socket, its ring, and two pipes."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import termios
from typing import Any, Final

import msgpack

from netfutures_worker import channel
from netfutures_worker.channel import (
    END,
    PACKET_BYTES_MAX,
    PAGE_BYTES,
    READ,
    RING_BYTES,
    START,
    STDERR,
    STDOUT,
    Failed,
    HungUp,
    Output,
    PacketBroken,
    Ready,
    Record,
    Results,
    Stopped,
    unpack,
)
from netfutures_worker.kernel import barrier
from netfutures_worker.memory import Memory, MemoryUnsealed

_PIPE_BYTES: Final = 1 << 16
# So many packets of output at a time, then the worker's loop looks at others.
_LOOKS_MAX: Final = 32
_RIGHTS_BYTES: Final = socket.CMSG_LEN(4)
# Kept, since a fresh buffer for each packet costs more than the packet; one thread looks after all children.
_buffer = bytearray(PACKET_BYTES_MAX)
_view = memoryview(_buffer)
_into = (_buffer,)
# As plain numbers: arithmetic with the enumeration costs microseconds.
_TRUNCATED: Final = int(socket.MSG_TRUNC)
_CLOSE_ON_EXEC: Final = int(socket.MSG_CMSG_CLOEXEC)


class Incoming:
    """Reads packets and the ring of one child, and hands out each result once."""

    __slots__ = ("_harvested_to", "_pipes", "_ring", "_shared", "_socket", "_words", "hung_up")

    def __init__(self, results: socket.socket, stdout_fd: int, stderr_fd: int, words: memoryview, shared: memoryview):
        self._socket = results
        self._pipes = {STDOUT: stdout_fd, STDERR: stderr_fd}
        self._words = words
        self._shared = shared
        self._ring = shared[PAGE_BYTES:]
        self._harvested_to = 0  # the index of the last task whose result has been handed out
        self.hung_up = False

    def receive(self) -> list[Record]:
        """What the socket has, after epoll named it: a packet, after output more; PacketBroken ends the child."""
        records: list[Record] = []
        for look in range(_LOOKS_MAX):
            record, _ = self._receive_one()
            if record is None:
                break
            if look and isinstance(record, Results):
                self._drain_pipes(records)  # What was written to them since epoll looked comes before the result.
            records.append(record)
            if not isinstance(record, Output):
                break
        return records

    def harvest(self) -> list[Record]:
        """All that the child has said and published up to now, output before results."""
        records: list[Record] = []
        end = self._words[END]
        barrier()
        start = self._words[START]
        # END was read first and offsets only grow: so it is of the region that begins at START, or it is below it, and
        # then there is a note of its region. What has been consumed the child may be writing over at this moment; the
        # rest it may from when READ moves on, so the copy is made now.
        region = self._copy(start, end) if end > max(start, self._words[READ]) else b""
        self._drain_pipes(records)
        unread_bytes = 0 if self.hung_up else _unread_bytes(self._socket)
        while unread_bytes > 0:
            record, count = self._receive_one()
            if not count:
                break
            unread_bytes -= count
            if record is not None:
                records.append(record)
        if region:
            values = _split(region)
            results = self._fresh(values[0], values[1:], 0) if values else None
            if results is not None:
                records.append(results)
        return records

    def read_pipe(self, stream: int) -> bytes | None:
        """What lies in a pipe; b"" for nothing, None when it has been closed on the other side."""
        fd = self._pipes[stream]
        if fd < 0:
            return None
        try:
            return os.read(fd, _PIPE_BYTES) or None
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Give up the descriptors and the views of the page; may be called twice."""
        self.hung_up = True
        self._socket.close()
        for stream, fd in self._pipes.items():
            if fd >= 0:
                os.close(fd)
                self._pipes[stream] = -1
        self._words.release()
        self._ring.release()
        self._shared.release()

    def _drain_pipes(self, records: list[Record]) -> None:
        for stream in (STDOUT, STDERR):
            written = self.read_pipe(stream)
            if written:
                records.append(Output(0, stream, written))

    def _receive_one(self) -> tuple[Record | None, int]:
        """One packet as a record, None if it tells nothing new; and its size, 0 if there was none."""
        if self.hung_up:
            return None, 0
        try:
            count, ancillary, flags, _ = self._socket.recvmsg_into(_into, _RIGHTS_BYTES, _CLOSE_ON_EXEC)
        except BlockingIOError:
            return None, 0
        except ConnectionResetError:
            count = 0
        if not count:
            self.hung_up = True
            return HungUp(), 0
        fd = array.array("i", ancillary[0][2])[0] if ancillary else -1
        if flags & _TRUNCATED:
            raise PacketBroken(f"a packet from the child was larger than {PACKET_BYTES_MAX} bytes")
        packet = unpack(_view[:count])
        try:
            return self._record(packet, fd), count
        except (TypeError, ValueError, IndexError, OverflowError, MemoryUnsealed) as error:
            raise PacketBroken(f"a packet of kind {packet[0]} from the child makes no sense: {error}") from error

    def _record(self, packet: list[Any], fd: int) -> Record | None:
        """The packet as a record; whatever is wrong with its fields raises. (`match` would cost ten times as much.)"""
        kind = packet[0]
        if kind == channel.NOTE:
            _, first, count, start, end, microseconds = packet
            return self._noted(first, count, start, end, microseconds)
        if kind == channel.RESULT:
            _, index, outcome, microseconds = packet
            if fd >= 0:
                outcome = Memory.received(fd, outcome)
            elif type(outcome) is not bytes:
                raise ValueError("its outcome is not bytes")
            return self._fresh(index, [outcome], microseconds)
        if kind == channel.OUTPUT:
            return Output(*_checked(packet, int, int, bytes))
        if kind == channel.STOPPED:
            return Stopped(*_checked(packet, int))
        if kind == channel.READY:
            return Ready(*_checked(packet, int, bool))
        if kind == channel.FAILED:
            return Failed(*_checked(packet, str))
        raise ValueError("there is no such kind")

    def _noted(self, first: int, count: int, start: int, end: int, microseconds: int) -> Record | None:
        """The results that a note tells of, and their room in the ring given back."""
        if not 0 < count <= RING_BYTES:
            raise ValueError(f"{count} results")
        values = msgpack.unpackb(b"\xdd" + (count + 1).to_bytes(4, "big") + self._copy(start, end))
        self._words[READ] = end
        index, *outcomes = values
        if index != first:
            raise ValueError(f"the region begins with {index}, the note says {first}")
        if set(map(type, outcomes)) != {bytes}:
            raise ValueError("its outcomes are not bytes")
        return self._fresh(first, outcomes, microseconds)

    def _fresh(self, first: int, outcomes: list[bytes | Memory], microseconds: int) -> Results | None:
        """Those results that have not been handed out before."""
        known = self._harvested_to + 1 - first
        if known >= len(outcomes):
            return None
        self._harvested_to = first + len(outcomes) - 1
        if known > 0:
            return Results(first + known, outcomes[known:], microseconds)
        return Results(first, outcomes, microseconds)

    def _copy(self, start: int, end: int) -> bytes:
        """What lies between two offsets of the ring."""
        place = start % RING_BYTES
        size = end - start
        if not 0 <= size <= RING_BYTES - place:
            raise ValueError(f"offsets {start} and {end} are of no region")
        return bytes(self._ring[place : place + size])


def _checked(packet: list[Any], *kinds: type) -> list[Any]:
    """The fields of a packet, if they are of these types."""
    _, *fields = packet
    if [type(field) for field in fields] != [*kinds]:
        raise ValueError(f"its fields are not {', '.join(kind.__name__ for kind in kinds)}")
    return fields


def _split(region: bytes) -> list[Any]:
    """The values of a region that may still grow."""
    unpacker = msgpack.Unpacker(max_buffer_size=RING_BYTES)
    unpacker.feed(region)
    try:
        values = list(unpacker)
    except ValueError as error:
        raise PacketBroken(f"a region of {len(region)} bytes in the ring is not msgpack: {error}") from error
    if values and not (isinstance(values[0], int) and all(isinstance(value, bytes) for value in values[1:])):
        raise PacketBroken(f"a region of {len(region)} bytes in the ring is not an index and results")
    return values


def _unread_bytes(results: socket.socket) -> int:
    """How much lies in a socket now; what a child adds from now on is left for later."""
    return int.from_bytes(fcntl.ioctl(results, termios.FIONREAD, bytes(4)), "little", signed=True)
