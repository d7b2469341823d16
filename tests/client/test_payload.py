"""Calls, values and errors survive the way to bytes and back; what does not is said clearly, and escapes nowhere."""

from __future__ import annotations

import mmap
import pickle
import subprocess
import sys
import threading
import types
from concurrent.futures.process import _RemoteTraceback
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from netfutures import payload
from netfutures.errors import RemoteError, TransferError

BIG = 300_000


class Raises:
    """Raises what it is given when it is pickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


def blow_up(error: BaseException) -> None:
    raise error


class RaisesOnLoad:
    """Raises what it is given when it is unpickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return blow_up, (self.error,)


class NeedsTwo(Exception):
    """An exception that pickles and cannot be loaded, as many in the wild."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class HoldsLock(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class BadMessage(Exception):
    """An exception whose message cannot be written."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


class BecomesNumber(Exception):
    """An exception that loads as a number."""

    def __reduce__(self) -> Any:
        return int, (5,)


def double(x: int) -> int:
    return 2 * x


def deep(levels: int = 300_000) -> list[Any]:
    """A list nested too deeply for any pickle."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_call_comes_back() -> None:
    call = ((1, "a", [None]), {"key": b"x", "other": {1, 2}})
    bytes_ = payload.dump_call(*call)
    assert bytes_[0] == 0x80
    assert payload.load_call(bytes_) == call
    assert payload.load_call(memoryview(bytearray(bytes_))) == call


def test_the_value_at_the_dump_is_what_travels() -> None:
    array, items = np.zeros(BIG), [1]
    bytes_ = payload.dump_call((array, items), {})
    array[:] = 7
    items.append(2)
    (there, items_there), _ = payload.load_call(bytes_)
    assert there.sum() == 0
    assert items_there == [1]


@pytest.mark.parametrize("count", [3, BIG])
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_arrays_arrive_writable_and_aligned(make: Any, count: int) -> None:
    frozen = np.arange(count)
    frozen.flags.writeable = False
    arrays = [np.arange(count), frozen, np.arange(2 * count).reshape(2, count).T, np.arange(2 * count)[::2]]
    for there, here in zip(payload.load_outcome(make(payload.dump_value(arrays)))[0], arrays, strict=True):
        assert there.flags.writeable
        assert (there == here).all()
        there[...] = 1
    assert arrays[0][2] == 2


def test_large_buffers_load_without_a_copy_from_private_memory(tmp_path: Path) -> None:
    array = np.arange(BIG)
    bytes_ = payload.dump_value({"a": array, "b": bytearray(BIG), "c": array[:10]})
    assert bytes_[0] == 0
    path = tmp_path / "payload"
    path.write_bytes(bytes_)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    value, error = payload.load_outcome(memory)
    assert error is None
    there = value["a"]
    assert there.ctypes.data % 64 == 0
    there[5] = 99
    begin = np.frombuffer(memory, np.uint8).ctypes.data
    assert begin < there.ctypes.data < begin + len(bytes_), "the array lies in the mapping"
    assert path.read_bytes() == bytes_
    assert not payload.is_error(memory)


def test_two_loads_from_bytes_share_nothing() -> None:
    bytes_ = payload.dump_value(np.zeros(BIG))
    one, two = payload.load_outcome(bytes_)[0], payload.load_outcome(bytes_)[0]
    one[:] = 1
    assert two.sum() == 0


def test_local_functions_and_classes_travel_by_value() -> None:
    class Local:
        def __init__(self) -> None:
            self.array = np.zeros(BIG)
            self.array.flags.writeable = False

    def add(x: int) -> int:
        return x + offset

    offset = 5
    (function, instance), kwargs = payload.load_call(payload.dump_call((add, Local()), {"f": lambda: offset}))
    assert function(1) == 6
    assert kwargs["f"]() == 5
    assert instance.array.flags.writeable


def test_what_names_main_travels_by_value() -> None:
    script = """
import sys
from netfutures import payload
class Point:
    def __init__(self, x): self.x = x
big = ["__main__" * 100_000, b"x" * 300_000, Point(3)]
sys.stdout.buffer.write(payload.dump_call((Point(3), big), {}))
"""
    bytes_ = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
    (point, big), _ = payload.load_call(bytes_)
    assert point.x == 3
    assert type(big[2]) is type(point)
    assert type(point).__module__ == "__main__"


def test_names_are_searched_in_opcodes_only_when_large() -> None:
    large = "__main__ " * 100_000
    assert payload.names_by_value(pickle.dumps("__main__", 5))
    assert not payload.names_by_value(pickle.dumps([large, large.encode(), bytearray(large.encode()), 1] * 2, 5))
    assert payload.names_by_value(pickle.dumps([large, list(range(200_000)), "__main__"], 5))
    assert payload.names_by_value(pickle.dumps([list(range(200_000)), "__main__", large], 5))


def test_registered_modules_travel_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("class Thing:\n    x = 4\ndef call(): return Thing().x", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    by_reference = payload.dump_call((module.Thing(),), {})
    cloudpickle.register_pickle_by_value(module)
    try:
        payload.load_cloudpickle()
        by_value = payload.dump_call((module.Thing(),), {})
        assert payload.dump_plain(module.call) is None
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, "only_here")
    assert payload.load_call(by_value)[0][0].x == 4
    with pytest.raises(ModuleNotFoundError):
        payload.load_call(by_reference)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (threading.Lock(), TypeError),
        (deep(), (RecursionError, pickle.PicklingError)),
        (Raises(ValueError("not today")), ValueError),
        (Raises(SystemExit(3)), SystemExit),
        (Raises(KeyboardInterrupt()), KeyboardInterrupt),
        (Raises(TypeError("an executor cannot be sent: make it in the task")), TypeError),
    ],
    ids=["lock", "deep", "ValueError", "SystemExit", "KeyboardInterrupt", "TypeError"],
)
def test_what_cannot_be_pickled_raises_as_it_is(value: Any, expected: Any) -> None:
    with pytest.raises(expected) as call:
        payload.dump_call((1,), {"x": 2, "it": value}, "score")
    with pytest.raises(expected) as result:
        payload.dump_value(value)
    if isinstance(call.value, Exception):
        assert any(" it (a " in note and "score" in note for note in call.value.__notes__)
    assert "its result" in result.value.__notes__[-1]


def test_a_remote_exception_comes_with_its_traceback() -> None:
    error = raised(LookupError("gone", 3))
    error.add_note("a note")
    outcome = payload.dump_error(error)
    assert payload.is_error(outcome)
    value, there = payload.load_outcome(outcome)
    assert value is None
    assert type(there) is LookupError
    assert there.args == ("gone", 3)
    assert there.__notes__ == ["a note"]
    assert type(there.__cause__) is _RemoteTraceback
    text = str(there.__cause__)
    assert text.startswith('\n"""\nTraceback (most recent call last):')
    assert text.endswith('"""')
    assert "raise error" in text
    assert error.__traceback__ is None


