"""`python -m tests.simulation SEED [TO]`: runs the worlds of these seeds; `--show` tells everything that happens."""

import argparse
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

# Started in this way the folder of the tests is not on the path yet, as it is for pytest.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulation.auditor import Fault
from simulation.broken_rules import BROKEN_RULES
from simulation.world import World


def main() -> int:
    """Runs what was asked for; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("first", type=int, help="the seed, or the first of them")
    parser.add_argument("stop", type=int, nargs="?", help="the seed after the last")
    parser.add_argument("--show", action="store_true", help="print every event")
    parser.add_argument("--broken", choices=BROKEN_RULES, help="break this rule, to see how many seeds find it")
    chosen = parser.parse_args()
    with BROKEN_RULES[chosen.broken]() if chosen.broken else nullcontext():
        return run(chosen)


def run(chosen: argparse.Namespace) -> int:
    """Runs the chosen seeds, and tells what came."""
    counts: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in range(chosen.first, chosen.stop or chosen.first + 1):
        world = World(seed, print if chosen.show else None)
        counts["seeds"] += 1
        try:
            world.run()
        except Fault as fault:
            counts["bad seeds"] += 1
            print(fault if chosen.stop is None else str(fault).partition("\n")[0])
        counts.update(world.counts())
        if chosen.stop is None:
            print(f"trace hash {world.timeline.trace_hash}")
    print(f"{time.perf_counter() - began:.1f} s; " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 1 if counts["bad seeds"] else 0


if __name__ == "__main__":
    sys.exit(main())
