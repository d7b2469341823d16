"""A callback that runs when a future is done, and reads what was noted on the future.

A future takes any attribute, so the callback knows which call it is about. Prints the result with its argument, before
'main: done': leaving the `with` block waits for the tasks and for their callbacks.
"""

from typing import Any

from netfutures import Executor


def half(n: Any) -> Any:
    return n / 2


def tell(fn: Any) -> None:
    if fn.exception() is None:
        print(f"callback: half of {fn.arg} is {fn.result()}")
    else:
        print(f"callback: half of {fn.arg!r} failed with {type(fn.exception()).__name__}")


with Executor(max_workers=2) as ex:
    for arg in (5, "five"):
        future: Any = ex.submit(half, arg)
        future.arg = arg
        future.add_done_callback(tell)
print("main: done")
