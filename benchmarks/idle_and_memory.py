"""What does a pool cost that does nothing: its cores' time, its memory, and the memory of a task that waits?"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Executor
from typing import Any

from benchmarks.calls import nap, nothing
from benchmarks.measure import CHECKOUT, Row, cpu_s, memory_bytes, report, slots, tree

IDLE_S = 10.0
QUEUED = 30_000
NAP_S = 4.0
"""How long all slots are busy while tasks are queued behind them and counted."""
SETTLE_S = 1.5
"""How long sending what may be sent can take, before the memory is read."""
TIMEOUT_S = 60


def run(scale: float = 1.0) -> list[Row]:
    """Each kind in a process of its own."""
    ours, theirs = _measured("ours", scale), _measured("theirs", scale)

    def row(what: str, name: str, unit: str, digits: int, factor: float = 1.0) -> Row:
        first, second = ours[name] * factor, theirs[name] * factor
        return Row(what, f"{first:,.{digits}f} {unit}", f"{second:,.{digits}f} {unit}", _ratio(first, second))

    pool = f"a pool of {slots()} slots, all used"
    return [
        row(f"time on a core, whole tree, in {ours['idle_s']:.0f} s of idleness", "idle_cpu_s", "ms", 1, 1000),
        row(f"memory of {pool}: PSS beyond the bare client", "pss_bytes", "MB", 1, 1e-6),
        row(f"memory of {pool}: RSS of all processes, client too", "rss_bytes", "MB", 1, 1e-6),
        row(f"memory of a queued task, of {ours['queued']:,.0f} (PSS, whole tree)", "task_bytes", "B", 0),
    ]


def _ratio(first: float, second: float) -> str:
    return f"{first / second:.2g}x" if second > 0 else ""


def _measured(kind: str, scale: float) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.idle_and_memory", "measure", kind, str(scale)],
        capture_output=True, cwd=CHECKOUT, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"measuring {kind} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measure(kind: str, scale: float) -> dict[str, float]:
    """In the fresh process: before there is a pool, with one that idles, and with one that is full."""
    me = os.getpid()
    gc.collect()
    _, bare = memory_bytes([me])
    executor = _executor(kind)
    for future in [executor.submit(nap, 0.1) for _ in range(slots())]:
        future.result()
    for _ in executor.map(nothing, range(1000)):
        pass
    gc.collect()
    rss, pss = memory_bytes(tree(me))
    idle_s = max(1.0, IDLE_S * scale)
    idle_cpu_s = _idle_cpu_s(me, idle_s)
    count = max(1000, int(QUEUED * scale))
    task_bytes = _queued_task_bytes(me, executor, count)
    return {
        "idle_s": idle_s, "idle_cpu_s": idle_cpu_s, "rss_bytes": rss, "pss_bytes": pss - bare,
        "queued": count, "task_bytes": task_bytes,
    }  # fmt: skip


def _executor(kind: str) -> Executor:
    if kind == "ours":
        from netfutures import Executor as OurExecutor

        return OurExecutor(slots(), address="local")
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return ProcessPoolExecutor(slots(), mp_context=get_context("fork"))


def _idle_cpu_s(root: int, idle_s: float) -> float:
    time.sleep(0.5)  # What the warm-up left to do is no idleness.
    pids = tree(root)
    before = cpu_s(pids)
    time.sleep(idle_s)
    after = cpu_s(pids)
    # Reading all this costs time on a core too; so it is read once more, and that is taken off.
    return max(0.0, after - before - (cpu_s(pids) - after))


def _queued_task_bytes(root: int, executor: Executor, count: int) -> float:
    """Tasks that wait behind slots which are all busy; futures included, as users keep them."""
    busy = [executor.submit(nap, NAP_S) for _ in range(slots())]
    time.sleep(0.2)
    gc.collect()
    _, before = memory_bytes(tree(root))
    futures: list[Any] = [executor.submit(nothing, number) for number in range(count)]
    time.sleep(SETTLE_S)
    _, after = memory_bytes(tree(root))
    if any(future.done() for future in (*busy, futures[-1])):
        raise AssertionError("a task ended while the queue was measured")
    executor.shutdown(cancel_futures=True)
    return (after - before) / count


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(_measure(sys.argv[2], float(sys.argv[3]))))
    else:
        report("idle_and_memory", run)
