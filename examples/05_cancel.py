"""Cancelling queued tasks: `cancel()` says True only for a task that has not started, and such a task never will.

Ten tasks, two slots. When two run, all are cancelled from the last to the first. Prints 'canceled' for the eight that
waited and 'not canceled' for the two that ran.
"""

import time
from concurrent.futures import wait
from typing import Any

from netfutures import Executor


def nap(number: int) -> int:
    time.sleep(1)
    return number


def tell(fn: Any) -> None:
    print(f"callback: {fn.number} was {'canceled' if fn.cancelled() else 'not canceled'}")


with Executor(max_workers=2) as ex:
    futures: list[Any] = [ex.submit(nap, number) for number in range(10)]
    for number, future in enumerate(futures):
        future.number = number
        future.add_done_callback(tell)
    while sum(future.running() for future in futures) < 2:
        wait(futures, timeout=0.01)
    for future in reversed(futures):
        print(f"main: cancel {future.number}: {future.cancel()}")
print("main: done")
