"""What a child's tasks print: text streams whose writes are packets to the worker, in order with results."""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import msgpack

from netfutures_worker.channel import CLAIM, EXIT_CHANNEL, OUTPUT, OUTPUT_BYTES_MAX, STDERR, STDOUT

if TYPE_CHECKING:
    from typing_extensions import Buffer


def leave(error: OSError) -> NoReturn:
    """End this process: its channel is gone, so nothing that it does can be told to anybody."""
    try:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            os.write(2, f"netfutures: child {os.getpid()} lost its channel to the worker ({error}) and ends\n".encode())
    finally:
        os._exit(EXIT_CHANNEL)  # Also when descriptor 2 is closed.


class Outgoing:
    """The child's end of *results*, its streams, and what must be done before the next result is published.

    `unsettled` is the one flag that the loop looks at after each task: something was printed, or this process is a
    copy that the task forked.
    """

    __slots__ = ("busy", "copied", "pid", "results", "streams", "unsettled", "words")

    def __init__(self, results: socket.socket, words: memoryview) -> None:
        self.results = results
        self.words = words
        self.busy = False  # a task runs, whose index is the claim
        self.unsettled = False
        self.copied = False
        self.pid = os.getpid()
        self.streams: list[_Text] = []

    def send(self, packet: bytes) -> None:
        """Send one packet; waits while the worker is behind."""
        try:
            self.results.send(packet)
        except OSError as error:
            leave(error)

    def send_with(self, packet: bytes, fd: int) -> None:
        """Send one packet with a descriptor."""
        rights = fd.to_bytes(4, sys.byteorder)
        try:
            self.results.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as error:
            leave(error)

    def open_streams(self) -> None:
        """Make `sys.stdout` and `sys.stderr`, and keep them right in copies that tasks fork."""
        self.streams = [_open(self, STDOUT, "<stdout>", "strict"), _open(self, STDERR, "<stderr>", "backslashreplace")]
        sys.stdout = sys.__stdout__ = self.streams[0]  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.streams[1]  # type: ignore[misc]
        os.register_at_fork(before=self.flush, after_in_child=self._in_copy)

    def _in_copy(self) -> None:
        self.copied = self.unsettled = True

    def flush(self) -> None:
        """Send what lies in the streams' buffers."""
        for stream in self.streams:
            try:
                stream.flush()
            except (ValueError, OSError):
                continue  # The task has closed or detached it, as it may.

    def settle(self) -> None:
        """After a task, before its result: send what it printed; a copy of the child ends here."""
        self.unsettled = False
        if self.copied:
            self.end_copy(None)
        self.flush()

    def check_copy(self) -> None:
        """End a copy that was forked behind the interpreter's back."""
        if os.getpid() != self.pid:
            os._exit(0)

    def end_copy(self, error: BaseException | None) -> NoReturn:
        """End a copy as a program ends that returns, exits or raises."""
        status = 0
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            status = 1
            sys.excepthook(type(error), error, error.__traceback__)
        self.flush()
        os._exit(status & 0xFF)


class _Outlet(io.RawIOBase):
    """The lowest layer of a stream: each write is a packet."""

    def __init__(self, outgoing: Outgoing, stream: int, name: str) -> None:
        self._outgoing = outgoing
        self._stream = stream
        self._pack = msgpack.Packer(buf_size=2 * OUTPUT_BYTES_MAX).pack
        self.name = name
        self.mode = "wb"

    def write(self, content: Buffer, /) -> int:
        chunk = bytes(memoryview(content).cast("B")[:OUTPUT_BYTES_MAX])
        outgoing = self._outgoing
        if outgoing.copied:
            return os.write(self._stream, chunk)
        index = outgoing.words[CLAIM] if outgoing.busy else 0
        outgoing.send(self._pack((OUTPUT, index, self._stream, chunk)))
        return len(chunk)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def isatty(self) -> bool:
        return False


class _Buffer(io.BufferedWriter):
    """The middle layer: says that something was written."""

    outgoing: Outgoing

    def write(self, content: Buffer, /) -> int:
        self.outgoing.unsettled = True
        return super().write(content)


class _Text(io.TextIOWrapper):
    """The layer that tasks print to: says that something was written."""

    outgoing: Outgoing

    def write(self, text: str, /) -> int:
        self.outgoing.unsettled = True
        return super().write(text)


def _open(outgoing: Outgoing, stream: int, name: str, errors: str) -> _Text:
    outlet: Any = _Outlet(outgoing, stream, name)
    buffer = _Buffer(outlet, OUTPUT_BYTES_MAX)
    buffer.outgoing = outgoing
    text = _Text(buffer, encoding="utf-8", errors=errors, line_buffering=True)
    text.outgoing = outgoing
    setattr(text, "mode", "w")  # noqa: B010 (a stream of `open` has it, and its type says that it cannot be set)
    return text
