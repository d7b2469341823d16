"""Finds and ends what dead children's tasks left running: it became this process's, since that is their subreaper."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Container
from typing import Final

from netfutures_worker.kernel import become_subreaper

__all__ = ["become_subreaper", "end_strays"]

# New ones appear while old ones die, as each death hands its own children on; a fork bomb is left for the next call.
_ROUNDS_MAX: Final = 50
_WAIT_S_MAX: Final = 0.2


def end_strays(known: Container[int], in_flight: int = 0) -> int:
    """End all direct children but the known pids, with their groups; does nothing while the zygote forks.

    `known` has the zygote's pid and those of all children that have not been reaped. Returns how many were ended.
    """
    if in_flight:
        return 0
    deadline = time.monotonic() + _WAIT_S_MAX
    ended = 0
    for _ in range(_ROUNDS_MAX):
        # The kernel's list may leave one out while another dies, so that none must be seen twice.
        strays = [pid for pid in _children() if pid not in known] or [pid for pid in _children() if pid not in known]
        if not strays:
            break
        for pid in strays:
            _kill_group(pid, known)
            ended += _end(pid, deadline)
        if time.monotonic() >= deadline:
            break
    return ended


def _kill_group(pid: int, known: Container[int]) -> None:
    """Kill all of a stray's process group, unless that is ours or a living child's."""
    try:
        group = os.getpgid(pid)
        if group != os.getpgrp() and group not in known:
            os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # It is gone, or it is another user's: then we can only kill the stray itself.


def _end(pid: int, deadline: float) -> bool:
    """Kill one stray and reap it, if it dies in time; else the next call does that."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None
    except (ProcessLookupError, ChildProcessError, PermissionError):
        return False
    finally:
        os.close(pidfd)


def _children() -> list[int]:
    """The pids of this process's direct children."""
    children: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                children += map(int, file.read().split())
    except FileNotFoundError:
        return _children_by_parent()
    return children


def _children_by_parent() -> list[int]:
    """The same where the kernel does not list them: all processes whose parent is this one."""
    me = os.getpid()
    children = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == me:
            children.append(int(name))
    return children
