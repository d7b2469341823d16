"""A user's own files beside a script, named like our folders and words, disturb nothing: neither ours nor theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ["worker", "broker", "common", "client", "wire", "payload", "limits", "errors", "shell", "core", "channel"]
SCRIPT = f"""
import {", ".join(NAMES)}
from netfutures import Executor

def here():
    return worker.answer()

with Executor(max_workers=2) as executor:
    print(executor.submit(worker.answer).result(), executor.submit(here).result(), *executor.map(broker.answer, [1, 2]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"def answer(*_):\n    return 'my own {name}'\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


@pytest.mark.parametrize("command", [["script.py"], ["-m", "script"], ["-c", SCRIPT]], ids=["file", "module", "text"])
def test_a_user_s_own_files_disturb_nothing(folder: Path, command: list[str]) -> None:
    ended = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=50)
    worker, broker = "my own worker", "my own broker"
    assert (ended.stdout.strip(), ended.stderr) == (f"{worker} {worker} {broker} {broker}", "")
