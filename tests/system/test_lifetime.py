"""However a client ends, nothing of it is left: no process, no file; and a client that goes on is as it was before."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import scripts
from left_behind import processes_of_this_run, wait_until_gone
from netfutures import Executor
from scripts import Running
from tasks import double, pid

LIMIT_S = 30.0
END_LIMIT_S = 3.0
"""A second is promised; the machine may be busy with other things too."""

CLIENT = """
import gc, os, signal, subprocess, sys, threading, time
from netfutures import Executor

def leave_running():
    daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    copy = os.fork()
    if not copy:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.pause()
    os.waitpid(copy, 0)
    return os.getpid(), os.getppid(), daemon.pid

def hold(word="held"):
    print(word, flush=True)
    time.sleep(1000)

executor = Executor(2)
print(*executor.submit(leave_running).result(), flush=True)
"""
HOLDING = CLIENT + "futures = [executor.submit(hold) for _ in range(20)]\n"


@contextlib.contextmanager
def watched(client: Running) -> Iterator[dict[int, int]]:
    """Pidfds of all processes of this client, which are checked to end soon after the block."""
    first = client.numbers()
    descriptors = {each: os.pidfd_open(each) for each in processes_of_this_run() if each != client.pid}
    try:
        assert set(first) <= set(descriptors), "the child, the cluster and the daemon are among them"
        assert len(descriptors) >= 5
        yield descriptors
        deadline = time.monotonic() + END_LIMIT_S
        for each, descriptor in descriptors.items():
            assert has_ended(descriptor, deadline - time.monotonic()), f"pid {each} lives on: {first}"
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def has_ended(descriptor: int, limit_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, limit_s) * 1000))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A folder for the script, and one in which it may leave temporary files."""
    made = {name: tmp_path / name for name in ("script", "temporary")}
    for folder in made.values():
        folder.mkdir()
    return made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_client_that_is_killed_takes_everything_with_it(folders: dict[str, Path], number: signal.Signals) -> None:
    shared = shared_memory()
    text = HOLDING + "time.sleep(1000)"
    with scripts.started(folders["script"], text, TMPDIR=str(folders["temporary"])) as client, watched(client):
        assert (client.line(), client.line()) == ("held", "held")
        client.process.send_signal(number)
        assert client.process.wait(LIMIT_S) == -number
    assert list(folders["temporary"].iterdir()) == []
    assert shared_memory() <= shared


