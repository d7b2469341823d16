"""The clean process from which a worker forks its children, and the worker's side of it."""

from __future__ import annotations


class ZygoteLost(Exception):
    """The zygote is gone, so this worker can start no child any more."""


class ChildNotStarted(Exception):
    """The zygote could not fork the child that was asked for."""


class Zygote:
    """The worker's side; watch `fileno()` and, for its death, `pidfd`."""

    __slots__ = ("in_flight", "pid", "pidfd")
    pid: int
    pidfd: int
    in_flight: int  # requests that have not been answered

    def fileno(self) -> int:
        """Readable when an answer has come, or the zygote is gone."""
        raise NotImplementedError

    def request_child(self, fds: list[int]) -> None:
        """Ask for a child that gets these descriptors; raises ZygoteLost."""
        raise NotImplementedError

    def receive(self) -> int:
        """The pid of the oldest request's child; raises ChildNotStarted (that request failed) or ZygoteLost."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the zygote end; its children live on."""
        raise NotImplementedError


def start_zygote() -> Zygote:
    """Fork the zygote: from the main thread, before other threads, ZeroMQ and exit handlers are there."""
    raise NotImplementedError
