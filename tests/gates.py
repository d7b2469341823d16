"""Lets a test know that a task has started, and hold it until the test lets it go: two named pipes, and no sleeping."""

from __future__ import annotations

import contextlib
import os
import select
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

LIMIT_S = 30.0


def pass_gate(place: str, value: Any = None) -> Any:
    """The task: tells that it runs, waits until it is let through or the test is over, and returns the value."""
    tell_start(place)
    release = os.open(f"{place}/release", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(release, True)
    os.read(release, 1)
    os.close(release)
    return value


def tell_start(place: str) -> None:
    """The first half of that, for tasks that go on in their own way; the test reads this process's pid."""
    with contextlib.suppress(OSError):  # The test is over already.
        started = os.open(f"{place}/started", os.O_WRONLY | os.O_NONBLOCK)
        os.write(started, b"%d\n" % os.getpid())
        os.close(started)


def wait_running(*futures: Future[Any]) -> None:
    """Waits until each of them says that it runs, which it does some milliseconds after its start."""
    deadline = time.monotonic() + LIMIT_S
    while not all(future.running() for future in futures):
        assert time.monotonic() < deadline, futures
        assert not wait(futures, 0.005, "FIRST_COMPLETED").done, futures


class Gate:
    """The test's side of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.place = str(folder)
        """What `pass_gate` wants."""
        for name in ("started", "release"):
            os.mkfifo(folder / name)
        # Opened for both directions, so that neither side ever waits for the other to open it, nor sees an end.
        self._started = os.open(folder / "started", os.O_RDWR | os.O_NONBLOCK)
        self._release = os.open(folder / "release", os.O_RDWR)
        self._buffer = b""

    def wait_started(self, count: int = 1) -> list[int]:
        """The pids of the next so many tasks, once they run."""
        deadline = time.monotonic() + LIMIT_S
        while self._buffer.count(b"\n") < count:
            remaining_s = deadline - time.monotonic()
            if not select.select([self._started], [], [], max(0.0, remaining_s))[0]:
                raise TimeoutError(f"{self._buffer.count(10)} tasks started, not {count}")
            self._buffer += os.read(self._started, 4096)
        *pids, self._buffer = self._buffer.split(b"\n", count)
        return [int(pid) for pid in pids]

    def started_more(self) -> bool:
        """Whether tasks have started beyond those that were waited for."""
        return bool(self._buffer) or bool(select.select([self._started], [], [], 0)[0])

    def let_through(self, count: int = 1) -> None:
        """Lets so many tasks go on, now or when they come."""
        os.write(self._release, b"." * count)

    def open(self) -> None:
        """Lets everybody through: no task is held any more when a test ends, however it ends."""
        os.set_blocking(self._release, False)
        os.write(self._release, b"." * 4096)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *error: object) -> None:
        self.open()

    def close(self) -> None:
        """Gives its descriptors back."""
        os.close(self._started)
        os.close(self._release)
