"""Parties that are silent for a while: what is stopped, or holds its lock, is not dead; cancel says no, truly."""

from __future__ import annotations

import concurrent.futures as cf
import ctypes
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from gates import LIMIT_S, Gate, pass_gate
from netfutures import Executor
from tasks import double, tell

SILENCE_S = 1.5
"""More than a beat and more than a cancel waits."""


def hold_lock(seconds: float) -> str:
    """Sleeps with the interpreter's lock held: no other thread of the process runs."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "held"


def test_tasks_that_were_sent_are_not_lost_by_a_late_yes(tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "started"
    path.touch()
    with Executor(1) as executor, gate:
        cluster = executor.submit(os.getppid).result(LIMIT_S)
        held = executor.submit(pass_gate, gate.place)
        gate.wait_started()
        queued = [executor.submit(tell, str(path), number) for number in range(10)]
        # They have gone out when the cluster has nothing more to read of what came after them.
        executor.submit(double, 1)
        assert wait_handed_out(queued)
        os.kill(cluster, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            said = [future.cancel() for future in queued]
            assert 0.5 < time.monotonic() - begin < 5, "the first one waits for a second, the others do not"
        finally:
            os.kill(cluster, signal.SIGCONT)
        assert said == [False] * 10
        gate.open()
        assert [future.result(LIMIT_S) for future in queued] == list(range(10))
        assert held.result(LIMIT_S) is None
        assert sorted(map(int, path.read_text().split())) == list(range(10))


def wait_handed_out(futures: Sequence[cf.Future[int]]) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while any(future._number is None for future in futures):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        cf.wait(futures, 0.01)
    return True


def test_a_cluster_that_is_stopped_for_a_while_is_not_dead() -> None:
    with Executor(2) as executor:
        cluster = executor.submit(os.getppid).result(LIMIT_S)
        os.kill(cluster, signal.SIGSTOP)
        futures = [executor.submit(double, number) for number in range(500)]
        assert cf.wait(futures, SILENCE_S).done == set()
        os.kill(cluster, signal.SIGCONT)
        assert [future.result(LIMIT_S) for future in futures] == [2 * number for number in range(500)]


def test_a_task_that_holds_the_lock_stops_nothing_else() -> None:
    with Executor(2) as executor:
        holding = executor.submit(hold_lock, SILENCE_S)
        assert [executor.submit(double, number).result(LIMIT_S) for number in range(50)] == list(range(0, 100, 2))
        assert holding.result(LIMIT_S) == "held"


def test_a_client_that_holds_the_lock_is_not_dead(gate: Gate) -> None:
    with Executor(1) as executor, gate:
        futures = [executor.submit(double, number) for number in range(500)]
        held = executor.submit(pass_gate, gate.place, "here")
        hold_lock(SILENCE_S)
        gate.open()
        assert held.result(LIMIT_S) == "here"
        assert futures[499].result(0) == 998


def test_a_callback_that_blocks_stops_no_result(gate: Gate) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def block(_: cf.Future[int]) -> None:
        blocked.set()
        assert go_on.wait(LIMIT_S)

    with Executor(1) as executor:
        first = executor.submit(double, 1)
        first.add_done_callback(block)
        future = executor.submit(pass_gate, gate.place)
        future.add_done_callback(block)
        gate.open()
        assert blocked.wait(LIMIT_S)
        assert [executor.submit(double, number).result(LIMIT_S) for number in range(20)] == list(range(0, 40, 2))
        go_on.set()


@pytest.mark.medium
def test_a_hundred_thousand_tasks() -> None:
    with Executor(2) as executor:
        futures = [executor.submit(double, number) for number in range(100_000)]
        assert all(future.result(LIMIT_S) == 2 * number for number, future in enumerate(futures))


@pytest.mark.medium
def test_more_bytes_than_may_be_under_way() -> None:
    """Sixteen megabytes of arguments may be at the broker; the rest waits in the client."""
    with Executor(2) as executor:
        blocks = [bytes([number % 256]) * 700_000 for number in range(100)]
        assert list(executor.map(checksum, blocks)) == [(700_000, number % 256) for number in range(100)]
        assert sum(map(len, executor.map(double, blocks))) == 2 * 700_000 * 100


def checksum(block: bytes) -> tuple[int, int]:
    assert block == block[:1] * len(block)
    return len(block), block[0]
