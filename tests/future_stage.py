"""Light futures on a stage: a pool that answers as the test wants, and threads that wait for each other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from netfutures.client.doors import settle_one
from netfutures.client.functions import Function
from netfutures.client.future import Future, release_waiters
from netfutures.payload import dump_call

LIMIT_S = 20
CALL = dump_call((1,), {})


class Pool:
    """Stands where the I/O thread is: answers a recall with what the test wants."""

    def __init__(self, answer: Callable[[Future[Any]], bool] = lambda future: False) -> None:
        self.answer = answer
        self.asked: list[Future[Any]] = []

    def glance(self, future: Future[Any], timeout_s: float | None) -> float | None:
        return timeout_s

    def recall(self, future: Future[Any]) -> bool:
        self.asked.append(future)
        return self.answer(future)


def make(pool: Any = None, payload: bytes = CALL) -> Future[Any]:
    return Future(Function(b"", True, "score", pool, os.getpid()), payload)


def finish(future: Future[Any], outcome: Any) -> None:
    assert settle_one(future, outcome)
    release_waiters()


def in_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], object]) -> None:
    """For what no event tells: that another thread has gone to sleep."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def sleepers(future: Future[Any]) -> int:
    return 0 if future._watch is None else len(future._watch.wakers)
