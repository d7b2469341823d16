"""Finds the processes that a test has started and left behind: children of this one, and orphans that bear its mark."""

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "NF_TEST_PROCESS"
PROC = Path("/proc")
# The standard library keeps these for the life of the process that asked for them.
KEPT_ON_PURPOSE = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@dataclass(frozen=True)
class Process:
    """One process as it was found; its start time tells it from a later one with the same pid."""

    pid: int
    parent: int
    state: str
    started: int

    def __str__(self) -> str:
        return f"    pid {self.pid}, child of {self.parent}, state {self.state}: {self.command()}"

    def command(self) -> str:
        return b" ".join(self.strings("cmdline")).decode(errors="replace").strip()

    def environment(self) -> list[bytes]:
        return self.strings("environ")

    def strings(self, file: str) -> list[bytes]:
        try:
            return (PROC / str(self.pid) / file).read_bytes().split(b"\0")
        except OSError:
            return []  # It has ended, or belongs to another user, so it is not ours.


def processes_of_this_run() -> dict[int, Process]:
    """By pid: every living process that this one, or a process that it started, has started. A zombie is not alive."""
    me = read_process(PROC / "self")
    if me is None:
        return {}  # No Linux, so there is nowhere to look.
    mark = f"{MARK}={me.pid}".encode()
    candidates = [read_process(PROC / name) for name in os.listdir(PROC) if name.isdigit()]
    return {
        process.pid: process
        for process in candidates
        if process is not None
        and process.pid != me.pid
        and process.started >= me.started
        and process.state not in "ZX"
        and (process.parent == me.pid or mark in process.environment())
        and not any(kept in process.command() for kept in KEPT_ON_PURPOSE)
    }


def wait_until_gone(known: set[int], limit_s: float) -> dict[int, Process]:
    """Waits for the end of every process that is not known, and returns those that have not come to it."""
    deadline = time.monotonic() + limit_s
    while True:
        left = {pid: process for pid, process in processes_of_this_run().items() if pid not in known}
        remaining_s = deadline - time.monotonic()
        if not left or remaining_s <= 0:
            return left
        wait_for_exit(next(iter(left)), remaining_s)


def wait_for_exit(pid: int, limit_s: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(limit_s * 1000)
    finally:
        os.close(descriptor)


def end_processes(processes: dict[int, Process]) -> None:
    for process in processes.values():
        now = read_process(PROC / str(process.pid))
        if now is not None and now.started == process.started:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # It ended by itself.


def read_process(entry: Path) -> Process | None:
    try:
        stat = (entry / "stat").read_text(errors="replace")
    except OSError:
        return None  # It has ended since the folder was listed.
    pid, _, rest = stat.partition(" ")
    fields = rest.rpartition(")")[2].split()  # The command's name may hold blanks and brackets.
    return Process(int(pid), int(fields[1]), fields[0], int(fields[19]))
