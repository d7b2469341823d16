"""Tasks of a child: packets, results, functions, large payloads, take-back and harvest."""

from __future__ import annotations

import mmap
import os
import random
import time
from pathlib import Path
from typing import Any

from child_stage import in_own_process, results_of, staged, wait_readable


def payloads_of(values: range) -> list[bytes]:
    from netfutures.payload import dump_call

    return [dump_call((value,), {}) for value in values]


@in_own_process
def test_ten_thousand_tasks_in_packets(tmp_path: Path) -> None:
    from netfutures.payload import dump_plain

    with staged() as stage:
        child = stage.start()
        child.give_function(7, dump_plain(abs), True)
        found: dict[int, Any] = {}
        for first in range(1, 10_001, 250):
            child.give_tasks(7, first, payloads_of(range(-first, -first - 250, -1)))
            if first > 1000:
                found.update(stage.by_index(child, range(first - 1000, first - 750)))
        found.update(stage.by_index(child, range(9001, 10_001)))
        assert found == {index: index for index in range(1, 10_001)}


@in_own_process
def test_results_larger_than_the_ring_arrive_in_order_of_their_index(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value, dump_call
    from netfutures_worker.channel import RING_BYTES, Results

    def grow(size: int) -> bytes:
        return bytes(size)

    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(grow), True)
        sizes = random.Random(4).choices((10, 3000, 40_000, 65_000, 70_000), k=200)
        assert sum(sizes) > 4 * RING_BYTES
        for first in range(1, 201, 100):
            child.give_tasks(1, first, [dump_call((size,), {}) for size in sizes[first - 1 : first + 99]])
        heard = stage.hear(child, lambda heard: sum(len(each.outcomes) for each in heard) == 200)
        firsts = [record.first for record in heard if isinstance(record, Results)]
        assert firsts == sorted(firsts)
        assert [len(value) for value in results_of(heard).values()] == sizes


@in_own_process
def test_large_arrays_arrive_writable_both_ways(tmp_path: Path) -> None:
    import numpy

    from netfutures.payload import dump_call
    from netfutures_worker.memory import Memory

    def change(array: Any) -> Any:
        array += 1
        return array

    with staged() as stage:
        child = stage.start()
        before = len(os.listdir("/proc/self/fd"))
        for index, size in enumerate((1 << 13, 1 << 16, 10 * (1 << 17)), 1):
            result = stage.call(child, index, change, numpy.zeros(size))
            assert result.shape == (size,)
            assert result.sum() == size
            result += 1
        memory = Memory.of(dump_call((numpy.ones(1 << 17),), {}))
        for index in (4, 5):  # What one task changes in its arguments no other sees.
            child.give_tasks(3, index, [memory])
            assert stage.outcomes(child, index, 1)[0].sum() == 1 << 18
        mapping = mmap.mmap(memory.fd, len(memory), prot=mmap.PROT_READ)
        small = mmap.mmap(-1, 1000)
        small[:] = dump_call((numpy.ones(100),), {}).ljust(1000, b"\0")
        memory.close()
        child.give_tasks(3, 6, [mapping, small])
        assert [value.sum() for value in stage.outcomes(child, 6, 2)] == [1 << 18, 200]
        mapping.close()
        child.give_function(4, small, True)
        mixed = [dump_call((numpy.zeros(size),), {}) for size in (1, 1 << 16, 2, 4000, 4000, 1 << 14)]
        child.give_tasks(3, 8, mixed)
        assert [len(value) for value in stage.outcomes(child, 8, 6)] == [1, 1 << 16, 2, 4000, 4000, 1 << 14]
        assert len(os.listdir("/proc/self/fd")) == before


@in_own_process
def test_a_function_that_may_not_be_kept_is_fresh_for_each_task(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value

    seen: list[int] = []

    def note(value: int) -> list[int]:
        seen.append(value)
        return seen

    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(note), False)
        child.give_tasks(1, 1, payloads_of(range(3)))
        assert stage.outcomes(child, 1, 3) == [[0], [1], [2]]
        child.give_function(2, dump_by_value(note), True)
        child.give_tasks(2, 4, payloads_of(range(3)))
        assert stage.outcomes(child, 4, 3) == [[0], [0, 1], [0, 1, 2]]


