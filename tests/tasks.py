"""Functions that tests submit: by reference, from a module that children import quickly."""

from __future__ import annotations

import os
import threading
import time
from typing import Any


def double(value: Any) -> Any:
    return value * 2


def add(first: int, second: int = 0, third: int = 0) -> int:
    return first + second + third


def given(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def pid(_: object = None) -> int:
    return os.getpid()


class Trouble(Exception):
    """An exception with more than its arguments."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what, code)
        self.code = code
        self.extra = ""


def raise_trouble(what: str = "burnt", code: int = 7) -> None:
    error = Trouble(what, code)
    error.add_note("a note")
    error.extra = "an attribute"
    raise error from KeyError("the cause there")


def raise_exactly(error: BaseException) -> None:
    raise error


def fail_at(value: int, at: int) -> int:
    if value == at:
        raise ValueError(f"{value} is refused")
    return value


def make_lock(_: object = None) -> Any:
    return threading.Lock()


def end_process(code: int = 11) -> None:
    os._exit(code)


def raise_while_loading() -> None:
    raise RuntimeError("it does not want to be loaded")


class NotLoadable:
    """Pickles, and cannot be rebuilt from its pickle."""

    def __reduce__(self) -> Any:
        return raise_while_loading, ()


def not_loadable(_: object = None) -> NotLoadable:
    return NotLoadable()


class BadToPickle:
    """Raises when it is pickled."""

    def __reduce__(self) -> Any:
        raise ZeroDivisionError("it does not want to be pickled")


_state: list[Any] = []


def remember(*values: Any) -> None:
    """An initializer that leaves its arguments in this process."""
    _state.extend(values)


def remembered(_: object = None) -> list[Any]:
    return list(_state)


def append_and_count(value: Any) -> tuple[int, int]:
    """Changes this process's state: its pid, and how many values it has taken."""
    _state.append(value)
    return os.getpid(), len(_state)


def refuse_to_start() -> None:
    raise LookupError("no model was found here")


_descriptors: dict[str, int] = {}


def tell(path: str, number: int, microseconds: int = 0) -> int:
    """A task that says that it started, and takes some time."""
    if path not in _descriptors:
        _descriptors[path] = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(_descriptors[path], b"%d\n" % number)
    end = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < end:
        pass
    return number
