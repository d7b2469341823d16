"""What system tests share: gates that hold tasks, and a way to run scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import scripts
from gates import Gate


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
def run_script(tmp_path: Path) -> scripts.Script:
    """Runs a text as a script in a folder of its own, and returns what came of it."""
    return partial(scripts.run, tmp_path)