@in_own_process
def test_what_goes_wrong_in_a_task_is_that_task_s_alone(tmp_path: Path) -> None:
    import threading

    from netfutures.errors import TransferError
    from netfutures.payload import dump_by_value, dump_plain

    def misbehave(value: int) -> Any:
        if value == 1:
            raise SystemExit(3)
        if value == 2:
            raise KeyboardInterrupt
        if value == 3:
            return threading.Lock()
        if value == 4:
            return misbehave(value)
        if value == 5:
            raise KeyError("five")
        return value

    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(misbehave), True)
        child.give_tasks(1, 1, payloads_of(range(7)))
        kinds = [type(value).__name__ for value in stage.outcomes(child, 1, 7)]
        assert kinds == ["int", "SystemExit", "KeyboardInterrupt", "TypeError", "RecursionError", "KeyError", "int"]
        child.give_function(2, b"\x80nonsense", True)
        child.give_tasks(2, 8, payloads_of(range(2)))
        assert all(isinstance(value, TransferError) for value in stage.outcomes(child, 8, 2))
        child.give_function(3, dump_plain(abs), True)
        child.give_tasks(3, 10, [b"\x80nonsense", *payloads_of(range(1))])
        failed, fine = stage.outcomes(child, 10, 2)
        assert isinstance(failed, TransferError)
        assert "arguments" in str(failed)
        assert fine == 0


@in_own_process
def test_what_a_dead_child_has_finished_is_harvested(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value
    from netfutures_worker.channel import Exit, HungUp

    def leave_at_five(value: int) -> int:
        import os

        print("task", value)
        if value == 5:
            os._exit(9)
        return value

    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(leave_at_five), True)
        child.give_tasks(1, 1, payloads_of(range(1, 11)))
        child.give_tasks(1, 11, payloads_of(range(11, 21)))
        assert wait_readable(child.pidfd)
        heard = child.harvest()
        assert results_of(heard) == {1: 1, 2: 2, 3: 3, 4: 4}
        assert [record.task_index for record in heard[:5]] == [1, 2, 3, 4, 5]
        assert child.claim() == 5
        assert child.revoke().unread == [11]
        assert child.receive() == [HungUp()]
        assert child.harvest() == []
        assert child.reap() == Exit(9, None)


@in_own_process
def test_results_before_a_long_task_are_harvested_once(tmp_path: Path) -> None:
    import functools

    from netfutures.payload import dump_by_value

    def wait_at_three(gate: str, value: int) -> int:
        import os

        if value == 3:
            os.read(os.open(gate, os.O_RDONLY), 1)  # returns when the other end is closed
        return value

    with staged() as stage:
        child = stage.start()
        folder = tmp_path
        gate = str(folder / "gate")
        os.mkfifo(gate)
        child.give_function(1, dump_by_value(functools.partial(wait_at_three, gate)), True)
        child.give_tasks(1, 1, payloads_of(range(1, 7)))
        opened = os.open(gate, os.O_WRONLY)  # Returns when the third task has opened the other end.
        assert child.claim() == 3
        assert results_of(child.harvest()) == {1: 1, 2: 2}
        assert child.harvest() == []
        os.close(opened)
        assert stage.outcomes(child, 3, 4) == [3, 4, 5, 6]
        assert child.harvest() == []


