"""What dies, and what its death does: with the standard library's contract, and with `retries`."""

from __future__ import annotations

import concurrent.futures as cf
import os
import pickle
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from gates import LIMIT_S, Gate, pass_gate, tell_start, wait_running
from netfutures import Executor
from netfutures.errors import BrokenWorkerPool, WorkerLost
from tasks import double, end_process, pid

SIGNALS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGHUP, signal.SIGTERM, signal.SIGABRT]


def die_of(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), number)
    signal.pause()


def cluster_of(executor: Executor) -> int:
    """The embedded process: the parent of the executor's children."""
    return executor.submit(os.getppid).result(LIMIT_S)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_child_that_dies_of_a_signal_breaks_the_pool_and_is_named(number: signal.Signals, gate: Gate) -> None:
    executor = Executor(2)
    held = executor.submit(pass_gate, gate.place)
    gate.wait_started()
    dying = executor.submit(die_of, number)
    queued = [executor.submit(double, value) for value in range(20)]
    for future in (dying, held, *queued):
        error = future.exception(LIMIT_S)
        assert isinstance(error, BrokenWorkerPool)
        assert isinstance(error, BrokenProcessPool)
        certificate = error.certificate
        assert certificate is not None
        assert (certificate.host, certificate.signal, certificate.exit_code) == (socket.gethostname(), number, None)
        for word in (socket.gethostname(), f"pid {certificate.pid}", f"signal {int(number)} ({number.name})", "die_of"):
            assert word in str(error)
    with pytest.raises(BrokenWorkerPool, match=number.name):
        executor.submit(double, 1)
    with pytest.raises(BrokenProcessPool):
        executor.map(double, [1])
    executor.shutdown()


def test_an_exit_code_is_told(gate: Gate) -> None:
    executor = Executor(1)
    error = executor.submit(end_process, 42).exception(LIMIT_S)
    assert isinstance(error, BrokenWorkerPool)
    assert error.certificate is not None
    assert (error.certificate.exit_code, error.certificate.signal) == (42, None)
    assert "exit code 42" in str(error)
    assert "end_process" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.certificate) == (str(error), error.certificate)
    executor.shutdown()


def test_each_future_has_an_exception_of_its_own() -> None:
    executor = Executor(1)
    errors = [future.exception(LIMIT_S) for future in [executor.submit(end_process) for _ in range(3)]]
    assert len({id(error) for error in errors}) == 3
    executor.shutdown()


def test_an_idle_child_that_is_killed_breaks_the_pool_too() -> None:
    executor = Executor(1)
    child = executor.submit(pid).result(LIMIT_S)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(BrokenWorkerPool, match=f"pid {child}.*SIGKILL"):
        submit_until_broken(executor)
    executor.shutdown()


def submit_until_broken(executor: Executor) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        executor.submit(double, 1).result(LIMIT_S)


def test_a_death_is_known_in_milliseconds(gate: Gate) -> None:
    executor = Executor(1)
    future = executor.submit(pass_gate, gate.place)
    (child,) = gate.wait_started()
    begin = time.monotonic()
    os.kill(child, signal.SIGKILL)
    assert isinstance(future.exception(LIMIT_S), BrokenWorkerPool)
    # Some milliseconds; more are allowed to a machine that does other things too.
    assert time.monotonic() - begin < 0.5
    executor.shutdown()


def test_what_was_finished_before_keeps_its_result(gate: Gate) -> None:
    executor = Executor(2)
    first = [executor.submit(double, value) for value in range(200)]
    assert cf.wait(first, LIMIT_S).not_done == set()
    assert isinstance(executor.submit(end_process).exception(LIMIT_S), BrokenWorkerPool)
    assert [future.result(0) for future in first] == [2 * value for value in range(200)]
    executor.shutdown()


def test_what_was_finished_in_the_same_packet_keeps_its_result() -> None:
    executor = Executor(1)
    warm = [executor.submit(end_at, value, -1) for value in range(2_000)]
    assert cf.wait(warm, LIMIT_S).not_done == set()
    futures = [executor.submit(end_at, value, 100) for value in range(300)]
    assert cf.wait(futures, LIMIT_S).not_done == set()
    finished = [future.exception() is None for future in futures]
    assert finished == [True] * 100 + [False] * 200
    assert [future.result() for future in futures[:100]] == list(range(100))
    executor.shutdown()


def end_at(value: int, last: int) -> int:
    if value == last:
        os._exit(3)
    return value


def test_the_other_children_of_a_broken_pool_end(gate: Gate) -> None:
    executor = Executor(2)
    held = executor.submit(pass_gate, gate.place)
    (child,) = gate.wait_started()
    descriptor = os.pidfd_open(child)
    executor.submit(end_process)
    assert isinstance(held.exception(LIMIT_S), BrokenWorkerPool)
    assert wait_end(descriptor)
    executor.shutdown()


def wait_end(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(LIMIT_S * 1000))
    os.close(descriptor)
    return ended


