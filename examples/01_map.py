"""An ordered map: results come in the order of the arguments, whichever task is done first.

Prints that `map` has returned a generator, at once; then five lines, one for each argument from 5 down to 1, although
the tasks of the small numbers are the quick ones.
"""

import time

from netfutures import Executor


def nap(tenths: int) -> str:
    time.sleep(tenths / 10)
    return f"slept {tenths / 10} s"


with Executor(max_workers=2) as ex:
    results = ex.map(nap, range(5, 0, -1))
    print(f"main: map has returned a {type(results).__name__}; the tasks run")
    for tenths, result in zip(range(5, 0, -1), results, strict=True):
        print(f"main: nap({tenths}) {result}")
print("main: done")