def test_exceptions_of_local_classes_arrive_as_themselves() -> None:
    class Local(Exception):
        pass

    _, there = payload.load_outcome(payload.dump_error(raised(Local("x"))))
    assert type(there) is Local


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ExceptionGroup("g", [OSError(1, "x")])]
)
def test_all_kinds_of_exceptions_travel(error: BaseException) -> None:
    _, there = payload.load_outcome(payload.dump_error(raised(error)))
    assert type(there) is type(error)
    assert str(there) == str(error)


def test_an_exception_that_cannot_be_pickled_has_a_stand_in() -> None:
    exits = [raised(ValueError(Raises(each))) for each in (SystemExit(), KeyboardInterrupt())]
    for error in (HoldsLock("its message"), *exits):
        _, there = payload.load_outcome(payload.dump_error(error))
        assert isinstance(there, RemoteError)
        assert type(error).__name__ in str(there)
        assert str(error) in str(there)
        assert type(there.__cause__) is _RemoteTraceback


def test_an_exception_that_cannot_be_loaded_is_named() -> None:
    for error in (NeedsTwo("salt", "pepper"), BecomesNumber("salt and pepper")):
        _, there = payload.load_outcome(payload.dump_error(raised(error)))
        assert isinstance(there, TransferError)
        assert "salt and pepper" in str(there)
        assert isinstance(there.__cause__, TypeError)
        assert "raise error" in there.__notes__[0]


def test_hostile_messages_and_tracebacks_do_not_stop_an_error() -> None:
    _, there = payload.load_outcome(payload.dump_error(raised(BadMessage())))
    assert isinstance(there, BadMessage)
    outcome = payload.dump_error(raised(RecursionError(deep())))
    assert isinstance(payload.load_outcome(outcome)[1], RemoteError)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), RecursionError("deep"), MemoryError()])
def test_what_cannot_be_rebuilt_is_a_transfer_error(error: BaseException) -> None:
    value, there = payload.load_outcome(payload.dump_value([RaisesOnLoad(error)]), lambda: "the result of score")
    assert value is None
    assert isinstance(there, TransferError)
    assert "the result of score" in str(there)
    assert type(there.__cause__) is type(error)


def test_an_interrupt_while_loading_is_real_in_the_main_thread_only() -> None:
    outcome = payload.dump_value(RaisesOnLoad(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        payload.load_outcome(outcome)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(payload.load_outcome(outcome)[1]))
    thread.start()
    thread.join()
    assert isinstance(seen[0], TransferError)


@pytest.mark.parametrize("damaged", [b"", b"\x80", b"\0", b"\0\0\0\0\5\0\0\0", b"E", b"Tjunk", b"zzz", b"\0" * 64])
def test_damaged_outcomes_are_transfer_errors(damaged: bytes) -> None:
    assert payload.is_error(damaged) is (damaged[:1] in (b"E", b"T"))
    value, there = payload.load_outcome(damaged)
    assert isinstance(there, TransferError)
    assert value is None


def test_a_transfer_error_of_the_other_side_carries_the_cause() -> None:
    outcome = payload.dump_transfer_error("the function score of task 3", raised(ModuleNotFoundError("no numpy there")))
    assert payload.is_error(outcome)
    _, there = payload.load_outcome(outcome)
    assert isinstance(there, TransferError)
    assert "the function score of task 3" in str(there)
    assert "no numpy there" in str(there)
    assert isinstance(there.__cause__, ModuleNotFoundError)
    assert "raise error" in str(there.__cause__.__cause__)
    _, there = payload.load_outcome(payload.dump_transfer_error("the call", raised(HoldsLock("locked"))))
    assert isinstance(there, TransferError)
    assert "locked" in str(there)
    assert type(there.__cause__) is _RemoteTraceback


def test_functions_come_back() -> None:
    by_reference = payload.dump_plain(double)
    assert by_reference is not None
    assert payload.load_function(by_reference) is double
    assert payload.dump_plain(lambda x: x) is None
    assert payload.load_function(payload.dump_by_value(lambda x: x + 1))(1) == 2


def test_children_need_neither_cloudpickle_nor_the_errors_to_import_this() -> None:
    script = (
        "import sys, netfutures.payload; "
        "print([m for m in ('cloudpickle', 'netfutures.errors', 'concurrent.futures', 'zmq') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout.strip() == b"[]"
