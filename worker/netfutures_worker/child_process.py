"""The worker's side of one child: its sockets, its page and its death; it decides nothing.

In each turn of the worker's loop, handle what epoll named of `stdout_fd` and `stderr_fd` before `results_fd`: then
what a task wrote to descriptors 1 and 2 is there before its result is forwarded.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import select
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

from netfutures_worker import channel
from netfutures_worker.channel import (
    CLAIM,
    INLINE_BYTES_MAX,
    LIMIT,
    NO_LIMIT,
    PACKET_BYTES_MAX,
    PAGE_BYTES,
    RESUME,
    SHARED_BYTES,
    SOCKET_BYTES,
    STDERR,
    STDOUT,
    Exit,
    HungUp,
    PacketBroken,
    Record,
    Revoked,
    pack,
    unpack,
)
from netfutures_worker.child_incoming import Incoming
from netfutures_worker.kernel import barrier
from netfutures_worker.memory import Memory, Payload
from netfutures_worker.zygote import ChildNotStarted, Zygote

_RIGHTS_BYTES: Final = socket.CMSG_LEN(4)
# The reading end is the child's too, and would be without waiting for it as well if it were set so.
_READ_BACK_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_SO_SNDBUFFORCE: Final = 32
_BIN_HEAD_BYTES: Final = 5
_ENDING_MS: Final = 50
_PF_EXITING: Final = 0x4


class ChildProcess:
    """One life of one child; fds to watch are `results_fd`, `stdout_fd`, `stderr_fd` and, once started, `pidfd`."""

    __slots__ = (
        "_doomed", "_incoming", "_limited", "_next_index", "_page", "_tasks", "_unread", "_words",
        "fault", "pid", "pidfd", "results_fd", "slot", "stderr_fd", "stdout_fd",
    )  # fmt: skip

    def __init__(self, zygote: Zygote, slot: int) -> None:
        self.slot = slot
        self.pid = 0
        self.pidfd = -1
        self.fault = ""  # why this side ended it, for the death certificate
        self._doomed = False
        self._limited = False  # a limit may still be set in the page
        self._next_index = 1
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                self._open(zygote, ours, theirs)
            except OSError as error:
                raise ChildNotStarted(f"no child for slot {slot}, as its channel could not be made: {error}") from error
            ours.pop_all()

    def _open(self, zygote: Zygote, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> None:
        """Make both ends of everything; the child's are closed here once they have been sent, ours if it fails."""
        self._tasks, self._unread = (ours.enter_context(end) for end in _socket_pair())
        self._tasks.setblocking(False)
        results, far_results = _socket_pair()
        ours.enter_context(results).setblocking(False)
        theirs.enter_context(far_results)
        self.results_fd = results.fileno()
        page_fd = os.memfd_create("netfutures-page", os.MFD_CLOEXEC)
        theirs.callback(os.close, page_fd)
        os.ftruncate(page_fd, SHARED_BYTES)
        self._page = mmap.mmap(page_fd, SHARED_BYTES)
        shared = memoryview(self._page)
        self._words = shared[:PAGE_BYTES].cast("Q")
        self._words[LIMIT] = NO_LIMIT
        far_pipes = []
        near_pipes = []
        for _ in (STDOUT, STDERR):
            near, far = os.pipe()
            ours.callback(os.close, near)
            theirs.callback(os.close, far)
            os.set_blocking(near, False)
            near_pipes.append(near)
            far_pipes.append(far)
        self.stdout_fd, self.stderr_fd = near_pipes
        self._incoming = Incoming(results, self.stdout_fd, self.stderr_fd, self._words, shared)
        zygote.request_child([self._unread.fileno(), far_results.fileno(), page_fd, *far_pipes])

    # ---- its begin and its end ---------------------------------------------------------------------------------

    @classmethod
    def request(cls, zygote: Zygote, slot: int) -> ChildProcess:
        """Ask the zygote for a child; `started(pid)` completes it when the zygote has answered.

        Raises ZygoteLost, or ChildNotStarted when this process has no descriptors or no memory for it.
        """
        return cls(zygote, slot)

    def started(self, pid: int) -> None:
        """The zygote has answered: watch the process. Then `prepare()`.

        Raises ChildNotStarted, and ends the process, when there is no descriptor left to watch it by.
        """
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)  # It is a child of this process and not reaped, so the pid is still its own.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            raise ChildNotStarted(f"no child for slot {self.slot}, as it could not be watched: {error}") from error
        self.pid = pid
        if self._doomed:
            self.kill()

    def prepare(self, initializer: Payload | None, extra: dict[str, Any] | None = None) -> None:
        """Let the child run its initializer (a function payload that is called without arguments) and report READY.

        `extra` may have `sys_path` and `argv`, lists of strings for the child; unknown keys are ignored.
        """
        self._give([channel.PREPARE, initializer, extra], 1)

    def end(self) -> None:
        """Let it end in good order after what it holds."""
        self._send(pack([channel.FINISH]))

    def kill(self, fault: str = "") -> None:
        """End it and its process group at once; its death is seen on `pidfd`. Before `started`, it is ended there."""
        self._doomed = True
        self.fault = self.fault or fault
        if self.pidfd < 0 or not self.pid:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # It is dead already, or has no group of its own yet.

    def reap(self) -> Exit | None:
        """How it ended, None while it lives; its pid means nothing afterwards."""
        try:
            status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            self.pid = 0
            return Exit(None, None)
        if status is None:
            return None
        self.pid = 0
        if status.si_code == os.CLD_EXITED:
            return Exit(status.si_status, None)
        return Exit(None, status.si_status)

    def close(self) -> None:
        """Give up all descriptors and the page; may be called twice."""
        self._tasks.close()
        self._unread.close()
        self._incoming.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = self.results_fd = self.stdout_fd = self.stderr_fd = -1
        self._page.close()

    # ---- what it is given --------------------------------------------------------------------------------------

    def give_function(self, number: int, payload: Payload, cacheable: bool) -> None:
        """Hand over a function under a number of the caller's; a Memory stays the caller's."""
        self._give([channel.FUNCTION, number, payload, cacheable], 2)

    def give_tasks(self, function_number: int, first_index: int, payloads: Sequence[Payload]) -> None:
        """Hand over consecutive tasks; large ones go in packets of their own. A Memory stays the caller's."""
        if first_index < self._next_index:
            raise ValueError(f"index {first_index} was given before; the next of this child is {self._next_index}")
        self._next_index = first_index + len(payloads)
        if self._limited:
            self.lift()
        try:
            packet = pack([channel.TASKS, function_number, first_index, payloads, None])
        except TypeError:  # There is a Memory or a mapping among them.
            packet = b""
        if packet and len(packet) <= INLINE_BYTES_MAX:
            self._send(packet)
            return
        for part in _parts(payloads):
            if len(part) > 1 or _is_small(part[0]):
                inline = [bytes(payload) if isinstance(payload, mmap.mmap) else payload for payload in part]
                self._send(pack([channel.TASKS, function_number, first_index, inline, None]))
            else:
                self._give_large([channel.TASKS, function_number, first_index, [len(part[0])], None], part[0])
            first_index += len(part)

    def _give(self, packet: list[Any], place: int) -> None:
        """Send a packet that has one payload, in it or beside it."""
        payload = packet[place]
        if payload is None or _is_small(payload):
            packet[place] = bytes(payload) if isinstance(payload, mmap.mmap) else payload
            self._send(pack(packet))
        else:
            packet[place] = len(payload)
            self._give_large(packet, payload)

    def _give_large(self, packet: list[Any], payload: Payload) -> None:
        try:
            memory = payload if isinstance(payload, Memory) else Memory.of(payload)
        except OSError as error:
            self.kill(f"there was no memory for a payload of {len(payload)} bytes for it: {error}")
            return
        self._send(pack(packet), memory.fd)
        if memory is not payload:
            memory.close()

    def _send(self, packet: bytes, fd: int = -1) -> None:
        """Send without waiting; a child that does not read what it is given is broken."""
        if len(packet) > PACKET_BYTES_MAX:
            raise ValueError(f"a packet of {len(packet)} bytes for a child is above the limit of {PACKET_BYTES_MAX}")
        try:
            if fd < 0:
                self._tasks.send(packet)
            else:
                self._tasks.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        except OSError as error:
            self.kill(f"a packet of {len(packet)} bytes could not be given to it: {error}")

    # ---- what it says ------------------------------------------------------------------------------------------

    def receive(self) -> list[Record]:
        """What `results_fd` has, after epoll named it."""
        try:
            return self._hear(self._incoming.receive())
        except PacketBroken as error:
            return self._broken(error)

    def harvest(self) -> list[Record]:
        """All that the child has said and finished so far, output before results; for slow and for dead children."""
        try:
            return self._hear(self._incoming.harvest())
        except PacketBroken as error:
            return self._broken(error)

    def read_output(self, stream: int) -> bytes | None:
        """What lies in the pipe of descriptor 1 or 2, after epoll named it; None: it is closed, stop watching it."""
        return self._incoming.read_pipe(stream)

    def _hear(self, records: list[Record]) -> list[Record]:
        if records and isinstance(records[-1], HungUp) and not self._is_ending():
            self.kill("it lived on without its results socket: a task closed it, or ran another program by exec")
        return records

    def _is_ending(self) -> bool:
        """Has it begun to end, so that the kernel has closed its descriptors? Then how it ends is its own."""
        if not self.pid:
            return True
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                flags = int(file.read().rpartition(b")")[2].split()[6])
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:  # No descriptor is left to look with, but one that ends is dead in a moment.
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            return bool(poll.poll(_ENDING_MS))
        return bool(flags & _PF_EXITING)

    def _broken(self, error: PacketBroken) -> list[Record]:
        self._incoming.hung_up = True
        self.kill(f"it broke the rules of its channel: {error}")
        return [HungUp()]

    # ---- what is taken back ------------------------------------------------------------------------------------

    def claim(self) -> int:
        """The index of the task that it runs or ran last, 0 before the first."""
        return self._words[CLAIM]

    def revoke(self, limit: int | None = None) -> Revoked:
        """Take back what has not started (from index `limit` on, else all); tasks given later start as usual.

        What lies above the claim and from `Revoked.limit` on will never start. Packets that it had not read are gone
        whole, also if they lie below the limit. Exact only for a child whose READY said so.
        """
        words = self._words
        claim = words[CLAIM]
        if limit is None:
            limit = claim + 1
        if self._limited and claim < words[RESUME]:
            limit = min(limit, words[LIMIT])  # An earlier one is still on its way.
        else:
            words[LIMIT] = NO_LIMIT  # Its remains must not widen this one.
        words[RESUME] = self._next_index
        words[LIMIT] = limit
        self._limited = True
        barrier()
        claim = words[CLAIM]
        unread, functions = self._read_back()
        return Revoked(claim, limit, unread, functions)

    def lift(self) -> None:
        """Needless, since what is given after `revoke` may start; it makes the child's checks cheaper, when it may."""
        if self._words[CLAIM] >= self._words[RESUME]:
            self._words[LIMIT] = NO_LIMIT
            self._limited = False

    def _read_back(self) -> tuple[list[int], list[int]]:
        """Read what the child has not read: first indices of tasks, numbers of functions; the rest is given again."""
        unread: list[int] = []
        functions: list[int] = []
        others: list[tuple[bytes, int]] = []
        while True:
            try:
                packet, ancillary, _, _ = self._unread.recvmsg(PACKET_BYTES_MAX, _RIGHTS_BYTES, _READ_BACK_FLAGS)
            except BlockingIOError:
                break
            if not packet:
                break
            fd = array.array("i", ancillary[0][2])[0] if ancillary else -1
            kind, *fields = unpack(packet)
            if kind == channel.TASKS:
                unread.append(fields[1])
            elif kind == channel.FUNCTION:
                functions.append(fields[0])
            else:
                others.append((packet, fd))
                continue
            if fd >= 0:
                os.close(fd)
        for packet, fd in others:
            self._send(packet, fd)
            if fd >= 0:
                os.close(fd)
        return unread, functions


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of packets, with room for many that are unread."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        try:
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SOCKET_BYTES)
        except OSError:  # Without privileges the system's own limit holds, which is enough for a few packets.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    return pair


def _is_small(payload: Payload) -> bool:
    return not isinstance(payload, Memory) and len(payload) <= INLINE_BYTES_MAX


def _parts(payloads: Sequence[Payload]) -> Iterator[Sequence[Payload]]:
    """Consecutive payloads that fit one packet; a large one, or a Memory, alone."""
    begin = size = 0
    for place, payload in enumerate(payloads):
        small = _is_small(payload)
        size += len(payload) + _BIN_HEAD_BYTES
        if place > begin and (not small or size > INLINE_BYTES_MAX):
            yield payloads[begin:place]
            begin, size = place, len(payload) + _BIN_HEAD_BYTES
        if not small:
            yield payloads[place : place + 1]
            begin, size = place + 1, 0
    if begin < len(payloads):
        yield payloads[begin:]
