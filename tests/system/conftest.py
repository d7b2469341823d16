"""What system tests share: a gate that holds tasks, a way to run scripts, and a folder of their own to run them in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gates import Gate
from programs import Ended, surroundings

Script = Callable[..., Ended]
SCRIPT_LIMIT_S = 45.0


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Makes gates; they are open once the test ends, so that nobody is held for ever."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate(tmp_path / f"gate{len(gates)}"))
        return gates[-1]

    yield make
    for gate in gates:
        gate.open()
        gate.close()


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    """One of them."""
    return make_gate()


@pytest.fixture
def run_script(tmp_path: Path) -> Script:
    """Runs a text as a script in a folder of its own, and returns what came of it."""

    def run(text: str, *arguments: str, **environment: str) -> Ended:
        path = tmp_path / "the_script.py"
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            cwd=tmp_path,
            env=surroundings() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCRIPT_LIMIT_S,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run
