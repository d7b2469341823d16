"""The clean process from which a worker forks its children, and the worker's side of it.

It forks twice: the child's parent ends at once, so the child becomes the worker's own (the worker is a subreaper). Then
the worker can read how it ended, and it survives the zygote. A request is one packet with the child's descriptors;
the answer is the pid.
"""

from __future__ import annotations

import array
import errno
import gc
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

_ANSWER = struct.Struct("<ii")  # pid or 0, errno
_FDS_MAX = 8
_SOCKET_BYTES = 1 << 20


class ZygoteLost(Exception):
    """The zygote is gone, so this worker can start no child any more."""


class ChildNotStarted(Exception):
    """The zygote could not fork the child that was asked for."""


class Zygote:
    """The worker's side; watch `fileno()`, which becomes readable for an answer and for the zygote's death."""

    __slots__ = ("_socket", "in_flight", "pid", "pidfd")

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self._socket = channel
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.in_flight = 0  # requests that have not been answered

    def fileno(self) -> int:
        """Readable when an answer has come, or the zygote is gone."""
        return self._socket.fileno()

    def request_child(self, fds: list[int]) -> None:
        """Ask for a child that gets these descriptors; raises ZygoteLost."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self._socket.sendmsg([b"child"], rights)
        except OSError as error:
            raise self._lost(f"a request could not be sent: {error}") from error
        self.in_flight += 1

    def receive(self) -> int | None:
        """The pid of the oldest request's child, None if there is no answer; raises ChildNotStarted or ZygoteLost."""
        try:
            answer = self._socket.recv(_ANSWER.size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost(f"its socket failed: {error}") from error
        if len(answer) != _ANSWER.size:
            raise self._lost("its socket was closed")
        self.in_flight -= 1
        pid, number = _ANSWER.unpack(answer)
        if not pid:
            raise ChildNotStarted(
                f"the zygote with pid {self.pid} could not fork a child: {os.strerror(number)}; "
                "the limits on processes (ulimit -u, pids cgroup) and memory of this worker are the usual cause"
            )
        return int(pid)

    def _lost(self, how: str) -> ZygoteLost:
        """The error that tells how the zygote ended, as far as it is known by now."""
        self.in_flight = 0
        end = ""
        if self.pidfd >= 0:
            try:
                status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                status = None
            if status:
                exited = status.si_code == os.CLD_EXITED
                end = f" and it ended with {'exit code' if exited else 'signal'} {status.si_status}"
        return ZygoteLost(
            f"the zygote with pid {self.pid}, from which this worker forks its children, is lost: {how}{end}; "
            "children that run go on, but new ones need the worker to be started again"
        )

    def close(self) -> None:
        """Let the zygote end, and reap it; its children live on. May be called twice."""
        self._socket.close()
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass  # It has ended, and somebody has reaped it.
        os.close(self.pidfd)
        self.pidfd = -1


def start_zygote() -> Zygote:
    """Fork the zygote: from the main thread, before other threads, ZeroMQ and exit handlers are there.

    Its children inherit the modules that are loaded, the environment and the working directory as they are now.
    """
    from netfutures_worker.kernel import become_subreaper

    become_subreaper()
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Else the kernel reaps children, and nobody learns how they end.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue  # A program that was started without standard streams would have its sockets there.
    os.close(fd)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    worker_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live(theirs, worker_pid)
    theirs.close()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    ours.setblocking(False)
    return Zygote(ours, pid)


def _live(channel: socket.socket, worker_pid: int) -> NoReturn:
    """The whole life of the zygote."""
    status = 1
    try:
        _settle(channel, worker_pid)
        # What children need is loaded here, while the worker goes on with its own start.
        import netfutures_worker.child_main  # noqa: F401
        from netfutures.payload import load_cloudpickle

        load_cloudpickle()

        gc.collect()
        gc.freeze()
        _serve(channel, worker_pid)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _settle(channel: socket.socket, worker_pid: int) -> None:
    """Die with the worker, not with its terminal, and hold none of its files."""
    from netfutures_worker import kernel

    kernel.die_with_parent(signal.SIGKILL)
    if os.getppid() != worker_pid:
        os._exit(0)
    kernel.set_process_name("nf-zygote")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    # Objects of the worker's may still close these numbers one day, so they stay taken.
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in (null, channel.fileno()):
            try:
                os.dup2(null, fd, inheritable=False)
            except OSError:
                continue  # It was the listing's own.
    os.close(null)


def _serve(channel: socket.socket, worker_pid: int) -> None:
    """Fork a child for each request until the worker closes its end."""
    room = socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize)
    pids = os.pipe()
    os.set_blocking(pids[0], False)
    while True:
        try:
            message, ancillary, _, _ = channel.recvmsg(16, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return  # The worker was killed with answers unread.
        if not message:
            return
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        answer = _fork_twice(channel, pids, fds.tolist(), worker_pid)
        for fd in fds:
            os.close(fd)
        channel.send(answer)


def _fork_twice(channel: socket.socket, pids: tuple[int, int], fds: list[int], worker_pid: int) -> bytes:
    """Start one child, and return only when its parent between is gone."""
    from netfutures_worker.kernel import fork_bare

    try:
        between = fork_bare()
    except OSError as error:
        return _ANSWER.pack(0, error.errno or 0)
    if between:
        os.waitpid(between, 0)
        try:
            return os.read(pids[0], _ANSWER.size)
        except BlockingIOError:  # Somebody killed it before it could tell.
            return _ANSWER.pack(0, errno.EINTR)
    try:
        pid = os.fork()
        if pid == 0:
            channel.close()
            os.close(pids[0])
            os.close(pids[1])
            _become_child(fds, worker_pid)
        os.write(pids[1], _ANSWER.pack(pid, 0))
    except OSError as error:
        os.write(pids[1], _ANSWER.pack(0, error.errno or 0))
    finally:
        os._exit(0)


def _become_child(fds: list[int], worker_pid: int) -> NoReturn:
    """The first step of a child's life; whatever goes wrong in it, it ends here."""
    from netfutures_worker.child_main import live

    try:
        live(fds, worker_pid)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)
