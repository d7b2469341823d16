"""Light futures under races: everybody who waits, in every way, against the thread that settles, for a few seconds."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, as_completed, wait
from typing import Any

import pytest

from netfutures.client.delivery import Delivery
from netfutures.client.doors import cancel_returned, give_back, settle, take_for_sending
from netfutures.client.functions import Function
from netfutures.client.future import Future, release_waiters
from netfutures.payload import dump_call, dump_value

LIMIT_S = 20
RACE_S = 3.0
COUNT = 40
CALL = dump_call((1,), {})
OUTCOMES = [dump_value(n) for n in range(COUNT)]


@pytest.fixture(autouse=True)
def _hurry() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Asked:
    """A recall that waits for its answer."""

    def __init__(self, future: Future[Any]) -> None:
        self.future, self.event, self.answer = future, threading.Event(), False


class Round:
    """One run of futures, settled in pieces by a thread like the I/O thread, while others wait for them."""

    def __init__(self, delivery: Delivery, seed: int) -> None:
        self.random = random.Random(seed)
        self.delivery = delivery
        function = Function(b"", True, "score", self, os.getpid())
        self.futures: list[Future[int]] = [Future(function, CALL) for _ in range(COUNT)]
        self.stock: list[concurrent.futures.Future[int]] = [concurrent.futures.Future() for _ in range(3)]
        self.every: list[Any] = [*self.futures, *self.stock]
        self.queue = deque(self.futures)
        self.places = {id(future): n for n, future in enumerate(self.futures)}
        self.recalled: deque[Asked] = deque()
        self.failures: list[BaseException] = []
        self.called: list[Any] = []

    def glance(self, future: Future[Any], timeout_s: float | None) -> float | None:
        return timeout_s

    def recall(self, future: Future[Any]) -> bool:
        """As the pool's: the settling thread answers, or nobody does any more."""
        asked = Asked(future)
        self.recalled.append(asked)
        asked.event.wait(0.05)
        return asked.answer

    def io_thread(self) -> None:
        number = 1
        out: list[Future[Any]] = []
        while self.queue or out:
            taken = take_for_sending(self.queue, self.random.randint(1, 12), 10_000, number)
            number += len(taken)
            out += taken
            if out and self.random.random() < 0.1:
                self.queue.extend(give_back([out.pop()]))
            count = self.random.randint(0, 8)
            piece, out = out[:count], out[count:]
            self.delivery.put_settle(settle(piece, [OUTCOMES[self.places[id(each)]] for each in piece]))
            while self.recalled:
                asked = self.recalled.popleft()
                cancel_returned(asked.future)
                asked.answer = asked.future.cancelled()
                asked.event.set()
            release_waiters()
        for each in self.stock:
            each.set_result(0)

    def run(self, parts: list[Callable[[], object]]) -> None:
        threads = [threading.Thread(target=self._guard, args=(part,), daemon=True) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert not [thread for thread in threads if thread.is_alive()], "somebody was never woken"
        assert not self.failures, self.failures

    def _guard(self, part: Callable[[], object]) -> None:
        try:
            part()
        except BaseException as error:
            self.failures.append(error)

    # -- the ways to wait

    def wait_all(self) -> None:
        done = wait(self.every, LIMIT_S)
        assert len(done.done) == len(self.every)
        assert all(future.done() for future in done.done)

    def wait_first(self) -> None:
        left = set(self.every)
        while left:
            done, left = wait(left, LIMIT_S, concurrent.futures.FIRST_COMPLETED)
            assert done

    def as_completed(self) -> None:
        assert sum(1 for _ in as_completed(self.every, LIMIT_S)) == len(self.every)

    def impatient(self) -> None:
        for future in itertools.cycle(self.every):
            try:
                for _ in as_completed(self.every, 1e-4):
                    pass
                return
            except TimeoutError:
                wait([future], 1e-5)

    def results(self) -> None:
        for n, future in enumerate(self.futures):
            try:
                assert future.result(LIMIT_S) == n
            except CancelledError:
                assert future.cancelled()

    def short_results(self) -> None:
        for n, future in enumerate(self.futures):
            while True:
                try:
                    assert future.result(self.random.choice([0, 1e-6, 1e-4])) == n
                except TimeoutError:
                    continue
                except CancelledError:
                    assert future.cancelled()
                break

    def exceptions(self) -> None:
        for future in self.futures:
            try:
                assert future.exception(LIMIT_S) is None
            except CancelledError:
                assert future.cancelled()

    def callbacks(self) -> None:
        for future in self.futures:
            future.add_done_callback(self.called.append)

    def cancel(self) -> None:
        for future in self.random.sample(self.futures, 10):
            told = future.cancel()
            assert not told or future.cancelled()

    def poll(self) -> None:
        while not all(future.done() for future in self.futures):
            repr(self.random.choice(self.futures))
            self.random.choice(self.futures).running()


def test_everybody_is_woken_once_and_sees_the_same() -> None:
    delivery, deadline, rounds = Delivery(), time.monotonic() + RACE_S, 0
    while time.monotonic() < deadline:
        rounds += 1
        one = Round(delivery, rounds)
        ways = [one.wait_all, one.wait_first, one.as_completed, one.impatient, one.results, one.short_results]
        ways += [one.exceptions, one.callbacks, one.callbacks, one.cancel, one.poll]
        one.random.shuffle(ways)
        one.run([*ways[: one.random.randint(2, len(ways))], one.io_thread])
        assert delivery.drain(LIMIT_S)
        counts = {id(future): one.called.count(future) for future in one.futures}
        assert len(set(counts.values())) == 1, "each callback ran as often as it was added"
        assert all(future._watch is None or not future._watch.wakers for future in one.futures)
        assert all(not future._waiters for future in one.every)
    assert delivery.close(LIMIT_S)
    assert rounds > 3


class Refuses:
    """A pool that can take nothing back."""

    def glance(self, future: Future[Any], timeout_s: float | None) -> float | None:
        return timeout_s

    def recall(self, future: Future[Any]) -> bool:
        return False


def test_garbage_collection_may_use_futures_at_any_point() -> None:
    """Finalizers run in whatever thread collects garbage, also between two instructions of our own."""
    seen: list[Future[Any]] = []
    function = Function(b"", True, "score", Refuses(), os.getpid())

    class Trash:
        def __init__(self, future: Future[Any]) -> None:
            self.future, self.cycle = future, self

        def __del__(self) -> None:
            self.future.cancel()
            self.future.add_done_callback(lambda future: None)
            repr(self.future)
            seen.append(self.future)

    thresholds = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for n in range(300):
            futures: list[Future[Any]] = [Future(function, CALL) for _ in range(8)]
            for future in futures:
                future.add_done_callback(lambda future: None)
                Trash(future)
            taken = take_for_sending(deque(futures), 8, 1000, n)
            settle(taken, OUTCOMES[: len(taken)])
            release_waiters()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(seen) == 300 * 8
