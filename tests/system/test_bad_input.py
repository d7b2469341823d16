"""Wrong arguments, poor surroundings, and tasks that misuse their process: one clear exception, or no harm at all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import netfutures
from gates import LIMIT_S, Gate, pass_gate, tell_start
from netfutures import Executor
from netfutures.errors import BrokenWorkerPool, WorkerLost
from programs import Ended, surroundings
from scripts import Script
from tasks import append_and_count, double, pid

# -- arguments and variables


@pytest.mark.parametrize("count", [4097, 10**9])
def test_more_slots_than_a_machine_can_have_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be at most 4096"):
        Executor(count)


@pytest.mark.parametrize("word", ["0", "-2", "many", "2.5"])
def test_a_wrong_number_of_workers_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("NETFUTURES_MAX_WORKERS", word)
    with pytest.raises(ValueError, match=f"NETFUTURES_MAX_WORKERS must be a number above 0 or 'all', not '{word}'"):
        Executor()


def test_the_environment_overrides_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = Executor()._max_workers
    monkeypatch.setenv("NETFUTURES_MAX_WORKERS", "3")
    assert (Executor()._max_workers, Executor(7)._max_workers) == (3, 3)
    monkeypatch.setenv("NETFUTURES_MAX_WORKERS", "all")
    assert (Executor()._max_workers, Executor(7)._max_workers) == (usable, usable)
    with pytest.raises(ValueError, match="greater than 0"):
        Executor(0)


def test_an_address_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"tcp://head:5555"):
        Executor(address="tcp://head:5555")
    monkeypatch.setenv("NETFUTURES_ADDRESS", "client.json")
    with pytest.raises(ValueError, match="NETFUTURES_ADDRESS"):
        Executor()
    assert Executor(address="local")._max_workers >= 1


def test_a_context_that_is_none_is_refused() -> None:
    make: Callable[..., Executor] = Executor
    with pytest.raises(TypeError, match="mp_context must be a context of multiprocessing, not str"):
        make(1, "spawn")


def test_what_is_not_iterable_is_refused_by_map() -> None:
    with Executor(1) as executor:
        call: Callable[..., Any] = executor.map
        with pytest.raises(TypeError, match="not iterable"):
            call(double, 5)
        assert executor.submit(double, 1).result(LIMIT_S) == 2


def test_what_nests_too_deeply_fails_its_future_only() -> None:
    def nested() -> list[Any]:
        value: list[Any] = []
        for _ in range(100_000):
            value = [value]
        return value

    def endless(depth: int) -> int:
        return endless(depth + 1)

    with Executor(1) as executor:
        for future in (executor.submit(len, nested()), executor.submit(nested), executor.submit(endless, 0)):
            assert isinstance(future.exception(LIMIT_S), RecursionError)
        assert executor.submit(double, 1).result(LIMIT_S) == 2


# -- surroundings

WORK = """
import sys
from netfutures import Executor
with Executor(2) as executor:
    print(sum(executor.map(len, ["a" * n for n in range(100)])))
    print(len(executor.submit(bytes, 3_000_000).result()), executor.submit(len, bytes(3_000_000)).result())
    executor.submit(print, "printed").result()
