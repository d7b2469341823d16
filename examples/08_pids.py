"""Tasks run in processes of their own: each tells the pid of the one that it ran in.

Prints a line for each of five tasks: with two slots there are at most two pids, and neither is that of this script.
"""

import os
import time

from netfutures import Executor


def where(number: int) -> tuple[int, int]:
    time.sleep(0.1)
    return number, os.getpid()


with Executor(max_workers=2) as ex:
    for number, pid in ex.map(where, range(1, 6)):
        print(f"task {number} ran in process {pid}")
print(f"main is process {os.getpid()}")
