"""What tasks may do to their process: it stays right, or it ends and says so; nothing of it is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from child_stage import in_own_process, staged, wait_readable


@in_own_process
def test_a_task_that_closes_all_descriptors_ends_its_child(tmp_path: Path) -> None:
    from netfutures_worker.channel import EXIT_CHANNEL, EXIT_REASONS, Exit

    def close_all() -> None:
        import os

        os.closerange(0, 5000)

    def close_many() -> int:
        import os

        os.closerange(3, 1000)
        return 5

    with staged() as stage:
        child = stage.start()
        assert stage.call(child, 1, close_many) == 5
        stage.give(child, 2, close_all)
        assert stage.death(child) == Exit(EXIT_CHANNEL, None)
        assert "descriptors" in EXIT_REASONS[EXIT_CHANNEL]


@in_own_process
def test_a_copy_that_a_task_forked_leaves_the_channel_alone(tmp_path: Path) -> None:
    def fork_and_return(value: int) -> Any:
        import os
        import sys

        print("before", end=" ")
        pid = os.fork()
        if not pid:
            print("copy", value, flush=True)
            if value == 2:
                sys.exit(7)
            if value == 3:
                raise ValueError("in the copy")
            return "of the copy"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    from child_stage import results_of, text_of

    with staged() as stage:
        child = stage.start()
        for index, status in ((1, 0), (2, 7), (3, 1)):
            stage.give(child, index, fork_and_return, index)
            heard = stage.hear(child, lambda heard: bool(results_of(heard)))
            assert results_of(heard) == {index: status}
            assert set(text_of(heard).split()) == {"before", "copy", str(index)}
            assert ("in the copy" in text_of(heard, 2)) == (index == 3)
        assert stage.call(child, 4, len, "go on") == 5


@in_own_process
def test_a_copy_made_behind_the_interpreter_s_back_leaves_too(tmp_path: Path) -> None:
    def fork_in_c() -> bool:
        import ctypes
        import os

        pid = ctypes.PyDLL(None).fork()
        if pid:
            os.waitpid(pid, 0)
        return True

    with staged() as stage:
        child = stage.start()
        assert stage.call(child, 1, fork_in_c)
        assert stage.call(child, 2, fork_in_c)


@in_own_process
def test_processes_of_tasks_work(tmp_path: Path) -> None:
    def use_processes() -> list[int]:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(abs, range(-3, 0)))

    with staged() as stage:
        assert stage.call(stage.start(), 1, use_processes) == [3, 2, 1]


@in_own_process
def test_sudden_ends_are_told_by_exit_code_or_signal(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit

    def leave() -> None:
        import os

        os._exit(3)

    def hang_up() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGHUP)

    def crash() -> None:
        import ctypes
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ends = ((leave, Exit(3, None)), (hang_up, Exit(None, signal.SIGHUP)), (crash, Exit(None, signal.SIGSEGV)))
    with staged() as stage:
        for function, end in ends:
            child = stage.start()
            stage.give(child, 1, function)
            assert stage.death(child) == end


@in_own_process
def test_an_exec_hangs_up_and_is_ended(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit, HungUp

    def become_sleep() -> None:
        import os

        os.execvp("sleep", ["sleep", "1000"])

    with staged() as stage:
        child = stage.start()
        stage.give(child, 1, become_sleep)
        assert wait_readable(child.results_fd)
        assert child.receive() == [HungUp()]
        assert child.receive() == []
        assert stage.death(child) == Exit(None, signal.SIGKILL)
        assert "exec" in child.fault
        child = stage.start()
        os.kill(child.pid, signal.SIGKILL)
        assert wait_readable(child.results_fd)
        assert child.receive() == [HungUp()]
        assert stage.death(child) == Exit(None, signal.SIGKILL)
        assert child.fault == ""


@in_own_process
def test_an_interrupt_is_the_running_task_s_and_nobody_else_s(tmp_path: Path) -> None:
    def wait(folder: str) -> None:
        import signal
        import time

        open(folder + "/started", "w").close()
        signal.raise_signal(signal.SIGINT)
        time.sleep(1000)

    import time

    with staged() as stage:
        child = stage.start()
        for _ in range(20):
            os.kill(child.pid, signal.SIGINT)  # Between tasks.
        assert isinstance(stage.call(child, 1, wait, str(tmp_path)), KeyboardInterrupt)
        # A function of C has no frame of its own.
        stage.give(child, 2, time.sleep, 1000)
        stage_wait_for_claim(child, 2)
        while not (outcome := interrupt_until_heard(stage, child)):
            continue
        assert isinstance(outcome[2], KeyboardInterrupt), outcome
        assert stage.call(child, 3, len, "ok") == 2


def stage_wait_for_claim(child: Any, index: int) -> None:
    while child.claim() != index:
        os.sched_yield()


def interrupt_until_heard(stage: Any, child: Any) -> dict[int, Any]:
    from child_stage import results_of

    os.kill(child.pid, signal.SIGINT)
    return results_of(child.receive()) if wait_readable(child.results_fd, 0.2) else {}


@in_own_process
def test_a_daemon_is_ended_after_its_child_and_siblings_live(tmp_path: Path) -> None:
    from netfutures_worker.reaper import end_strays

    def leave_daemons() -> list[int]:
        import os
        import subprocess

        alone = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        group = subprocess.Popen(["sleep", "1000"])
        nested = subprocess.Popen(["sh", "-c", "setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000"])
        orphan = subprocess.run(["sh", "-c", "setsid sleep 1000 >/dev/null & echo $!"], stdout=subprocess.PIPE)
        mine = [os.getppid()]
        return [alone.pid, group.pid, nested.pid, int(orphan.stdout), *mine]

    with staged() as stage:
        child, sibling = stage.start(), stage.start()
        *left, parent = stage.call(child, 1, leave_daemons)
        kept = stage.call(sibling, 1, leave_daemons)[:-1]
        assert parent == os.getpid()
        watched = [os.pidfd_open(pid) for pid in left]
        known = {stage.zygote.pid, child.pid, sibling.pid}
        assert end_strays(known) == 0  # The orphan is its child's, which is a subreaper.
        known.remove(child.pid)
        child.kill()
        stage.death(child)
        assert end_strays(known, in_flight=1) == 0
        assert end_strays(known) >= 1
        assert all(wait_readable(pidfd) for pidfd in watched)
        assert stage.call(sibling, 2, len, "abc") == 3
        assert all(os.path.exists(f"/proc/{pid}") for pid in kept)
        known.remove(sibling.pid)
        sibling.kill()
        stage.death(sibling)
        end_strays(known)
        assert not any(os.path.exists(f"/proc/{pid}") for pid in kept)
        for pidfd in watched:
            os.close(pidfd)


WORKER = """
import os, sys, signal
from child_stage import Stage
stage = Stage()
children = [stage.start() for _ in range(3)]
import time
stage.give(children[0], 1, time.sleep, 1000)
def hold_the_gil():
    import ctypes
    ctypes.PyDLL(None).sleep(1000)