"""
WORKED = ["4950", "3000000 3000000", "printed"]


def test_a_missing_temporary_directory(run_script: Script, tmp_path: Path) -> None:
    ended = run_script(WORK, TMPDIR=str(tmp_path / "missing"))
    assert (ended.lines, ended.errors) == (WORKED, "")


def test_a_temporary_directory_with_a_very_long_path(run_script: Script, tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*(letter * 100 for letter in "abcd"))
    folder.mkdir(parents=True)
    ended = run_script(WORK, TMPDIR=str(folder))
    assert (ended.lines, ended.errors, list(folder.iterdir())) == (WORKED, "", [])


def test_no_writable_directory_and_no_shared_memory_at_all() -> None:
    """In a mount namespace of its own, where the system allows one; else with variables that point to nowhere."""
    ours = [Path(sys.prefix), Path(netfutures.__file__)]
    places = [
        each for each in ("/dev/shm", "/var/tmp", "/tmp", "/run") if not any(p.is_relative_to(each) for p in ours)
    ]
    hidden = " && ".join(f"mount -t tmpfs -o ro,size=4k none {each}" for each in places)
    check = " && ".join(f"! touch {each}/x 2>/dev/null" for each in places) + ' && exec "$@"'
    namespace = ["unshare", "--mount", "--map-root-user"]
    possible = subprocess.run([*namespace, "sh", "-c", hidden], capture_output=True, timeout=30).returncode == 0
    wrapped = [*namespace, "sh", "-c", f"{hidden} && {check}", "sh"] if possible else []
    environment = surroundings() | dict.fromkeys(("TMPDIR", "TEMP", "TMP", "HOME", "XDG_RUNTIME_DIR"), "/proc/nowhere")
    done = subprocess.run(
        [*wrapped, sys.executable, "-c", WORK],
        cwd="/proc",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
    )
    ended = Ended(done.returncode, done.stdout, done.stderr)
    assert (ended.lines, ended.errors) == (WORKED, "")


@pytest.mark.parametrize("limit", [16, 24, 40, 64, 256])
def test_few_descriptors_work_or_are_told(run_script: Script, limit: int) -> None:
    ended = run_script(f"""
import resource, time
from netfutures import Executor
from netfutures.errors import BrokenWorkerPool
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
try:
    with Executor(8) as executor:
        print(list(executor.map(len, ["a"] * 50)) == [1] * 50)
except (BrokenWorkerPool, OSError) as error:
    print("told", "descriptors" in str(error) or "open files" in str(error) or str(error))
""")
    assert ended.lines in (["True"], ["told True"]), ended
    assert ended.lines == ["True"] or limit < 256


def test_closed_standard_streams(run_script: Script) -> None:
    ended = run_script("""
import os, sys
from netfutures import Executor
for descriptor in (0, 1, 2):
    os.close(descriptor)
with Executor(2) as executor:
    executor.submit(print, "to nowhere").result(30)
    good = list(executor.map(len, ["a"] * 50)) == [1] * 50
os._exit(17 if good else 1)
""")
    assert (ended.status, ended.output) == (17, "")


@pytest.mark.parametrize("way", ["locals", "nothing", "no argv"])
def test_odd_interpreters(run_script: Script, way: str) -> None:
    ways = {
        "locals": "sys.stdout = None; sys.stderr = None",
        "nothing": "sys.path.append(None); sys.path.append(b'bytes')",
        "no argv": "del sys.argv",
    }
    ended = run_script(f"""
import os, sys
from netfutures import Executor
{ways[way]}
with Executor(1) as executor:
    executor.submit(print, "").result(30)
    os.write(1, b"%d" % executor.submit(len, "abc").result(30))
