"""How long does a script wait for its first result, from the import on?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

from benchmarks.measure import CHECKOUT, Row, interleaved, median_text, ratio, report

ROUNDS = 10
TIMEOUT_S = 60

OURS = """
from time import perf_counter
started = perf_counter()
import netfutures
from benchmarks.calls import nothing
executor = netfutures.Executor(address="local")
executor.submit(nothing).result()
print(perf_counter() - started)
executor.shutdown()
"""
THEIRS = """
from time import perf_counter
started = perf_counter()
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from benchmarks.calls import nothing
executor = ProcessPoolExecutor(mp_context=get_context({method!r}))
executor.submit(nothing).result()
print(perf_counter() - started)
executor.shutdown()
"""
SCRIPTS = {"ours": OURS, "fork": THEIRS.format(method="fork"), "spawn": THEIRS.format(method="spawn")}


def run(scale: float = 1.0) -> list[Row]:
    """Fresh processes, ten of each kind."""
    rounds = max(2, int(ROUNDS * scale))
    whole: dict[str, list[float]] = {name: [] for name in SCRIPTS}
    kinds: dict[str, Callable[[], float]] = {name: partial(_first_result_s, name, whole[name]) for name in SCRIPTS}
    for script in kinds.values():
        script()  # So that every file is in the cache and compiled.
    for times in whole.values():
        times.clear()
    first = interleaved(kinds, rounds)
    return [
        *_rows("`import netfutures` to the first result", first, "≤ 0.2 s"),
        *_rows("the whole script, from exec to exit", whole),
    ]


def _first_result_s(kind: str, whole: list[float]) -> float:
    environment = {**os.environ, "PYTHONPATH": CHECKOUT}
    started = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPTS[kind]],
        capture_output=True, check=True, cwd=CHECKOUT, env=environment, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    whole.append(perf_counter() - started)
    return float(done.stdout)


def _rows(what: str, times: dict[str, list[float]], goal: str = "") -> list[Row]:
    ours = times["ours"]
    return [
        Row(
            f"{what}, against {method}",
            median_text(ours, "ms", 1000),
            median_text(times[method], "ms", 1000),
            ratio(ours, times[method]),
            goal,
        )
        for method in ("fork", "spawn")
    ]


if __name__ == "__main__":
    report("start", run)
