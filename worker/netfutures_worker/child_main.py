"""The child's side: from the zygote's fork to the end, it reads packets and has their tasks run."""

from __future__ import annotations

import array
import atexit
import contextlib
import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn

from netfutures.payload import load_function
from netfutures_worker import channel, kernel
from netfutures_worker.channel import PACKET_BYTES_MAX, PAGE_BYTES, SHARED_BYTES, PacketBroken, unpack
from netfutures_worker.child_loop import BODY, OURS, TaskLoop, open_memory
from netfutures_worker.child_output import Outgoing, leave
from netfutures_worker.memory import Buffer, Memory

LEVEL_VARIABLE: Final = "NETFUTURES_LEVEL"
_OOM_SCORE: Final = 500
# Tasks that close "all" descriptors stop below; higher ones would cost memory and time in each fork.
_DESCRIPTOR_MAX: Final = 4096


def live(fds: list[int], worker_pid: int) -> NoReturn:
    """The whole life of a child that the zygote has forked with these descriptors."""
    tasks_fd, results_fd, page_fd, stdout_fd, stderr_fd = fds
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    tasks, results = _raised_socket(tasks_fd), _raised_socket(results_fd)
    page = mmap.mmap(page_fd, SHARED_BYTES)
    for fd in fds:
        os.close(fd)
    shared = memoryview(page)
    words = shared[:PAGE_BYTES].cast("Q")
    outgoing = Outgoing(results, words)
    _settle_in()
    outgoing.open_streams()
    loop = TaskLoop(outgoing, words, shared[PAGE_BYTES:])
    _serve(tasks, outgoing, loop, worker_pid)


def _raised_socket(fd: int) -> socket.socket:
    """The same socket at one of the highest descriptor numbers, out of the way of tasks that close the low ones."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = min(soft, _DESCRIPTOR_MAX) if soft > 0 else _DESCRIPTOR_MAX
    raised = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, top - 2)
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=raised)


def _settle_in() -> None:
    """Become a process like a fresh interpreter: own group, signals, random numbers, environment, `__main__`."""
    os.setpgid(0, 0)
    kernel.set_process_name("nf-child")
    kernel.become_subreaper()
    # A container may forbid it; then the kernel chooses between this and the worker by size.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
        adjusted = min(1000, int(file.read()) + _OOM_SCORE)
        file.seek(0)
        file.write(b"%d" % adjusted)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The standard library's `random` sees to itself after a fork.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    level = os.environ.get(LEVEL_VARIABLE, "0")
    for name in [name for name in os.environ if name.startswith("NETFUTURES_")]:
        del os.environ[name]
    os.environ[LEVEL_VARIABLE] = str(int(level) + 1 if level.isdecimal() else 1)
    sys.modules["__main__"] = ModuleType("__main__")
    if sys.stdin is None:
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115


def _serve(tasks: socket.socket, outgoing: Outgoing, loop: TaskLoop, worker_pid: int) -> NoReturn:
    """Read packets until the worker says that it is enough, or is gone."""
    buffer = bytearray(PACKET_BYTES_MAX)
    view = memoryview(buffer)
    into = (buffer,)
    room = socket.CMSG_LEN(4)
    close_on_exec, truncated = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_TRUNC)
    while True:
        try:
            count, ancillary, flags, _ = tasks.recvmsg_into(into, room, close_on_exec)
        except OSError as error:
            leave(error)
        if not count:
            os._exit(channel.EXIT_CHANNEL)
        try:
            if flags & truncated:
                raise PacketBroken(f"a packet of tasks was larger than {PACKET_BYTES_MAX} bytes")
            packet = unpack(view[:count])
            if ancillary:
                _attach(packet, ancillary[0][2])
            kind = packet[0]
            if kind == channel.TASKS:
                _, number, first, payloads, *_ = packet
                packet = []
                loop.run(number, first, payloads)
                payloads = None
            elif kind == channel.FUNCTION:
                loop.learn(*packet[1:4])
            elif kind == channel.PREPARE:
                _prepare(packet[1], packet[2], outgoing, worker_pid)
            elif kind == channel.FINISH:
                _finish(outgoing)
        except PacketBroken:
            traceback.print_exc()
            outgoing.flush()
            os._exit(channel.EXIT_PROTOCOL)


def _attach(packet: list[Any], rights: bytes) -> None:
    """Put what came as a descriptor in the place of its size."""
    fd = array.array("i", rights)[0]
    if packet[0] == channel.TASKS:
        packet[3][0] = open_memory(Memory.received(fd, packet[3][0]))
    else:
        # A function may be loaded many times; from bytes each time gets buffers of its own.
        place = 2 if packet[0] == channel.FUNCTION else 1
        packet[place] = bytes(open_memory(Memory.received(fd, packet[place])))


def _prepare(initializer: Buffer | None, extra: dict[str, Any] | None, outgoing: Outgoing, worker_pid: int) -> None:
    """Tie this life to the worker's, take over what the session wants, run the initializer, report."""
    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != worker_pid:
        os._exit(channel.EXIT_ORPHANED)
    exact = kernel.join_barriers()
    extra = extra or {}
    sys.path[:] = extra.get("sys_path", sys.path)
    sys.argv[:] = extra.get("argv", sys.argv)
    stage = OURS
    if initializer is not None:
        try:
            stage = BODY
            load_function(initializer)()
            stage = OURS
        except BaseException:
            stage = OURS  # noqa: F841 (`interrupt` reads it)
            text = traceback.format_exc()
            outgoing.settle()
            outgoing.send(channel.pack((channel.FAILED, text[-channel.INLINE_BYTES_MAX // 4 :])))
            os._exit(channel.EXIT_INITIALIZER)
        outgoing.settle()
    outgoing.send(channel.pack((channel.READY, os.getpid(), exact)))


def _finish(outgoing: Outgoing) -> NoReturn:
    """End as a program does: threads, exit handlers, what was printed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 0
    for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        try:
            step()
        except BaseException:
            status = 1
            traceback.print_exc()
    outgoing.flush()
    os._exit(status)


_GUARDED: Final = frozenset((TaskLoop.run.__code__, _prepare.__code__))


def interrupt(_number: int, frame: FrameType | None) -> None:
    """SIGINT: KeyboardInterrupt in the task that runs; nothing between tasks, since it would be nobody's."""
    while frame is not None and frame.f_code not in _GUARDED:
        frame = frame.f_back
    if frame is not None and frame.f_locals["stage"] != OURS:
        raise KeyboardInterrupt