""")
    assert ended.output.strip() == "3", ended
    assert ended.status == 0


# -- tasks


def close_all() -> None:
    os.closerange(0, 100_000)


def test_a_task_that_closes_all_descriptors() -> None:
    executor = Executor(1)
    error = executor.submit(close_all).exception(LIMIT_S)
    assert isinstance(error, BrokenWorkerPool)
    assert re.search("a task (that )?closed", str(error))
    executor.shutdown()
    with Executor(1, retries=0) as patient:
        assert isinstance(patient.submit(close_all).exception(LIMIT_S), WorkerLost)
        assert patient.submit(double, 1).result(LIMIT_S) == 2


def test_a_task_that_becomes_another_program() -> None:
    with Executor(1, retries=0) as executor:
        error = executor.submit(os.execvp, "sleep", ["sleep", "1000"]).exception(LIMIT_S)
        assert isinstance(error, WorkerLost)
        assert executor.submit(double, 1).result(LIMIT_S) == 2


def fork_and_go_on(place: str, way: str) -> tuple[int, int]:
    """The copy returns from the task, or raises, or ends; the task itself returns too."""
    copy = os.fork()
    if not copy:
        tell_start(place)
        if way == "raise":
            raise ValueError("in the copy")
        if way == "exit":
            os._exit(3)
        return os.getpid(), -1
    return os.getpid(), os.waitpid(copy, 0)[0]


@pytest.mark.parametrize("way", ["return", "raise", "exit"])
def test_a_task_that_forks(gate: Gate, way: str) -> None:
    with Executor(1) as executor, gate:
        child = executor.submit(pid).result(LIMIT_S)
        ran, copy = executor.submit(fork_and_go_on, gate.place, way).result(LIMIT_S)
        assert ran == child
        assert gate.wait_started() == [copy]
        assert [executor.submit(pid).result(LIMIT_S) for _ in range(20)] == [child] * 20


def start_daemon(place: str) -> int:
    """In the way of the books: forks twice, with a session of its own, and goes on for ever."""
    first = os.fork()
    if not first:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.closerange(0, 3)
        tell_start(place)
        signal.pause()
    return os.waitpid(first, 0)[1]


def test_a_daemon_that_a_task_starts_ends_with_the_executor(gate: Gate) -> None:
    with Executor(1) as executor, gate:
        assert executor.submit(start_daemon, gate.place).result(LIMIT_S) == 0
        (daemon,) = gate.wait_started()
        descriptor = os.pidfd_open(daemon)
        assert executor.submit(double, 1).result(LIMIT_S) == 2
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, 0)
    os.close(descriptor)


MISUSES: dict[str, Callable[[], object]] = {
    "closes its stdout": lambda: sys.stdout.close(),
    "replaces its stdout": lambda: setattr(sys, "stdout", None),
    "closes the standard descriptors": lambda: os.closerange(0, 3),
    "changes its directory": lambda: os.chdir("/"),
    "ignores signals": lambda: [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTERM, signal.SIGINT)],
    "takes SIGCHLD": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "leaves a thread": lambda: __import__("threading").Thread(target=time.sleep, args=(0.2,)).start(),
    "moves to a group of its own": lambda: os.setsid(),
    "clears its modules": lambda: sys.modules.pop("netfutures.payload"),
    "freezes the garbage collector": lambda: __import__("gc").disable(),
    "sets an alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 1000),
    "traces": lambda: sys.settrace(lambda *_: None),
    "lowers the limit of files": lambda: __import__("resource").setrlimit(7, (3, 3)),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_task_that_misuses_its_process_is_harmless(name: str) -> None:
    with Executor(1, retries=0) as executor:
        first = executor.submit(append_and_count, 0).result(LIMIT_S)
        misuse = executor.submit(MISUSES[name]).exception(LIMIT_S)
        assert misuse is None or isinstance(misuse, OSError | WorkerLost | TypeError), misuse
        results = [executor.submit(append_and_count, number).result(LIMIT_S) for number in range(10)]
        assert [count for _, count in results][-1] in (10, 11)
        assert len({process for process, _ in results}) == 1
        if misuse is None:
            assert results[0][0] == first[0]
        large = executor.submit(bytes, 3_000_000)
        assert isinstance(large.exception(LIMIT_S), OSError) if "limit of files" in name else large.result(LIMIT_S)


def test_a_task_that_is_stopped_and_goes_on(gate: Gate) -> None:
    with Executor(1) as executor, gate:
        future = executor.submit(pass_gate, gate.place, "went on")
        (child,) = gate.wait_started()
        os.kill(child, signal.SIGSTOP)
        gate.open()
        with pytest.raises(TimeoutError):
            future.result(0.3)
        os.kill(child, signal.SIGCONT)
        assert future.result(LIMIT_S) == "went on"


@pytest.mark.medium
def test_a_thread_that_never_ends_delays_the_end_by_its_grace_only() -> None:
    executor = Executor(1)
    executor.submit(start_endless_thread).result(LIMIT_S)
    begin = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - begin < 15


def start_endless_thread() -> None:
    import threading

    threading.Thread(target=signal.sigwait, args=([signal.SIGUSR2],)).start()
