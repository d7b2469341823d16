"""One call with `submit`: the future that stands for its result, before and after.

Prints the future while its task is pending or running, then the result (which is waited for), and the future again,
which is finished now.
"""

import time

from netfutures import Executor


def square(n: int) -> int:
    time.sleep(0.3)
    return n * n


with Executor(max_workers=1) as ex:
    future = ex.submit(square, 12)
    print(f"main: before, {future}")
    print(f"main: the result is {future.result()}")
    print(f"main: after, {future}")
