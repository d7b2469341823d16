"""Starts and ends the one process of the embedded cluster, and knows how it died."""

import marshal
import os
import re
import select
import signal
import socket
import sys
import warnings
from typing import Any

from netfutures.limits import EMBEDDED_START_TIMEOUT_S, END_GRACE_S

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "embedded_main.py")
READY = b"ready"
"""What the process says when it serves; from then on the socket carries messages."""


class StartFailed(Exception):
    """The embedded cluster could not be started."""


class Embedded:
    """One embedded cluster, from its start to its end; used by the I/O thread only."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._pid = 0
        self.pidfd = -1
        self._channel: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The process, 0 before its start and after its end."""
        return self._pid

    def launch(self) -> None:
        """Starts the process; `await_ready` waits for it. Raises `StartFailed`."""
        near, far = socket.socketpair()
        try:
            setup = self._setup()
            self._pid = _spawn(far.fileno())
            self.pidfd = os.pidfd_open(self._pid)
            packed = marshal.dumps(setup)
            near.settimeout(EMBEDDED_START_TIMEOUT_S)
            near.sendall(len(packed).to_bytes(8, "little") + packed)
        except OSError as error:
            near.close()
            raise StartFailed(f"the process of the embedded cluster could not be started: {error}") from error
        finally:
            far.close()
        self._channel = near

    def await_ready(self) -> socket.socket:
        """Waits until it serves; returns the socket that leads to its broker.

        Raises `StartFailed` when it dies or takes too long.
        """
        channel = self._channel
        assert channel is not None
        try:
            answer = channel.recv(len(READY))
        except ConnectionResetError:
            answer = b""
        except OSError as error:
            raise StartFailed(f"the embedded cluster (pid {self._pid}) did not get ready: {error}") from error
        if answer != READY:
            end = self.await_death() or {}
            raise StartFailed(
                f"the embedded cluster (pid {self._pid}) ended before it was ready, with exit code"
                f" {end.get('exit_code')} and signal {end.get('signal')}: what it wrote to stderr says why"
            )
        return channel

    def reap(self) -> dict[str, Any] | None:
        """How it ended, as the fields of a death certificate; None while it lives."""
        certificate: dict[str, Any] = {"host": socket.gethostname(), "pid": self._pid}
        try:
            status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return certificate  # Somebody in this process has reaped it, with its status.
        if status is None:
            return None
        is_exit = status.si_code == os.CLD_EXITED
        return {
            **certificate,
            "exit_code": status.si_status if is_exit else None,
            "signal": None if is_exit else status.si_status,
        }

    def await_death(self) -> dict[str, Any] | None:
        """What `reap` says, after a moment for it to die."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll(1000)
        return self.reap()

    def end(self, *, at_once: bool) -> None:
        """Waits for its end, which it was told of, or kills it; leaves nothing behind."""
        if self._channel is not None:
            self._channel.close()
        if self.pidfd >= 0:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            if at_once or not poll.poll((END_GRACE_S + 1) * 1000):
                self._kill()
                poll.poll(1000)
            self.reap()
            end_session(self._pid)
            os.close(self.pidfd)
            self.pidfd = -1
            self._pid = 0

    def _kill(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        except ProcessLookupError:
            return  # It is gone.
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(1000):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def _setup(self) -> dict[str, Any]:
        return {
            "sys_path": [str(entry) for entry in sys.path],
            "argv": [str(argument) for argument in getattr(sys, "argv", [])],
            "slots": self._slots,
            "warnings": _warning_filters(),
        }


def _warning_filters() -> list[tuple[str, str, str, str, int]]:
    """The filters of this process whose category is Python's own, the first one first, as plain values."""
    return [
        (action, _pattern(message), category.__name__, _pattern(module), line)
        for action, message, category, module, line in warnings.filters
        if isinstance(category, type) and category.__module__ == "builtins"
    ]


def _pattern(wanted: str | re.Pattern[str] | None) -> str:
    """What a filter wants a text to match; the interpreter's own filters have the text itself."""
    if wanted is None:
        return ""
    return re.escape(wanted) + r"\Z" if isinstance(wanted, str) else wanted.pattern


def _spawn(channel_fd: int) -> int:
    """The process, in a session of its own, with the client's flags and without its ignored signals."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # there is no public name

    flags: list[str] = _args_from_interpreter_flags()
    if "-P" not in flags and not sys.flags.safe_path:
        flags.append("-P")  # The program's own directory is no place to import from.
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *flags, str(PROGRAM), "3"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, channel_fd, 3)],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT],
        )
    finally:
        os.close(null)


def end_session(session: int) -> None:
    """Kills what is left of a dead cluster: every process of its session."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[3]) == session:
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            continue  # It ended meanwhile.
