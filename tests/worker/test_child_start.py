"""Children start in the right surroundings, run their initializers, and end in every way they can."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from child_stage import Stage, in_own_process, open_descriptors, results_of, staged, text_of, wait_readable


@in_own_process
def test_a_child_runs_a_task_and_ends_when_told(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit

    with staged() as stage:
        child = stage.start()
        assert stage.call(child, 1, lambda value: value * 2, 21) == 42
        assert child.claim() == 1
        child.end()
        assert stage.death(child) == Exit(0, None)


def look_around() -> dict[str, Any]:
    """Runs in a child, by value, so it imports what it uses."""
    import os
    import random
    import signal
    import sys

    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    children = f"/proc/self/task/{os.getpid()}/children"
    signals = (signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "fds": fds,
        "children": open(children).read() if os.path.exists(children) else "",
        "signals": {number: signal.getsignal(number) for number in signals},
        "interrupt": callable(signal.getsignal(signal.SIGINT)),
        "oom": int(open("/proc/self/oom_score_adj").read()),
        "random": random.random(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("NETFUTURES_")},
        "zmq": [name for name in sys.modules if name.partition(".")[0] in ("zmq", "netfutures_broker")],
        "stdin": sys.stdin.read() if sys.stdin else "",
        "name": open("/proc/self/comm").read().strip(),
        "main": hasattr(sys.modules["__main__"], "__file__"),
        "path": sys.path[0],
        "argv": sys.argv,
    }


@in_own_process
def test_a_child_has_the_surroundings_of_a_fresh_interpreter(tmp_path: Path) -> None:
    os.environ["NETFUTURES_ADDRESS"] = "nowhere"
    for number in (signal.SIGHUP, signal.SIGTERM):  # as under nohup
        signal.signal(number, signal.SIG_IGN)
    with staged() as stage:
        one = stage.start(extra={"sys_path": ["here", *sys.path], "argv": ["script.py", "-v"]})
        two = stage.start(extra={"unknown": 1})
        seen, other = stage.call(one, 1, look_around), stage.call(two, 1, look_around)
        assert seen["pid"] == one.pid == seen["group"]
        assert seen["parent"] == os.getpid()
        assert seen["children"] == ""
        assert seen["signals"] == {
            signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL,
            signal.SIGPIPE: signal.SIG_IGN, signal.SIGCHLD: signal.SIG_DFL,
        }  # fmt: skip
        assert seen["interrupt"]
        assert seen["oom"] >= 500
        assert seen["random"] != other["random"]
        assert seen["environment"] == {"NETFUTURES_LEVEL": "1"}
        assert seen["zmq"] == []
        assert seen["stdin"] == ""
        assert seen["name"] == "nf-child"
        assert not seen["main"]
        assert (seen["path"], seen["argv"]) == ("here", ["script.py", "-v"])
        assert other["argv"] == sys.argv


@in_own_process
def test_a_child_holds_no_file_of_its_siblings_or_its_worker(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w", encoding="ascii") as secret, staged() as stage:
        assert secret
        seen = [stage.call(stage.start(), 1, look_around)["fds"] for _ in range(3)]
        for fds in seen:
            kinds = sorted(target.partition(":")[0] for target in fds.values() if target != "/dev/null")
            assert [kind for kind in kinds if not kind.startswith("/proc")] == [
                "/memfd", "pipe", "pipe", "socket", "socket",
            ]  # fmt: skip
            assert max(fds) <= 4095
            assert min(fd for fd, target in fds.items() if target.startswith("socket")) > 900
        pipes = [target for fds in seen for target in fds.values() if target.startswith(("pipe", "socket"))]
        assert len(set(pipes)) == len(pipes)


@in_own_process
def test_fifty_lives_leak_no_descriptor_and_no_process(tmp_path: Path) -> None:
    with staged() as stage:
        before = open_descriptors()
        for _ in range(50):
            child = stage.start()
            assert stage.call(child, 1, len, "four") == 4
            child.kill()
            stage.death(child)
            child.close()
            child.close()
        assert open_descriptors() == before
        from netfutures_worker.reaper import end_strays

        assert end_strays({stage.zygote.pid}) == 0


@in_own_process
def test_an_initializer_runs_before_the_first_task(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value

    def set_up() -> None:
        import sys

        print("set up")
        sys.modules["marked"] = sys

    def is_marked() -> bool:
        import sys

        return "marked" in sys.modules

    from netfutures_worker.channel import Ready

    with staged() as stage:
        child = stage.request(dump_by_value(set_up))
        heard = stage.hear(child, lambda heard: isinstance(heard[-1], Ready))
        assert text_of(heard) == "set up\n"
        assert stage.call(child, 1, is_marked)


@in_own_process
def test_a_failing_initializer_is_told_and_ends_the_child(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value
    from netfutures_worker.channel import Exit, Failed

    def fail() -> None:
        print("on my way")
        raise ArithmeticError("no set-up today")

    def leave() -> None:
        raise SystemExit(0)

    with staged() as stage:
        child = stage.request(dump_by_value(fail))
        heard = stage.hear(child, lambda heard: isinstance(heard[-1], Failed))
        assert text_of(heard) == "on my way\n"
        assert "ArithmeticError: no set-up today" in heard[-1].text
        assert stage.death(child) == Exit(1, None)
        child = stage.request(dump_by_value(leave))
        assert "SystemExit" in stage.hear(child, lambda heard: isinstance(heard[-1], Failed))[-1].text
        assert stage.death(child) == Exit(1, None)
        child = stage.request(b"\x80no pickle")
        assert isinstance(stage.hear(child, lambda heard: isinstance(heard[-1], Failed))[-1], Failed)


@in_own_process
def test_what_runs_at_exit_and_threads_end_before_the_child(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit, HungUp

    def leave_something(folder: str) -> None:
        import atexit
        import sys
        import threading

        release = threading.Event()
        thread = threading.Thread(target=lambda: release.wait(20) and print("thread done"))
        thread.start()
        threading._register_atexit(release.set)  # type: ignore[attr-defined]
        atexit.register(lambda: open(folder + "/handler", "w").close())
        sys.stdout.write("no line's end")

    with staged() as stage:
        child = stage.start()
        assert stage.call(child, 1, leave_something, str(tmp_path)) is None
        child.end()
        heard = stage.hear(child, lambda heard: isinstance(heard[-1], HungUp))
        assert text_of(heard) == "thread done\n"
        assert (tmp_path / "handler").exists()
        assert stage.death(child) == Exit(0, None)


@in_own_process
def test_a_child_that_is_killed_before_it_started_is_ended_all_the_same(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit

    with staged() as stage:
        child = stage.kind.request(stage.zygote, 0)
        child.kill("not wanted any more")
        assert wait_readable(stage.zygote)
        pid = stage.zygote.receive()
        assert pid
        child.started(pid)
        assert stage.death(child) == Exit(None, signal.SIGKILL)
        assert child.fault == "not wanted any more"
        child.close()


@in_own_process
def test_children_survive_the_zygote_and_its_loss_is_told(tmp_path: Path) -> None:
    from netfutures_worker.zygote import ZygoteLost

    stage = Stage()
    child = stage.start()
    os.kill(stage.zygote.pid, signal.SIGKILL)
    assert wait_readable(stage.zygote.pidfd)
    assert stage.call(child, 1, len, "abc") == 3
    try:
        stage.zygote.receive()
    except ZygoteLost as error:
        assert "signal 9" in str(error)  # noqa: PT017 (there is no pytest in this process)
    else:
        raise AssertionError("nobody was told")
    try:
        stage.kind.request(stage.zygote, 1)
    except ZygoteLost:
        stage.close()
    else:
        raise AssertionError("a child was requested of nobody")


@in_own_process
def test_a_worker_without_descriptors_is_told_so_and_loses_none(tmp_path: Path) -> None:
    import resource

    from netfutures_worker.zygote import ChildNotStarted

    with staged() as stage:
        stage.start()
        highest = max(open_descriptors())
        while os.open(os.devnull, os.O_RDONLY) <= highest:
            continue  # No gap is left below.
        before = open_descriptors()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(10):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 1 + spare, hard))
            try:
                stage.kind.request(stage.zygote, 5)
            except ChildNotStarted as error:
                assert "slot 5" in str(error)  # noqa: PT017 (there is no pytest in this process)
            else:
                raise AssertionError(f"a child was made of {spare} descriptors")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            assert open_descriptors() == before
        assert stage.zygote.in_flight == 0
        assert stage.call(stage.start(), 1, len, "abc") == 3


@in_own_process
def test_a_worker_that_was_started_without_streams_and_with_sigchld_ignored_works(tmp_path: Path) -> None:
    from netfutures_worker.channel import Exit

    def read_and_print() -> str:
        import sys

        print("printed")
        return sys.stdin.read()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    errors = os.dup(2)
    os.closerange(0, 3)
    try:
        with staged() as stage:
            child = stage.start()
            stage.give(child, 1, read_and_print)
            heard = stage.hear(child, lambda heard: bool(results_of(heard)))
            assert (text_of(heard), results_of(heard)) == ("printed\n", {1: ""})
            child.end()
            assert stage.death(child) == Exit(0, None)
    finally:
        os.dup2(errors, 2)
