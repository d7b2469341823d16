"""What the benchmarks share: interleaved rounds, medians, the kernel's account of a tree of processes, the table."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

CHECKOUT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOAD_MAX: Final = 0.5
"""Above this load average, before the first benchmark has begun, the figures say little."""

FEW_ROUNDS_MAX: Final = 10


class Row(NamedTuple):
    """One line of the table of results."""

    what: str
    ours: str
    theirs: str
    ratio: str = ""
    goal: str = ""


def interleaved(kinds: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Calls every kind once in each round, each time another one first, so that all meet the same machine."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    names = list(kinds)
    for round_ in range(rounds):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(kinds[name]())
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the rounds' ratios; in brackets the smallest and largest, or the quartiles of many rounds."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    text = f"{_number(statistics.median(ratios))}x"
    if len(ratios) == 1:
        return text
    low, high = (25, 75) if len(ratios) > FEW_ROUNDS_MAX else (0, 100)
    return f"{text} ({_number(percentile(ratios, low))} to {_number(percentile(ratios, high))})"


def median_text(values: Sequence[float], unit: str, factor: float = 1.0) -> str:
    """The median with its unit."""
    return f"{_number(statistics.median(values) * factor)} {unit}"


def _number(value: float) -> str:
    """Three digits that count, as a person writes them."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


# What the kernel says.


def tree(root: int) -> list[int]:
    """A process and all its descendants, also those that have another session."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue  # It ended meanwhile.
    found = [root]
    for pid in found:
        found += [each for each, parent in parents.items() if parent == pid]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Time on a core of all threads of these processes, by the scheduler's own count."""
    nanoseconds = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9


def memory_bytes(pids: Iterable[int]) -> tuple[int, int]:
    """RSS and PSS of these processes; PSS counts a page that n of them share as a nth for each."""
    rss = pss = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            sizes = {name: int(size) * 1024 for name, size, *_ in map(str.split, file) if name in ("Rss:", "Pss:")}
        rss += sizes["Rss:"]
        pss += sizes["Pss:"]
    return rss, pss


def slots() -> int:
    """As many slots as this process has cores, for both sides."""
    return len(os.sched_getaffinity(0))


# What is printed.


def heading(command: str) -> str:
    """Date, machine, command and load, without which no figure says anything."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    load = os.getloadavg()[0]
    lines = [
        f"{now}, {_processor()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}; `{command}`; load {load:.2f} at the start."
    ]
    if load > LOAD_MAX:
        lines.append(f"**The machine was busy (load {load:.2f}): these figures say little.**")
    return "\n\n".join(lines)


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def report(name: str, run: Callable[[float], list[Row]]) -> None:
    """What a benchmark prints that is run alone, with a scale of the work as its argument."""
    scale = float((sys.argv[1:] or ["1"])[0])
    print(heading(f"python -m benchmarks.{name}"), end="\n\n", flush=True)
    print(table(run(scale)))


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ["| | netfutures | ProcessPoolExecutor | ratio | goal |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])
