"""`cancel` tells the truth wherever a task is queued: what was cancelled never starts, what says no has started."""

from __future__ import annotations

import concurrent.futures as cf
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gates import Gate, pass_gate, wait_running
from netfutures import Executor
from tasks import double, tell

LIMIT_S = 30.0


class Audit:
    """A file to which each task appends its number as it starts."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.touch()

    def started(self) -> list[int]:
        with open(self.path, "rb") as file:
            return [int(line) for line in file.read().split()]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path / "started")


def judge(futures: Sequence[cf.Future[int]], said: dict[int, bool], audit: Audit) -> int:
    """After the end of all: each task either ran once and was finished, or was cancelled; returns how many were."""
    assert cf.wait(futures, LIMIT_S).not_done == set()
    started = audit.started()
    assert len(started) == len(set(started)), "some ran twice"
    ran = set(started)
    for number, future in enumerate(futures):
        assert future.cancelled() == said.get(number, False), number
        assert future.cancelled() == (number not in ran), number
        if not future.cancelled():
            assert future.result() == number
    return sum(said.values())


# -- where the task is


@pytest.mark.medium
def test_a_task_that_waits_in_the_client(audit: Audit) -> None:
    """Far more than the broker's credit, so that the last ones have not been sent."""
    with Executor(1) as executor:
        futures = [executor.submit(tell, audit.path, number, 20) for number in range(40_000)]
        said = {number: futures[number].cancel() for number in range(39_999, 30_000, -1)}
    assert all(said.values())
    assert judge(futures, said, audit) == 9_999


def test_a_task_that_waits_in_the_broker_or_behind_another(audit: Audit, gate: Gate) -> None:
    """Held tasks fill the slots; what follows waits in the broker, the worker or a packet that was not read."""
    with Executor(2) as executor, gate:
        held = [executor.submit(pass_gate, gate.place) for _ in range(2)]
        gate.wait_started(2)
        futures = [executor.submit(tell, audit.path, number) for number in range(300)]
        said = {number: futures[number].cancel() for number in range(299, -1, -3)}
        assert all(said.values())
        wait_running(*held)
        assert [future.cancel() for future in held] == [False, False]
        gate.open()
        assert judge(futures, said, audit) == 100


def test_the_rest_of_a_packet_whose_first_task_runs(audit: Audit, gate: Gate) -> None:
    """Short tasks teach the worker to send many at once; then one in the middle of a packet is held."""
    with Executor(1) as executor, gate:
        warm = [executor.submit(hold_one, audit.path, gate.place, number) for number in range(3_000)]
        assert cf.wait(warm, LIMIT_S).not_done == set()
        futures = [executor.submit(hold_one, audit.path, gate.place, number) for number in range(3_000, 3_500)]
        gate.wait_started()
        said = {number: future.cancel() for number, future in enumerate(futures, 3_000) if number > HELD}
        assert all(said.values())
        assert not futures[HELD - 3_000].cancel()
        gate.open()
        judge(warm + futures, said, audit)


HELD = 3_100


def hold_one(path: str, place: str, number: int) -> int:
    tell(path, number)
    if number == HELD:
        pass_gate(place)
    return number