stage.give(children[1], 1, hold_the_gil)
print(*[child.pid for child in children], stage.zygote.pid, flush=True)
sys.stdin.read()
"""


def test_no_child_outlives_its_killed_worker(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=environment
    )
    with worker:
        assert worker.stdout
        pids = [int(word) for word in worker.stdout.readline().split()]
        assert len(pids) == 4
        pidfds = [os.pidfd_open(pid) for pid in pids]
        worker.kill()
        waiting = select.poll()
        for pidfd in pidfds:
            waiting.register(pidfd, select.POLLIN)
            assert wait_readable(pidfd, 1.0)
            os.close(pidfd)


@in_own_process
def test_a_child_that_does_not_read_is_ended_when_its_socket_is_full(tmp_path: Path) -> None:
    from netfutures.payload import dump_call
    from netfutures_worker.channel import Exit

    def stop() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)

    with staged() as stage:
        child = stage.start()
        stage.give(child, 1, stop)
        for index in range(2, 300):
            child.give_tasks(1, index, [dump_call((bytes(60_000),), {})])
        assert stage.death(child) == Exit(None, signal.SIGKILL)
        assert "60" in child.fault


@in_own_process
def test_a_child_that_cannot_be_watched_is_ended_and_told(tmp_path: Path) -> None:
    import resource

    import pytest

    from netfutures_worker.zygote import ChildNotStarted

    with staged() as stage:
        child = stage.kind.request(stage.zygote, 0)
        assert wait_readable(stage.zygote)
        pid = stage.zygote.receive()
        assert pid
        lowest_free = os.dup(0)
        os.close(lowest_free)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
        with pytest.raises(ChildNotStarted, match="open files"):
            child.started(pid)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not os.path.exists(f"/proc/{pid}")
        child.close()
        assert stage.call(stage.start(), 1, len, "ok") == 2
