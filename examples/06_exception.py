"""An exception in a task: `exception()` hands it over, `result()` raises it, with the traceback of the far side.

Prints the exception twice, once from each, and the line of this script where the task raised it.
"""

from netfutures import Executor


def divide(a: int, b: int) -> float:
    return a / b


with Executor(max_workers=1) as ex:
    future = ex.submit(divide, 1, 0)
    print(f"main: exception() gives {future.exception()!r}")
    try:
        future.result()
    except ZeroDivisionError as error:
        print(f"main: result() raises {error!r}")
        print(f"main: which happened here:{error.__cause__}")
