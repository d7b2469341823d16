"""An interactive interpreter on a terminal: functions are defined, submitted, defined again; Ctrl-D leaves nothing."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from left_behind import processes_of_this_run, wait_until_gone
from programs import ESCAPE_SEQUENCE, ON_TERMINAL, surroundings

LIMIT_S = 30.0
PROMPT = ">>> "
CTRL_C, CTRL_D = "\x03", "\x04"


class Typist:
    """Types into an interpreter and reads what it writes."""

    def __init__(self, terminal: int, pid: int) -> None:
        self.pid = pid
        self.written = ""
        self._terminal = terminal
        self._seen = 0

    def enter(self, text: str, *expected: str) -> None:
        """Types these lines, and waits until what is expected was written, in this order, and a prompt."""
        self.type(text + "\r")
        for part in (*expected, PROMPT):
            self.read_up_to(part)

    def type(self, keys: str) -> None:
        """Types keys."""
        os.write(self._terminal, keys.encode())

    def read_up_to(self, text: str) -> None:
        """Waits until this is written, behind what was waited for before."""
        deadline = time.monotonic() + LIMIT_S
        while (at := self.written.find(text, self._seen)) < 0:
            assert self._read(deadline), f"no {text!r} in {self.written[self._seen :]!r}"
        self._seen = at + len(text)

    def read_to_the_end(self) -> None:
        """Waits until nobody has the terminal open any more."""
        deadline = time.monotonic() + LIMIT_S
        while self._read(deadline):
            continue

    def _read(self, deadline: float) -> bool:
        if not select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            more = os.read(self._terminal, 65536)
        except OSError:
            return False  # The last process that had the terminal has closed it.
        self.written += ESCAPE_SEQUENCE.sub("", more.decode()).replace("\r\n", "\n")
        return bool(more)


@contextmanager
def interpreter(*arguments: str) -> Iterator[tuple[Typist, subprocess.Popen[bytes]]]:
    """An interactive interpreter that has said its first prompt."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (40, 200))
        command = [sys.executable, "-I", "-S", "-c", ON_TERMINAL, sys.executable, "-q", *arguments]
        # The plain line editor on every version: it writes what was typed once, and nothing over it.
        environment = surroundings() | {"PYTHON_BASIC_REPL": "1", "PYTHON_COLORS": "0"}
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
        )
        os.close(theirs)
        with process:
            try:
                typist = Typist(ours, process.pid)
                typist.read_up_to(PROMPT)
                yield typist, process
            finally:
                process.kill()
    finally:
        os.close(ours)


def begin(typist: Typist) -> None:
    typist.enter("from netfutures import Executor; import os, time")
    typist.enter("ex = Executor(2)")


@pytest.mark.parametrize("arguments", [[], ["-i", "-c", "print('it goes on')"]], ids=["plain", "after a script"])
def test_functions_are_defined_and_defined_again_and_ctrl_d_ends_everything(arguments: list[str]) -> None:
    before = set(processes_of_this_run())
    with interpreter(*arguments) as (typist, process):
        begin(typist)
        typist.enter("def f(x):\r    return x + FIRST\r")
        typist.enter("FIRST = 1")
        typist.enter("ex.submit(f, 1).result()", "\n2\n")
        typist.enter("FIRST = 40")
        typist.enter("ex.submit(f, 1).result()", "\n41\n")
        typist.enter("def f(x):\r    return ('again', x)\r")
        typist.enter("ex.submit(f, 1).result()", "\n('again', 1)\n")
        typist.enter("list(ex.map(lambda x: x * FIRST, range(4)))", "\n[0, 40, 80, 120]\n")
        typist.enter("ex", "\n<", "Executor")
        typist.type(CTRL_D)
        typist.read_to_the_end()
        assert process.wait(LIMIT_S) == 0
    assert not wait_until_gone(before, 2.0)


def test_what_tasks_print_and_raise_is_seen() -> None:
    with interpreter() as (typist, process):
        begin(typist)
        typist.enter("ex.submit(print, 'from', 'a child').result()", "\nfrom a child\n")
        typist.enter("def g():\r    print('before it fails')\r    return 1 / 0\r")
        typist.enter("ex.submit(g).result()", "\nbefore it fails\n", "in g", "ZeroDivisionError: division by zero\n")
        typist.enter("future = ex.submit(os.getpid); future.result() != os.getpid()", "\nTrue\n")
        typist.type(CTRL_D)
        assert process.wait(LIMIT_S) == 0


def test_ctrl_c_ends_a_wait_and_the_executor_goes_on() -> None:
    with interpreter() as (typist, process):
        begin(typist)
        typist.enter("def hold(word):\r    print(word); time.sleep(1000)\r")
        typist.type("ex.submit(hold, 'it' + 'runs').result()\r")
        typist.read_up_to("itruns")
        typist.type(CTRL_C)
        typist.read_up_to("KeyboardInterrupt\n")
        typist.read_up_to(PROMPT)
        typist.enter("ex.submit(len, 'abc').result()", "\n3\n")
        typist.type("os._exit(0)\r")
        assert process.wait(LIMIT_S) == 0


def test_a_broken_pool_is_told_at_the_prompt() -> None:
    with interpreter() as (typist, process):
        begin(typist)
        typist.enter("ex.submit(os._exit, 3).result()", "BrokenWorkerPool", "exit code 3")
        typist.enter("ex.submit(len, 'abc')", "BrokenWorkerPool")
        typist.enter("ex = Executor(1); ex.submit(len, 'abcd').result()", "\n4\n")
        typist.type(CTRL_D)
        assert process.wait(LIMIT_S) == 0