def shared_memory() -> set[str]:
    """Names in it, without the semaphores of the standard library's pools that other tests make."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_a_client_that_is_killed_while_its_cluster_starts(folders: dict[str, Path], count: int) -> None:
    """As soon as there are so many processes: the client, the cluster, the zygote, children."""
    known = set(processes_of_this_run())
    text = "from netfutures import Executor; import time; executor = Executor(2)\n"
    text += "futures = [executor.submit(time.sleep, 1000) for _ in range(9)]; time.sleep(1000)"
    with scripts.started(folders["script"], text) as client:
        deadline = time.monotonic() + LIMIT_S
        while len(set(processes_of_this_run()) - known) < count:
            assert time.monotonic() < deadline
        client.process.kill()
        # Nobody has its output open any more, and nobody has written a word.
        assert client.rest() == ""
        assert wait_until_gone(known, END_LIMIT_S) == {}


ENDS = {
    "end of the script": ("", 0),
    "exception": ("raise LookupError('the end')", 1),
    "sys.exit": ("sys.exit(5)", 5),
    "os._exit": ("os._exit(6)", 6),
    "exception in a with block": ("with executor:\n    1 // 0", 1),
    "exec": ("os.execvp('true', ['true'])", 0),
    "abort": ("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()", -signal.SIGABRT),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_other_end_leaves_nothing_either(folders: dict[str, Path], name: str) -> None:
    end, status = ENDS[name]
    text = f"{CLIENT}\nsys.stdin.readline()\n{end}\n"
    with scripts.started(folders["script"], text, TMPDIR=str(folders["temporary"])) as client, watched(client):
        client.say()
        assert client.process.wait(LIMIT_S) == status
    assert list(folders["temporary"].iterdir()) == []


def test_the_end_waits_for_what_was_submitted(folders: dict[str, Path]) -> None:
    text = CLIENT + "sys.stdin.readline()\nfutures = [executor.submit(pow, 2, n) for n in range(5000)]\n"
    text += "futures[-1].add_done_callback(lambda future: print(future.result() == 2 ** 4999, flush=True))\n"
    with scripts.started(folders["script"], text) as client, watched(client):
        client.say()
        assert client.line() == "True"
        assert client.process.wait(LIMIT_S) == 0


def test_what_tasks_left_running_ends_with_its_executor(folders: dict[str, Path]) -> None:
    text = CLIENT + "sys.stdin.readline()\nexecutor.shutdown()\nprint('shut down', flush=True)\nsys.stdin.readline()\n"
    with scripts.started(folders["script"], text) as client, watched(client) as descriptors:
        client.say()
        assert client.line() == "shut down"
        # When shutdown has returned there is nobody any more.
        assert [each for each, descriptor in descriptors.items() if not has_ended(descriptor, 0)] == []
        client.say()


def test_a_client_that_is_stopped_is_no_dead_client(folders: dict[str, Path]) -> None:
    text = CLIENT + "while sys.stdin.readline():\n    print(executor.submit(len, 'abc').result(), flush=True)\n"
    with scripts.started(folders["script"], text) as client, watched(client):
        client.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)  # More than a beat; it is the span that is tested.
        client.process.send_signal(signal.SIGCONT)
        client.say()
        assert client.line() == "3"
        client.process.kill()


# -- Ctrl-C


def test_ctrl_c_in_a_with_block_ends_what_runs_and_drops_what_waits(folders: dict[str, Path]) -> None:
    text = CLIENT + "with executor:\n    futures = [executor.submit(hold, 'runs') for _ in range(20)]\n"
    text += "    futures[0].result()\n"
    with scripts.started(folders["script"], text) as client, watched(client):
        assert (client.line(), client.line()) == ("runs", "runs")
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(LIMIT_S) in (-signal.SIGINT, 1)


def test_ctrl_c_during_shutdown_ends_it(folders: dict[str, Path]) -> None:
    text = HOLDING + "signal.signal(signal.SIGUSR1, lambda *_: print('waits', flush=True))\nexecutor.shutdown()\n"
    with scripts.started(folders["script"], text) as client, watched(client):
        assert (client.line(), client.line()) == ("held", "held")
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(LIMIT_S) in (-signal.SIGINT, 1)


# -- a client that goes on


def open_files() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.mark.medium
def test_thirty_executors_in_a_row_leave_the_process_as_it_was() -> None:
    def one(number: int) -> None:
        with Executor(1) as executor:
            assert executor.submit(double, number).result(LIMIT_S) == 2 * number
            if number % 3 == 0:
                executor.submit(double, number).add_done_callback(repr)
            if number % 5 == 0:
                executor.submit(print, end="").result(LIMIT_S)

    one(0)  # What is imported and opened once only.
    gc.collect()
    files, threads, processes = open_files(), threading.active_count(), set(processes_of_this_run())
    for number in range(30):
        one(number)
    gc.collect()
    assert open_files().items() <= files.items()
    assert threading.active_count() == threads
    assert set(processes_of_this_run()) == processes


def test_a_broken_executor_leaves_nothing_either() -> None:
    def one() -> None:
        executor = Executor(2)
        assert executor.submit(os._exit, 1).exception(LIMIT_S) is not None
        executor.shutdown()

    one()
    gc.collect()
    files, threads = open_files(), threading.active_count()
    for _ in range(3):
        one()
    gc.collect()
    assert open_files().items() <= files.items()
    assert threading.active_count() == threads


def test_a_forgotten_executor_ends_with_all_its_processes() -> None:
    executor = Executor(1)
    cluster, child = executor.submit(os.getppid).result(LIMIT_S), executor.submit(pid).result(LIMIT_S)
    descriptors = [os.pidfd_open(each) for each in (cluster, child)]
    del executor
    gc.collect()
    deadline = time.monotonic() + LIMIT_S
    assert all(has_ended(each, deadline - time.monotonic()) for each in descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def test_an_executor_in_a_cycle_ends_when_the_cycle_is_collected() -> None:
    class Holder:
        def __init__(self) -> None:
            self.executor = Executor(1)
            self.myself = self

    holder = Holder()
    descriptor = os.pidfd_open(holder.executor.submit(os.getppid).result(LIMIT_S))
    del holder
    gc.collect()
    assert has_ended(descriptor, LIMIT_S)
    os.close(descriptor)


def test_executors_may_end_in_any_thread() -> None:
    executor = Executor(1)
    assert executor.submit(double, 1).result(LIMIT_S) == 2
    thread = threading.Thread(target=executor.shutdown)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