@in_own_process
def test_what_is_given_after_a_take_back_runs_and_nothing_else(tmp_path: Path) -> None:
    from netfutures.payload import dump_by_value
    from netfutures_worker.channel import Stopped

    def wait_at_two(gate: str, value: int) -> int:
        import os

        if value == 2:
            os.read(os.open(gate, os.O_RDONLY), 1)  # returns when the other end is closed
        return value

    import functools

    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(functools.partial(wait_at_two, gate)), True)
        child.give_tasks(1, 1, payloads_of(range(1, 5)))
        child.give_function(2, dump_by_value(abs), True)
        child.give_tasks(1, 5, payloads_of(range(5, 9)))
        opened = os.open(gate, os.O_WRONLY)
        revoked = child.revoke()
        assert (revoked.claim, revoked.limit, revoked.unread, revoked.functions) == (2, 3, [5], [2])
        child.give_tasks(1, 9, payloads_of(range(9, 11)))
        again = child.revoke()  # While the first is still on its way to the child.
        assert (again.claim, again.unread) == (2, [9])
        child.give_tasks(1, 11, payloads_of(range(11, 13)))
        os.close(opened)
        heard = stage.hear(child, lambda heard: 12 in results_of(heard))
        assert results_of(heard) == {1: 1, 2: 2, 11: 11, 12: 12}
        assert [record for record in heard if isinstance(record, Stopped)] == [Stopped(3)]
        child.give_tasks(1, 13, payloads_of(range(13, 15)))
        assert stage.outcomes(child, 13, 2) == [13, 14]


@in_own_process
def test_a_take_back_from_an_index_leaves_what_lies_before(tmp_path: Path) -> None:
    import functools

    from netfutures.payload import dump_by_value
    from netfutures_worker.channel import Stopped

    def wait_at_two(gate: str, value: int) -> int:
        import os

        if value == 2:
            os.read(os.open(gate, os.O_RDONLY), 1)  # returns when the other end is closed
        return value

    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(functools.partial(wait_at_two, gate)), True)
        child.give_tasks(1, 1, payloads_of(range(1, 7)))
        opened = os.open(gate, os.O_WRONLY)
        assert child.revoke(5).limit == 5
        os.close(opened)
        heard = stage.hear(child, lambda heard: isinstance(heard[-1], Stopped))
        assert results_of(heard) == {1: 1, 2: 2, 3: 3, 4: 4}
        assert heard[-1] == Stopped(5)
        assert child.claim() == 4


@in_own_process
def test_no_task_both_runs_and_is_taken_back(tmp_path: Path) -> None:
    """Two seconds of taking back at random moments: what a child ran, what it says, and what came back must agree."""
    from netfutures.payload import dump_by_value

    def ran(value: int) -> int:
        import sys

        log = sys.modules.setdefault("_ran", type(sys)("_ran")).__dict__.setdefault("log", [])
        if value < 0:
            return list(log)  # type: ignore[return-value]
        log.append(value)
        return value

    chance = random.Random(11)
    with staged() as stage:
        child = stage.start()
        child.give_function(1, dump_by_value(ran), True)
        index, finished, void, rounds = 1, set[int](), set[int](), 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            packets: dict[int, int] = {}
            for _packet in range(chance.randrange(1, 4)):
                count = chance.randrange(1, 60)
                packets[index] = count
                child.give_tasks(1, index, payloads_of(range(index, index + count)))
                index += count
            for _spin in range(chance.randrange(400)):
                pass
            revoked = child.revoke()
            if 1 in revoked.functions:
                child.give_function(1, dump_by_value(ran), True)
            back = set(range(revoked.claim + 1, index))
            assert all(first > revoked.claim for first in revoked.unread)
            found = results_of([*child.harvest(), *child.receive()])
            assert all(found[number] == number for number in found)
            finished.update(found)
            void |= back
            rounds += 1
        child.give_tasks(1, index, payloads_of(range(-1, 0)))
        heard = stage.hear(child, lambda heard: index in results_of(heard))
        values = results_of(heard)
        log = values.pop(index)
        finished |= set(values)
        assert rounds > 100
        assert len(void) > 100
        assert (finished - set(log), set(log) - finished) == (set(), set()), len(log)
        assert len(log) == len(finished)
        assert not finished & void
        assert len(finished | void) >= index - 1 - rounds  # A claimed task that met the limit is in neither.
