"""Runs all benchmarks, or those that are named, and prints one Markdown table for README.md."""

import argparse
import sys
from collections.abc import Callable
from time import perf_counter

from benchmarks import idle_and_memory, payload_size, per_task_overhead, start
from benchmarks.measure import Row, heading, table

BENCHMARKS: dict[str, Callable[[float], list[Row]]] = {
    "start": start.run,
    "per_task_overhead": per_task_overhead.run,
    "payload_size": payload_size.run,
    "idle_and_memory": idle_and_memory.run,
}


def main() -> None:
    """Progress goes to stderr, so that stdout is the table alone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work, to see that they run")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    scale = 0.05 if options.quick else 1.0
    print(heading(" ".join(["python -m benchmarks", *sys.argv[1:]])), end="\n\n", flush=True)
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        started = perf_counter()
        rows += BENCHMARKS[name](scale)
        print(f"{name}: {perf_counter() - started:.0f} s", file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
