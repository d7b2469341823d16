"""The context manager: leaving its block waits until every task is done, and shows all that they have printed.

The tasks run in other processes, yet what they print is seen here. Prints four lines of tasks, then 'main: done'.
"""

import time

from netfutures import Executor


def speak(number: int) -> None:
    time.sleep(0.1)
    print(f"task {number}: done")


with Executor(max_workers=2) as ex:
    print("main: starting")
    for number in range(1, 5):
        ex.submit(speak, number)
print("main: done")
