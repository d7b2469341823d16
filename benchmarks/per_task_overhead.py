"""What does one task cost that does nothing: how many go through in a second, and how long does one take alone?"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from time import perf_counter

from benchmarks.calls import nothing
from benchmarks.measure import Row, median_text, percentile, ratio, report, slots

SUBMITTED = 100_000
MAPPED = 20_000
ROUND_TRIPS = 600
WARM_UP = 200


def run(scale: float = 1.0) -> list[Row]:
    """Throughput in three rounds and latency in seven, all with fresh executors of both kinds."""
    submitted, mapped = _scaled(SUBMITTED, scale), _scaled(MAPPED, scale)
    submits = _pairs(lambda executor: _submit(executor, submitted), 3)
    maps = _pairs(lambda executor: _map(executor, mapped), 3)
    trips = _pairs(lambda executor: _round_trips(executor, _scaled(ROUND_TRIPS, scale)), 7)
    return [
        _throughput(f"submit, {submitted:,} tasks, to the last result", submitted, submits, "≥ 10x"),
        _throughput(f"map, chunksize 1, {mapped:,} tasks", mapped, maps),
        *_latency(trips),
    ]


Times = list[float]
Pair = tuple[Times, Times]
"""Ours, then theirs."""


def _scaled(count: int, scale: float) -> int:
    return max(100, int(count * scale))


def _pairs(measure: Callable[[Executor], Times], rounds: int) -> list[Pair]:
    """Each round has fresh executors of both kinds, and the other one begins."""
    return [_pair(measure, begins=round_ % 2) for round_ in range(rounds)]


def _pair(measure: Callable[[Executor], Times], begins: int) -> Pair:
    """Both kinds after each other; theirs is started first, as it forks while this process has no other thread."""
    from netfutures import Executor as OurExecutor

    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(slots(), mp_context=fork) as theirs:
        _warm_up(theirs)
        with OurExecutor(slots(), address="local") as ours:
            _warm_up(ours)
            if begins == 0:
                first = measure(ours)
                return first, measure(theirs)
            second = measure(theirs)
            return measure(ours), second


def _warm_up(executor: Executor) -> None:
    executor.submit(nothing).result()
    for _ in executor.map(nothing, range(WARM_UP)):
        pass


def _submit(executor: Executor, count: int) -> Times:
    gc.collect()
    started = perf_counter()
    futures = [executor.submit(nothing, number) for number in range(count)]
    for future in futures:
        future.result()
    return [perf_counter() - started]


def _map(executor: Executor, count: int) -> Times:
    gc.collect()
    started = perf_counter()
    for _ in executor.map(nothing, range(count)):
        pass
    return [perf_counter() - started]


def _round_trips(executor: Executor, count: int) -> Times:
    """One at a time: the next is submitted when the last has come back."""
    gc.collect()
    times = []
    for number in range(count):
        started = perf_counter()
        executor.submit(nothing, number).result()
        times.append(perf_counter() - started)
    return times


def _throughput(what: str, count: int, pairs: list[Pair], goal: str = "") -> Row:
    ours = [count / first[0] for first, _ in pairs]
    theirs = [count / second[0] for _, second in pairs]
    return Row(what, median_text(ours, "tasks/s"), median_text(theirs, "tasks/s"), ratio(ours, theirs), goal)


def _latency(pairs: list[Pair]) -> list[Row]:
    rows = []
    for percent, goal in ((50, "≤ 1.3x"), (99, "")):
        ours = [percentile(first, percent) for first, _ in pairs]
        theirs = [percentile(second, percent) for _, second in pairs]
        what = f"round trip of one task alone, p{percent}"
        rows.append(Row(what, _spread(ours), _spread(theirs), ratio(ours, theirs), goal))
    return rows


def _spread(times: Times) -> str:
    """Latency has more than one mode, by where the kernel puts processes: so the extremes are told too."""
    return f"{statistics.median(times) * 1e6:.0f} µs ({min(times) * 1e6:.0f} to {max(times) * 1e6:.0f})"


if __name__ == "__main__":
    report("per_task_overhead", run)