def test_callbacks_of_lost_futures_run(gate: Gate) -> None:
    executor = Executor(1)
    told: list[BaseException | None] = []
    future = executor.submit(pass_gate, gate.place)
    future.add_done_callback(lambda each: told.append(each.exception()))
    (child,) = gate.wait_started()
    os.kill(child, signal.SIGKILL)
    executor.shutdown()
    assert [type(each) for each in told] == [BrokenWorkerPool]


# -- the embedded process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=lambda number: number.name)
def test_the_death_of_the_embedded_process_breaks_the_pool_at_once(number: signal.Signals, gate: Gate) -> None:
    executor = Executor(1)
    cluster = cluster_of(executor)
    held = executor.submit(pass_gate, gate.place)
    (child,) = gate.wait_started()
    descriptor = os.pidfd_open(child)
    queued = executor.submit(double, 1)
    wait_running(held)
    begin = time.monotonic()
    os.kill(cluster, number)
    for future in (held, queued):
        error = future.exception(LIMIT_S)
        assert isinstance(error, BrokenWorkerPool)
        assert f"pid {cluster}" in str(error)
        assert "pass_gate" in str(error)
    assert time.monotonic() - begin < 2
    assert wait_end(descriptor)
    with pytest.raises(BrokenWorkerPool, match=f"pid {cluster}"):
        executor.submit(double, 2)
    executor.shutdown()


def test_the_zygote_s_death_is_told_or_harmless() -> None:
    executor = Executor(2)
    cluster = cluster_of(executor)
    with open(f"/proc/{cluster}/task/{cluster}/children") as file:
        processes = [int(word) for word in file.read().split()]
    (zygote,) = [each for each in processes if Path(f"/proc/{each}/comm").read_text() == "nf-zygote\n"]
    os.kill(zygote, signal.SIGKILL)
    futures = [executor.submit(end_process_once_each, value) for value in range(20)]
    for future in futures:
        error = future.exception(LIMIT_S)
        assert error is None or isinstance(error, BrokenWorkerPool)
    executor.shutdown()


def end_process_once_each(value: int) -> int:
    return value


# -- retries


def test_without_retries_only_what_ran_there_is_lost(gate: Gate) -> None:
    with Executor(2, retries=0) as executor, gate:
        held = executor.submit(pass_gate, gate.place, "held")
        gate.wait_started()
        dying = executor.submit(die_of, signal.SIGKILL)
        queued = [executor.submit(double, value) for value in range(50)]
        error = dying.exception(LIMIT_S)
        assert isinstance(error, WorkerLost)
        assert not isinstance(error, BrokenProcessPool)
        for word in (socket.gethostname(), "signal 9 (SIGKILL)", "die_of", "retries"):
            assert word in str(error)
        assert [future.result(LIMIT_S) for future in queued] == [2 * value for value in range(50)]
        gate.open()
        assert held.result(LIMIT_S) == "held"


def test_tasks_of_the_packet_that_had_not_started_are_moved_and_cost_nothing(tmp_path: Path) -> None:
    with Executor(1, retries=0) as executor:
        warm = [executor.submit(end_at, value, -1) for value in range(2_000)]
        assert cf.wait(warm, LIMIT_S).not_done == set()
        futures = [executor.submit(end_at, value, 100) for value in range(300)]
        errors = [future.exception(LIMIT_S) for future in futures]
    lost = [value for value, error in enumerate(errors) if error is not None]
    assert lost == [100]
    assert isinstance(errors[100], WorkerLost)


def test_a_lost_task_runs_again(tmp_path: Path) -> None:
    with Executor(1, retries=2) as executor:
        assert executor.submit(die_until, str(tmp_path / "runs"), 3).result(LIMIT_S) == 3
        error = executor.submit(die_until, str(tmp_path / "others"), 9).exception(LIMIT_S)
        assert isinstance(error, WorkerLost)
        assert error.attempts == 3
        assert (tmp_path / "others").read_text() == "..."
        assert executor.submit(double, 1).result(LIMIT_S) == 2


def die_until(path: str, runs: int) -> int:
    """Dies in each run but the last."""
    with open(path, "a+") as file:
        file.write(".")
        file.flush()
        file.seek(0)
        count = len(file.read())
    if count < runs:
        os._exit(7)
    return count


@pytest.mark.parametrize("bad", [-1, 1.5, "2"], ids=repr)
def test_retries_is_none_or_a_number(bad: object) -> None:
    make: Callable[..., Executor] = Executor
    with pytest.raises((TypeError, ValueError), match="retries must be"):
        make(1, retries=bad)


def test_a_task_that_raises_is_never_run_again(tmp_path: Path, gate: Gate) -> None:
    with Executor(1, retries=5) as executor, gate:
        assert isinstance(executor.submit(fail_after_start, gate.place).exception(LIMIT_S), OSError)
        assert executor.submit(double, 1).result(LIMIT_S) == 2
    gate.wait_started()
    assert not gate.started_more()


def fail_after_start(place: str) -> None:
    tell_start(place)
    raise OSError("its own failure")
