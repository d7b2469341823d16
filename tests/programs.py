"""Runs a program as people do: with its output in a pipe, under nohup, or on a terminal, where keys can be typed."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LIMIT_S = 40.0
READ_BYTES = 65536
ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
BLANKS_AT_END = re.compile(r" +$", re.MULTILINE)

# The first process of a session gets the terminal that it opens as its own, so that Ctrl-C reaches its whole group.
ON_TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Ended:
    """A program that has ended: what it wrote, and its exit status. On a terminal both streams are in `output`."""

    status: int
    output: str
    errors: str = ""

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def plain(self) -> str:
        """The output without colours, movements of the cursor, and blanks at the ends of lines."""
        return BLANKS_AT_END.sub("", ESCAPE_SEQUENCE.sub("", self.output))


def run_in_pipe(command: Sequence[str], limit_s: float = LIMIT_S) -> Ended:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, env=surroundings()
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def run_under_nohup(command: Sequence[str], limit_s: float = LIMIT_S) -> Ended:
    """SIGHUP is ignored in the program from its start on."""
    return run_in_pipe(["nohup", *command], limit_s)


def run_on_terminal(
    command: Sequence[str], limit_s: float = LIMIT_S, *, columns: int = 80, type_keys: tuple[str, bytes] | None = None
) -> Ended:
    """With `type_keys=(text, keys)` the keys are typed once the program has written the text."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (40, columns))
        launch = [sys.executable, "-I", "-S", "-c", ON_TERMINAL, *command]
        process = subprocess.Popen(
            launch, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=surroundings()
        )
        os.close(theirs)
        try:
            output = _read_terminal(ours, time.monotonic() + limit_s, type_keys)
            return Ended(process.wait(limit_s), output.replace("\r\n", "\n"))
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(ours)


def _read_terminal(ours: int, deadline: float, type_keys: tuple[str, bytes] | None) -> str:
    """All that is written until the last process with this terminal has closed it."""
    written = b""
    while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            written += os.read(ours, READ_BYTES)
        except OSError:
            return written.decode()
        if type_keys and type_keys[0].encode() in written:
            os.write(ours, type_keys[1])
            type_keys = None
    raise TimeoutError(f"the program was not done in time; it wrote: {written.decode(errors='replace')}")


def surroundings() -> dict[str, str]:
    """This process's environment, without what would change how a program writes to a terminal."""
    changing = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"}
    return {name: value for name, value in os.environ.items() if name not in changing} | {"TERM": "xterm-256color"}


Run = Callable[[Sequence[str]], Ended]
WAYS: dict[str, Run] = {"pipe": run_in_pipe, "nohup": run_under_nohup, "terminal": run_on_terminal}
