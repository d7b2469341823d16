"""Ctrl-C on a terminal: the client gets it, its children do not, and the executor stays usable or ends as it should."""

from __future__ import annotations

import sys
from pathlib import Path

from programs import run_on_terminal

HOLD = """
import os, sys, threading, time
from netfutures import Executor

place = sys.argv[1]

def hold():
    print("holding", flush=True)
    while not os.path.exists(place):
        time.sleep(0.01)
    return "not interrupted"
"""


def on_terminal(tmp_path: Path, text: str, after: str) -> tuple[int, list[str]]:
    script = tmp_path / "the_script.py"
    script.write_text(HOLD + text)
    command = [sys.executable, str(script), str(tmp_path / "place")]
    ended = run_on_terminal(command, type_keys=(after, b"\x03"))
    return ended.status, ended.plain.replace("^C", "").split("\n")


def test_a_task_does_not_see_the_terminal_s_ctrl_c(tmp_path: Path) -> None:
    status, lines = on_terminal(
        tmp_path,
        """
executor = Executor(1)
future = executor.submit(hold)
try:
    future.result()
except KeyboardInterrupt:
    print("\\ninterrupted", future.cancel(), flush=True)
open(place, "w").close()
print(future.result(), executor.submit(len, "abc").result())
executor.shutdown()
""",
        "holding",
    )
    assert status == 0
    assert [line for line in lines if line] == ["holding", "interrupted False", "not interrupted 3"]


def test_ctrl_c_in_a_with_block_drops_and_interrupts(tmp_path: Path) -> None:
    status, lines = on_terminal(
        tmp_path,
        """
try:
    with Executor(1) as executor:
        futures = [executor.submit(hold) for _ in range(10)]
        futures[0].result()
except KeyboardInterrupt:
    print("\\ninterrupted", [future.cancelled() or future.exception() is not None for future in futures] == [True] * 10)
""",
        "holding",
    )
    assert status == 0
    assert [line for line in lines if line] == ["holding", "interrupted True"]


def test_ctrl_c_that_ends_the_script(tmp_path: Path) -> None:
    status, lines = on_terminal(
        tmp_path,
        """
executor = Executor(1)
futures = [executor.submit(hold) for _ in range(10)]
futures[0].result()
""",
        "holding",
    )
    assert status in (-2, 1, 130)
    assert "KeyboardInterrupt" in lines
    assert sum("Traceback" in line for line in lines) == 1, lines