def test_what_waits_behind_a_task_that_takes_long_all_at_once(audit: Audit, gate: Gate) -> None:
    """Many threads cancel at the same time; none waits for ever, and all are told the truth."""
    said: dict[int, bool] = {}
    with Executor(1) as executor, gate:
        held = executor.submit(pass_gate, gate.place)
        gate.wait_started()
        futures = [executor.submit(tell, audit.path, number) for number in range(200)]

        def cancel_some(first: int) -> None:
            for number in range(first, 200, 8):
                said[number] = futures[number].cancel()

        threads = [threading.Thread(target=cancel_some, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        gate.open()
        assert judge(futures, said, audit) == 200
        assert held.result(LIMIT_S) is None


# -- while they run


@pytest.mark.parametrize("microseconds", [0, 50, 2_000])
@pytest.mark.parametrize("slots", [1, 2])
def test_tasks_cancelled_at_random_just_before_they_run(audit: Audit, microseconds: int, slots: int) -> None:
    """Each time one of the next few that are not done yet: most of these are with a child already."""
    chance = random.Random(microseconds + slots)
    count = 300 if microseconds == 2_000 else 4_000
    said: dict[int, bool] = {}
    front = 0
    with Executor(slots) as executor:
        futures = [executor.submit(tell, audit.path, number, microseconds) for number in range(count)]
        while front < count:
            if futures[front].done():
                front += 1
                continue
            number = min(front + chance.randrange(100), count - 1)
            if number not in said:
                said[number] = futures[number].cancel()
            elif cf.wait([futures[front]], 0.001).done:
                front += 1
        cancelled = judge(futures, {number: yes for number, yes in said.items() if yes}, audit)
    assert cancelled > 0


def test_submitting_and_cancelling_go_on_side_by_side(audit: Audit) -> None:
    said: dict[int, bool] = {}
    futures: list[cf.Future[int]] = []
    with Executor(2) as executor:
        for number in range(3_000):
            futures.append(executor.submit(tell, audit.path, number, 30))
            if number % 3 == 2:
                said[number - 1] = futures[number - 1].cancel()
        judge(futures, said, audit)


# -- everything


def test_shutdown_cancels_all_that_has_not_started_at_once(audit: Audit, gate: Gate) -> None:
    executor = Executor(2)
    held = [executor.submit(pass_gate, gate.place, number) for number in range(2)]
    gate.wait_started(2)
    futures = [executor.submit(tell, audit.path, number) for number in range(20_000)]
    told: list[Any] = []
    futures[7].add_done_callback(told.append)
    executor.shutdown(wait=False, cancel_futures=True)
    assert cf.wait(futures, LIMIT_S).not_done == set()
    assert all(future.cancelled() for future in futures)
    assert not any(future.done() for future in held)
    gate.open()
    assert [future.result(LIMIT_S) for future in held] == [0, 1]
    executor.shutdown()
    assert audit.started() == []
    assert told == [futures[7]]


def test_shutdown_while_tasks_run_leaves_none_undecided(audit: Audit) -> None:
    executor = Executor(2)
    futures = [executor.submit(tell, audit.path, number, 20) for number in range(20_000)]
    assert futures[50].result(LIMIT_S) == 50
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    ran = set(audit.started())
    assert all(future.cancelled() == (number not in ran) for number, future in enumerate(futures))
    assert 50 < len(ran) < 20_000


def test_a_map_that_raises_or_is_dropped_cancels_its_rest(audit: Audit, gate: Gate) -> None:
    with Executor(1) as executor, gate:
        results = executor.map(pass_or_tell, [gate.place] * 400, [audit.path] * 400, range(400))
        gate.wait_started()
        del results
        gate.open()
        # The cancels were posted and not waited for; what is submitted now stands behind them.
        assert executor.submit(double, 1).result(LIMIT_S) == 2
    assert len(audit.started()) < 400


def pass_or_tell(place: str, path: str, number: int) -> int:
    return pass_gate(place) or 0 if number == 0 else tell(path, number)


def test_cancelled_futures_count_as_done_and_are_told_once(gate: Gate) -> None:
    with Executor(1) as executor, gate:
        held = executor.submit(pass_gate, gate.place)
        gate.wait_started()
        futures: list[cf.Future[int]] = [executor.submit(double, number) for number in range(10)]
        seen = cf.as_completed(futures, LIMIT_S)
        assert all(future.cancel() for future in futures)
        assert set(seen) == set(futures)
        assert all(isinstance(ask_exception(future), cf.CancelledError) for future in futures)
        gate.open()
        assert held.result(LIMIT_S) is None


def ask_exception(future: cf.Future[Any]) -> BaseException | None:
    try:
        return future.exception(0)
    except cf.CancelledError as error:
        return error


def test_cancel_returns_soon(gate: Gate) -> None:
    """One question to the broker each, at most; the later ones of a burst are answered in the client."""
    with Executor(1) as executor, gate:
        held = executor.submit(pass_gate, gate.place)
        gate.wait_started()
        futures = [executor.submit(double, number) for number in range(2_000)]
        begin = time.monotonic()
        assert all(future.cancel() for future in reversed(futures))
        assert time.monotonic() - begin < 5
        begin = time.monotonic()
        assert not held.cancel()
        assert time.monotonic() - begin < 5
        gate.open()
