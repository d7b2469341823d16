"""Results in the order in which the tasks are done, with the standard library's `as_completed`.

Prints five lines, one for each task; with two slots the quick tasks overtake the slow ones that were submitted earlier.
"""

import time
from concurrent.futures import as_completed

from netfutures import Executor


def nap(tenths: int) -> int:
    time.sleep(tenths / 10)
    return tenths


with Executor(max_workers=2) as ex:
    futures = [ex.submit(nap, tenths) for tenths in (6, 1, 2, 1)]
    for future in as_completed(futures):
        print(f"main: the nap of 0.{future.result()} s is over")
