"""Runs a test's body in a process of its own, which plays the worker: with a zygote and real children, and no shell."""

from __future__ import annotations

import importlib
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netfutures_worker.zygote import Zygote, start_zygote

LIMIT_S = 20.0


def in_own_process(body: Callable[[Path], None]) -> Callable[[Path], None]:
    """A test whose body is called with `tmp_path` in a fresh interpreter, before any thread is there."""

    def test(tmp_path: Path) -> None:
        import pytest

        command = [sys.executable, __file__, body.__code__.co_filename, body.__name__, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, stdin=subprocess.DEVNULL)
        if done.returncode:
            pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)

    test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
    test.body = body  # type: ignore[attr-defined]
    return test


def wait_readable(thing: Any, limit_s: float = LIMIT_S) -> bool:
    """Is this descriptor readable, or closed on the other side, within the limit?"""
    poll = select.poll()
    poll.register(thing, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))


class Stage:
    """What a shell would do, in the simplest way: starts children, waits, and keeps what each has said."""

    def __init__(self) -> None:
        self.zygote: Zygote = start_zygote()
        # Only now, as in the programs: the zygote is forked before the rest is there.
        from netfutures_worker.child_process import ChildProcess

        self.kind = ChildProcess
        self.children: list[Any] = []

    def request(self, initializer: bytes | None = None, extra: dict[str, Any] | None = None) -> Any:
        """A child that has been told to prepare."""
        child = self.kind.request(self.zygote, len(self.children))
        self.children.append(child)
        assert wait_readable(self.zygote)
        pid = self.zygote.receive()
        assert pid
        child.started(pid)
        child.prepare(initializer, extra)
        return child

    def start(self, initializer: bytes | None = None, extra: dict[str, Any] | None = None) -> Any:
        """A child that is ready."""
        from netfutures_worker.channel import Ready

        child = self.request(initializer, extra)
        (ready,) = self.hear(child, lambda heard: isinstance(heard[-1], Ready))
        assert ready.pid == child.pid
        return child

    def hear(self, child: Any, enough: Callable[[list[Any]], bool], limit_s: float = LIMIT_S) -> list[Any]:
        """Records of a child, what came by its pipes too, until they are enough."""
        from netfutures_worker.channel import HungUp, Output

        heard: list[Any] = []
        while not (heard and enough(heard)):
            poll = select.poll()
            for fd in (child.stdout_fd, child.stderr_fd, child.results_fd):
                poll.register(fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(limit_s * 1000)]
            assert ready, f"nothing more within {limit_s} s after {heard[-3:]}"
            for stream, fd in ((1, child.stdout_fd), (2, child.stderr_fd)):
                written = child.read_output(stream) if fd in ready else None
                if written:
                    heard.append(Output(0, stream, written))
            if child.results_fd in ready:
                heard += child.receive()
                if heard and isinstance(heard[-1], HungUp):
                    assert enough(heard), f"the child hung up after {heard}"
                    break
        return heard

    def outcomes(self, child: Any, first: int, count: int) -> list[Any]:
        """The values of consecutive tasks; an exception stands for itself."""
        return list(self.by_index(child, range(first, first + count)).values())

    def by_index(self, child: Any, indices: range) -> dict[int, Any]:
        found: dict[int, Any] = {}

        def enough(heard: list[Any]) -> bool:
            found.update(results_of(heard))
            return len(found) >= len(indices)

        self.hear(child, enough)
        assert sorted(found) == list(indices)
        return dict(sorted(found.items()))

    def call(self, child: Any, index: int, function: Callable[..., Any], *args: Any) -> Any:
        """The value, or the exception, of one task whose function travels by value."""
        self.give(child, index, function, *args)
        return self.outcomes(child, index, 1)[0]

    def give(self, child: Any, index: int, function: Callable[..., Any], *args: Any) -> None:
        from netfutures.payload import dump_by_value, dump_call

        child.give_function(index, dump_by_value(function), False)
        child.give_tasks(index, index, [dump_call(args, {})])

    def death(self, child: Any, limit_s: float = LIMIT_S) -> Any:
        """How a child ended."""
        assert wait_readable(child.pidfd, limit_s), f"the child with pid {child.pid} lives on"
        end = child.reap()
        assert end is not None
        return end

    def close(self) -> None:
        for child in self.children:
            if child.pid and child.pidfd >= 0:
                child.kill()
                self.death(child)
            child.close()
        self.zygote.close()


def results_of(heard: list[Any]) -> dict[int, Any]:
    """Values by index; an exception stands for itself."""
    from netfutures.payload import load_outcome
    from netfutures_worker.channel import Results
    from netfutures_worker.memory import Memory

    found: dict[int, Any] = {}
    for record in heard:
        if isinstance(record, Results):
            for place, outcome in enumerate(record.outcomes):
                assert record.first + place not in found, "a result came twice"
                value, error = load_outcome(outcome.read_all() if isinstance(outcome, Memory) else outcome)
                found[record.first + place] = error if error is not None else value
    return found


@contextmanager
def staged() -> Iterator[Stage]:
    stage = Stage()
    try:
        yield stage
    finally:
        stage.close()


def text_of(heard: list[Any], stream: int = 1) -> str:
    """All that was written to one stream."""
    from netfutures_worker.channel import Output

    return b"".join(each.data for each in heard if isinstance(each, Output) and each.stream == stream).decode()


def open_descriptors() -> dict[int, str]:
    """What this process holds open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # It was the listing's own.
    return found


def main() -> None:
    file, name, folder = sys.argv[1:]
    sys.path.insert(0, str(Path(file).parent))
    try:
        getattr(importlib.import_module(Path(file).stem), name).body(Path(folder))
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
