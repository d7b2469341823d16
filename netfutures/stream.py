"""A link over a connected Unix socket, for two processes of which one has started the other.

It has the methods of every link (see `netfutures.link`). The socket was inherited: it has no name, nobody else
can connect to it, and it leaves no file. Each message is a head (the number of its frames, then their sizes, as
unsigned 32-bit numbers, little endian) and its frames. The descriptor is to be watched edge-triggered.
"""

import socket
import struct
from collections import deque
from typing import Final

from netfutures.codec import decode_trusted, encode
from netfutures.limits import FRAMES_MAX, STREAM_BYTES_MAX
from netfutures.link import BadMessage, Received
from netfutures.wire import Envelope, Message, RemoteProtocolError

_NUMBER: Final = struct.Struct("<I")
_ONE_FRAME: Final = struct.Struct("<II")
_BUFFER_BYTES: Final = 256 << 10
_PEEK_BYTES: Final = 16 << 10


class StreamLink:
    """One end of the link; `mark_readable` is for whoever watches `fd`."""

    def __init__(self, connected: socket.socket, route: bytes) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._route = route
        self.fd = connected.fileno()
        self._is_readable = True
        self._is_partial = False
        """What the buffer holds is not a whole message."""
        self.has_ended = False
        """The other side has closed its end, or is dead."""
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._unsent: deque[memoryview] = deque()

    def mark_readable(self) -> None:
        """The poller says that there is something to read, or room to write."""
        self._is_readable = not self.has_ended
        if self._unsent:
            self._send_rest()

    @property
    def wants_room(self) -> bool:
        """Whether something waits until the other side has read."""
        return bool(self._unsent)

    def send(self, route: bytes, envelope: Envelope) -> None:
        """Sends; what does not fit now goes when the other side has read."""
        frames = encode(envelope)
        if len(frames) == 1:
            parts = [_ONE_FRAME.pack(1, len(frames[0])) + frames[0]]
        else:
            head = struct.pack(f"<{len(frames) + 1}I", len(frames), *map(len, frames))
            parts = [head, *frames]
        if self._unsent:
            self._unsent.extend(memoryview(part) for part in parts)
            return
        try:
            sent = self._socket.send(parts[0]) if len(parts) == 1 else self._socket.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # The other side is dead, as reading will tell.
        for part in parts:
            if sent < len(part):
                self._unsent.append(memoryview(part)[sent:])
            sent = max(0, sent - len(part))

    def _send_rest(self) -> None:
        unsent = self._unsent
        try:
            while unsent:
                sent = self._socket.send(unsent[0])
                if sent < len(unsent[0]):
                    unsent[0] = unsent[0][sent:]
                    return
                unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            unsent.clear()  # As above.

    def receive(self) -> Received | None:
        """The next envelope, or None when there is none now.

        Raises `BadMessage` for what is no message; after a head that makes no sense the link is at its end.
        """
        if self._start == self._end:
            if not self._is_readable:
                return None
            self._read()
        while True:
            frames = self._take_frames()
            if frames is not None:
                try:
                    return Received(self._route, decode_trusted(frames))
                except RemoteProtocolError as error:
                    raise BadMessage(self._route, str(error)) from None
            if not self._is_readable:
                self._is_partial = True
                return None
            self._read()

    def is_ready(self) -> bool:
        """Whether `receive` may have something."""
        return self._is_readable or (self._end != self._start and not self._is_partial)

    def peek(self) -> list[Message]:
        """What `receive` will return next, if all of it is here and small; it stays there.

        It may be called by another thread than the reader's while that one sleeps.
        """
        messages: list[Message] = []
        if self._start != self._end:
            return messages
        try:
            content = self._socket.recv(_PEEK_BYTES, socket.MSG_PEEK)
            at = 0
            while at < len(content):
                count, size = _ONE_FRAME.unpack_from(content, at)
                at += _ONE_FRAME.size + size
                if count != 1 or at > len(content):
                    return []
                messages.append(decode_trusted([content[at - size : at]]).message)
        except (OSError, struct.error, RemoteProtocolError):
            return []  # The reader will find it, too.
        return messages

    def _read(self) -> None:
        """One read; a short one has emptied the socket, and the next edge will say when there is more."""
        end = self._end
        room = len(self._buffer) - end
        try:
            count = self._socket.recv_into(self._view[end:] if end else self._buffer)
            self.has_ended = self.has_ended or count == 0
        except BlockingIOError:
            count = 0
        except OSError:
            count = 0
            self.has_ended = True
        self._end += count
        self._is_partial = False
        if count < room:
            self._is_readable = False

    def _give_up(self, why: str) -> BadMessage:
        """The stream makes no sense any more: nothing more is read, and the other side sees its end."""
        self._start = self._end = 0
        self._is_readable = False
        self.has_ended = True
        self._socket.shutdown(socket.SHUT_RDWR)
        return BadMessage(self._route, why)

    def _take_frames(self) -> list[memoryview | bytes] | None:
        """The frames of the next message if all of it is here; else makes room for the rest of it."""
        start, available = self._start, self._end - self._start
        if available < _ONE_FRAME.size:
            self._make_room(_ONE_FRAME.size)
            return None
        count, first = _ONE_FRAME.unpack_from(self._buffer, start)
        if not 0 < count <= FRAMES_MAX:
            raise self._give_up(f"a message of {count} frames")
        if count == 1 and _ONE_FRAME.size + first <= available:
            begin = start + _ONE_FRAME.size
            return self._taken([bytes(self._view[begin : begin + first])], begin + first)
        head = _NUMBER.size * (count + 1)
        if count == 1:
            sizes = [first]
        elif available < head:
            self._make_room(head)
            return None
        else:
            sizes = list(struct.unpack_from(f"<{count}I", self._buffer, start + _NUMBER.size))
        total = head + sum(sizes)
        if total > STREAM_BYTES_MAX:
            raise self._give_up(f"a message of {total} bytes")
        if available < total:
            self._make_room(total)
            return None
        frames: list[memoryview | bytes] = []
        at = start + head
        for size in sizes:
            frames.append(bytes(self._view[at : at + size]))
            at += size
        return self._taken(frames, at)

    def _taken(self, frames: list[memoryview | bytes], at: int) -> list[memoryview | bytes]:
        """These frames are out of the buffer, up to `at`."""
        if at == self._end:
            self._start = self._end = 0
        else:
            self._start = at
        return frames

    def _make_room(self, size_bytes: int) -> None:
        """Room for a message of this size from `start` on."""
        if self._start and self._start + size_bytes > len(self._buffer):
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        if size_bytes > len(self._buffer):
            grown = bytearray(size_bytes + _BUFFER_BYTES)
            grown[: self._end] = self._view[: self._end]
            self._view.release()
            self._buffer = grown
            self._view = memoryview(grown)

    def close(self) -> None:
        """Gives the socket up."""
        self._socket.close()
