"""The functions that the benchmarks call in children, by reference, from a module that imports next to nothing."""

import time
from typing import TypeVar

T = TypeVar("T")


def nothing(value: object = None) -> None:
    """The least that a task can do."""


def echo(value: T) -> T:
    """Takes a payload in and sends it back."""
    return value


def nap(seconds: float) -> None:
    """Keeps its slot busy without using a core."""
    time.sleep(seconds)
