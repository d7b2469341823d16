"""A child that dies breaks the pool, as it does in the standard library: later calls fail, and say why.

A task returns the pid of its process, which then gets the signal SIGHUP and dies of it. Prints what the next call got:
a `BrokenProcessPool`, with the death certificate of the process in its text.
"""

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

from netfutures import Executor

with Executor(max_workers=2) as ex:
    pid = ex.submit(os.getpid).result()
    print(f"main: a task ran in process {pid}; SIGHUP to it")
    os.kill(pid, signal.SIGHUP)
    try:
        ex.submit(time.sleep, 5).result()
    except BrokenProcessPool as error:
        print(f"main: caught {type(error).__name__}: {error}")
