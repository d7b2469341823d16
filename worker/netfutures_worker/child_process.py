"""The worker's side of one child: its sockets, its page and its death; it decides nothing.

In each turn of the worker's loop, handle what epoll named of `stdout_fd` and `stderr_fd` before `results_fd`: then
what a task wrote to descriptors 1 and 2 is there before its result is forwarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netfutures_worker.channel import Exit, Record, Revoked
from netfutures_worker.memory import Memory
from netfutures_worker.zygote import Zygote

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ChildProcess:
    """One life of one child; fds to watch are `results_fd`, `stdout_fd`, `stderr_fd` and, once started, `pidfd`."""

    __slots__ = ("pid", "pidfd", "results_fd", "slot", "stderr_fd", "stdout_fd")
    slot: int
    pid: int
    pidfd: int
    results_fd: int
    stdout_fd: int
    stderr_fd: int

    @classmethod
    def request(cls, zygote: Zygote, slot: int) -> ChildProcess:
        """Ask the zygote for a child; `started(pid)` completes it when the zygote has answered."""
        raise NotImplementedError

    def started(self, pid: int) -> None:
        """The zygote has answered: watch the process. Then `prepare()`."""
        raise NotImplementedError

    def prepare(self, initializer: Buffer | Memory | None, extra: dict[str, Any] | None = None) -> None:
        """Let the child run its initializer (a function payload that is called without arguments) and report READY."""
        raise NotImplementedError

    def give_function(self, number: int, payload: Buffer | Memory, cacheable: bool) -> None:
        """Hand over a function under a number of the caller's; a Memory stays the caller's."""
        raise NotImplementedError

    def give_tasks(self, function_number: int, first_index: int, payloads: Sequence[Buffer | Memory]) -> None:
        """Hand over consecutive tasks; large ones go in packets of their own. A Memory stays the caller's."""
        raise NotImplementedError

    def receive(self) -> list[Record]:
        """What `results_fd` has, after epoll named it."""
        raise NotImplementedError

    def harvest(self) -> list[Record]:
        """All that the child has said and finished so far, output before results; for slow and for dead children."""
        raise NotImplementedError

    def revoke(self, limit: int | None = None) -> Revoked:
        """Take back what has not started (from index `limit` on, else all); tasks given later start as usual."""
        raise NotImplementedError

    def lift(self) -> None:
        """Needless after `revoke`, since what is given later may start; it only makes the child's checks cheaper."""
        raise NotImplementedError

    def claim(self) -> int:
        """The index of the task that it runs or ran last, 0 before the first."""
        raise NotImplementedError

    def read_output(self, stream: int) -> bytes | None:
        """What lies in the pipe of descriptor 1 or 2, after epoll named it; None: it is closed, stop watching it."""
        raise NotImplementedError

    def end(self) -> None:
        """Let it end in good order after what it holds."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it and its process group at once; its death is seen on `pidfd`. Before `started`, it is ended there."""
        raise NotImplementedError

    def reap(self) -> Exit | None:
        """How it ended, None while it lives; its pid means nothing afterwards."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up all descriptors and the page; may be called twice."""
        raise NotImplementedError
