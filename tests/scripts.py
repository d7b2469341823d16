"""Writes a text as a script into a folder and runs it there, or starts it and lets the test follow what it prints."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from programs import Ended, surroundings

LIMIT_S = 45.0
Script = Callable[..., Ended]


def run(folder: Path, text: str, *arguments: str, **environment: str) -> Ended:
    """Runs it to its end; what is given as keywords is added to its environment."""
    done = subprocess.run(
        [sys.executable, str(_written(folder, text)), *arguments],
        cwd=folder,
        env=surroundings() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Running:
    """A script that runs: its lines can be waited for, one by one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self.pid = process.pid
        self._fd = process.stdout.fileno()
        self._buffer = b""

    def line(self) -> str:
        """The next line that it prints."""
        deadline = time.monotonic() + LIMIT_S
        while b"\n" not in self._buffer:
            readable = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            more = os.read(self._fd, 4096) if readable else b""
            assert more, f"it printed no whole line any more, only {self._buffer!r}"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def rest(self) -> str:
        """All that it and its children still print, until each of them has closed the stream."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            assert select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0], "it does not end"
            more = os.read(self._fd, 4096)
            if not more:
                return self._buffer.decode()
            self._buffer += more

    def numbers(self) -> list[int]:
        """The next line, as numbers."""
        return [int(word) for word in self.line().split()]

    def say(self, text: str = "go") -> None:
        """Writes a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()


@contextmanager
def started(folder: Path, text: str, **environment: str) -> Iterator[Running]:
    """Starts it; it is killed at the end if it still runs. Its stdout and stderr are one."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(_written(folder, text))],
        cwd=folder,
        env=surroundings() | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.kill()


def _written(folder: Path, text: str) -> Path:
    path = folder / "the_script.py"
    path.write_text(text)
    return path
