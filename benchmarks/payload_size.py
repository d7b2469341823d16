"""How long does a payload take to a child and back, by its size, as bytes and as a numpy array?"""

from __future__ import annotations

import gc
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.calls import echo, nothing
from benchmarks.measure import Row, interleaved, median_text, ratio, report, slots

SIZES_BYTES = (100, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
SECONDS_A_SIZE = 2.0
"""About so long each size is repeated, both kinds together, after two round trips to warm up."""
ROUNDS_MAX = 200
ROUNDS_MIN = 3
TIMEOUT_S = 60


def run(scale: float = 1.0) -> list[Row]:
    """Echoes of one payload at a time, both kinds in turn."""
    from netfutures import Executor as OurExecutor

    fork = multiprocessing.get_context("fork")
    rows: list[Row] = []
    with ProcessPoolExecutor(slots(), mp_context=fork) as theirs:
        theirs.submit(nothing).result()
        with OurExecutor(slots(), address="local") as ours:
            ours.submit(nothing).result()
            for what, payload in _payloads(scale):
                rows.append(_row(what, payload, ours, theirs, scale))
    return rows


def _payloads(scale: float) -> Iterator[tuple[str, Any]]:
    largest = SIZES_BYTES[-1] if scale >= 1 else 1_000_000
    for size_bytes in SIZES_BYTES:
        if size_bytes <= largest:
            yield f"echo of {_size(size_bytes)}, bytes", bytes(size_bytes)
    try:
        import numpy
    except ImportError:
        print("numpy is not installed, so arrays are left out", file=sys.stderr)
        return
    for size_bytes in SIZES_BYTES:
        if size_bytes <= largest:
            yield f"echo of {_size(size_bytes)}, numpy array", numpy.ones(size_bytes, dtype=numpy.uint8)


def _size(size_bytes: int) -> str:
    for unit, factor in (("MB", 1_000_000), ("KB", 1_000)):
        if size_bytes >= factor:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"


def _row(what: str, payload: Any, ours: Executor, theirs: Executor, scale: float) -> Row:
    kinds: dict[str, Callable[[], float]] = {
        "ours": partial(_echo_s, ours, payload),
        "theirs": partial(_echo_s, theirs, payload),
    }
    for kind in kinds.values():
        kind()
    one_round_s = sum(kind() for kind in kinds.values())
    rounds = int(min(ROUNDS_MAX, max(ROUNDS_MIN, SECONDS_A_SIZE * scale / one_round_s)))
    times = interleaved(kinds, rounds)
    first, second = times["ours"], times["theirs"]
    return Row(what, median_text(first, "ms", 1000), median_text(second, "ms", 1000), ratio(first, second))


def _echo_s(executor: Executor, payload: Any) -> float:
    gc.collect()
    started = perf_counter()
    came = executor.submit(echo, payload).result(TIMEOUT_S)
    took_s = perf_counter() - started
    if len(came) != len(payload) or came[-1] != payload[-1]:
        raise AssertionError("the payload came back changed")
    return took_s


if __name__ == "__main__":
    report("payload_size", run)
