"""Python objects to payload bytes and back: functions, calls, values, errors; the only file that pickles.

A payload is one of these, told apart by its first byte:
  0x80  a plain pickle (protocol 5);
  0x00  a container: a pickle and the large buffers that it names, 64-byte aligned, so that they load without a copy;
  "E"   an outcome that is an exception of the task, with its traceback as text;
  "T"   an outcome that says what could not be rebuilt on the other side, and why.
The broker writes outcomes too, of tasks that were lost: see `netfutures.loss`.
House rules: the value at the time of the dump is what travels. Buffers arrive writable and private: whoever loads from
writable memory gives that memory away, so it must not be loaded from twice; from read-only bytes they are copied.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import pickle
import struct
import sys
import threading
import traceback
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    import mmap

    Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap


_Reducers: TypeAlias = Mapping[type, Callable[[Any], Any]]

BUFFER_BYTES_MIN = 64 * 1024
"""Buffers from this size on travel beside the pickle, not in it: one copy less on each side."""
_SCAN_WHOLE_BYTES_MAX = 256 * 1024
"""Larger pickles are searched for names frame by frame, since large strings and bytes in them hold none."""

_PICKLE, _CONTAINER, _ERROR, _TRANSFER = 0x80, 0x00, ord("E"), ord("T")
_HEAD = struct.Struct("<B3xI")
_ALIGNED_BYTES = 64

_LOOSE_OPCODE_BYTES = {ord("K"): 2, ord("h"): 2, ord("q"): 2, 0x82: 2, ord("M"): 3, 0x83: 3, ord("C"): 3, 0x8C: 3}
"""Sizes of the opcodes with an argument that can stand outside of a frame."""

_dumps, _loads = pickle.dumps, pickle.loads
_REFUSALS = (pickle.PicklingError, AttributeError, TypeError)
"""What plain pickle raises for objects that it does not take; cloudpickle may."""
_cloudpickle: Any = None
_registered: set[str] = set()
"""Names of modules that travel by value: cloudpickle's own registry, once cloudpickle is loaded."""


class Misuse(TypeError):
    """An object was to be pickled that never should be, as an executor; a submit raises it and makes no future."""


class _PlainPickler(pickle.Pickler):
    """The standard pickler, in a form that takes reducers of our own."""


class _NeedsCare(Exception):
    """Raised out of a first, fast attempt to pickle when a buffer is met that must be treated by itself."""


def load_cloudpickle() -> Any:
    """Import cloudpickle, late because it costs milliseconds; from then on its registry of modules is watched."""
    global _cloudpickle, _registered
    if _cloudpickle is None:
        import cloudpickle

        main = sys.modules.get("__mp_main__")
        if main is not None and main is sys.modules.get("__main__"):
            cloudpickle.register_pickle_by_value(main)  # a script re-imported by multiprocessing; nobody else has it
        _registered = getattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", _registered)
        _cloudpickle = cloudpickle
    return _cloudpickle


def modules_by_value() -> set[str]:
    """The live set of names of modules that travel by value, as users register them with cloudpickle."""
    return _registered


# ---- objects to bytes ----------------------------------------------------------------------------------------------


def dump_call(args: tuple[Any, ...], kwargs: dict[str, Any], function_name: str = "the function") -> bytes:
    """Pickle the arguments of a call as they are now; what pickle raises is raised, with a note on the argument."""
    call = (args, kwargs)
    try:
        payload = _dumps(call, 5, buffer_callback=_in_band)
        if len(payload) <= _SCAN_WHOLE_BYTES_MAX and b"__main__" not in payload and not _registered:
            return payload
    except _NeedsCare:
        payload = b""
    except _REFUSALS:
        payload = None
    except BaseException as error:
        _note_argument(error, args, kwargs, function_name)
        raise
    try:
        return _dump_again(call, payload)
    except BaseException as error:
        _note_argument(error, args, kwargs, function_name)
        raise


def dump_value(value: Any) -> bytes:
    """Pickle the value that a task returned; what pickle raises is raised, with a note that says so."""
    try:
        payload = _dumps(value, 5, buffer_callback=_in_band)
        if len(payload) <= _SCAN_WHOLE_BYTES_MAX and b"__main__" not in payload and not _registered:
            return payload
    except _NeedsCare:
        payload = b""
    except _REFUSALS:
        payload = None
    except BaseException as error:
        _note_result(error, value)
        raise
    try:
        return _dump_again(value, payload)
    except BaseException as error:
        _note_result(error, value)
        raise


def dump_plain(value: object) -> bytes | None:
    """Pickle by reference what can be: None if plain pickle refuses, or names a module that travels by value."""
    try:
        payload = _dumps(value, 5)
    except _REFUSALS:
        return None
    return None if names_by_value(payload) else payload


def dump_by_value(value: object) -> bytes:
    """Pickle with cloudpickle, which takes functions and classes of `__main__`, lambdas and closures by value."""
    return _run_pickler(load_cloudpickle().Pickler, value, None, _CACHED)


def names_by_value(payload: bytes) -> bool:
    """Does this pickle name `__main__` or another module that travels by value? In doubt, yes."""
    names = [b"__main__", *(name.encode() for name in _registered)]
    if len(payload) <= _SCAN_WHOLE_BYTES_MAX:
        return any(name in payload for name in names)
    return any(name in frame for frame in _frames(payload) for name in names)


def _frames(payload: bytes) -> Iterator[bytes | memoryview]:
    """The parts of a large pickle that hold opcodes; what lies between frames are large strings and bytes."""
    at, end = 2, len(payload)
    view = memoryview(payload)
    while at < end:
        opcode = payload[at]
        if opcode == 0x95:  # FRAME
            size = int.from_bytes(view[at + 1 : at + 9], "little")
            yield payload[at + 9 : at + 9 + size]
            at += 9 + size
        elif opcode in b"BX":  # BINBYTES, BINUNICODE: four bytes of length
            at += 5 + int.from_bytes(view[at + 1 : at + 5], "little")
        elif opcode in b"\x8d\x8e\x96":  # BINUNICODE8, BINBYTES8, BYTEARRAY8
            at += 9 + int.from_bytes(view[at + 1 : at + 9], "little")
        else:  # opcodes between two large ones go without a frame when they are less than four bytes together
            at += _LOOSE_OPCODE_BYTES.get(opcode, 1)


def _reduce_cached(function: Any) -> Any:
    """lru_cache makes objects that pickle by name alone; those of `__main__` must travel with what they wrap."""
    if dump_plain(function) is not None:
        return function.__reduce__()
    return _rebuild_cached, (function.__wrapped__, function.cache_parameters())


def _rebuild_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    return cast("Callable[..., Any]", functools.lru_cache(**parameters)(function))


def _reduce_code(code: types.CodeType) -> Any:
    """Code with its file's name, which cloudpickle 3.1.3 leaves out: tracebacks shall show the user's own lines."""
    build, parts = load_cloudpickle().cloudpickle._code_reduce(code)
    return build, tuple(code.co_filename if part == "<dynamic-code>" else part for part in parts)


_CACHED: _Reducers = {functools._lru_cache_wrapper: _reduce_cached, types.CodeType: _reduce_code}
_NONE: _Reducers = {}


def _in_band(buffer: pickle.PickleBuffer) -> bool:
    """Called by the fast attempt for each buffer: small writable ones stay in the pickle."""
    with buffer.raw() as view:
        if view.nbytes >= BUFFER_BYTES_MIN or view.readonly:
            raise _NeedsCare
    return True


def _dump_again(value: object, payload: bytes | None) -> bytes:
    """After the fast attempt: `payload` is its pickle; empty if it met a buffer, None if plain pickle refused."""
    if payload == b"":
        try:
            payload = _dump_beside(_PlainPickler, value)
        except _REFUSALS:
            payload = None
    if payload is not None and not names_by_value(_stream_of(payload)):
        return payload
    return _dump_beside(load_cloudpickle().Pickler, value, _CACHED)


def _dump_beside(pickler: Callable[..., Any], value: object, reducers: _Reducers = _NONE) -> bytes:
    buffers: list[memoryview] = []
    read_only = False

    def keep(buffer: pickle.PickleBuffer) -> bool:
        nonlocal read_only
        view = buffer.raw()
        read_only = read_only or view.readonly
        if view.nbytes < BUFFER_BYTES_MIN:
            return True
        buffers.append(view)
        return False

    stream = _run_pickler(pickler, value, keep, reducers)
    if read_only and "numpy" in sys.modules:
        buffers.clear()
        stream = _run_pickler(pickler, value, keep, {**reducers, **_writable_arrays()})
    return _contain(stream, buffers) if buffers else stream


def _run_pickler(
    kind: Any,
    value: object,
    keep: Callable[[pickle.PickleBuffer], bool] | None,
    reducers: _Reducers,
) -> bytes:
    file = io.BytesIO()
    pickler = kind.__new__(kind)
    pickler.dispatch_table = ChainMap(dict(reducers), getattr(kind, "dispatch_table", copyreg.dispatch_table))
    pickler.__init__(file, 5, buffer_callback=keep)  # which looks for the table, so that it must be there before
    pickler.dump(value)
    return file.getvalue()


def _writable_arrays() -> _Reducers:
    """Reducers that send a writable copy of a read-only array: arrays arrive writable whatever they were here."""
    numpy = sys.modules["numpy"]

    def reduce(array: Any) -> Any:
        return (array if array.flags.writeable else array.copy(order="K")).__reduce_ex__(5)

    return {numpy.ndarray: reduce, numpy.memmap: reduce}


def _contain(stream: bytes, buffers: list[memoryview]) -> bytes:
    lengths = [len(stream), *(view.nbytes for view in buffers)]
    head = _HEAD.pack(_CONTAINER, len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths)
    parts: list[bytes | memoryview] = [head]
    at = len(head)
    pieces: list[bytes | memoryview] = [stream, *buffers]
    for part in pieces:
        gap = -at % _ALIGNED_BYTES
        parts += [bytes(gap), part]
        at += gap + len(part)
    return b"".join(parts)


# ---- bytes to objects ----------------------------------------------------------------------------------------------


def load_function(payload: Buffer) -> Callable[..., Any]:
    """Rebuild a function; whatever its unpickling raises is raised."""
    return cast("Callable[..., Any]", _load(payload))


class Packed:
    """A function that was pickled already, as an argument; it arrives as the function itself."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __reduce__(self) -> Any:
        return load_function, (self.payload,)


def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What a call is whose function travels among its arguments."""
    return fn(*args, **kwargs)


def load_call(payload: Buffer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Rebuild the arguments of a call; whatever their unpickling raises is raised."""
    return cast("tuple[tuple[Any, ...], dict[str, Any]]", _load(payload))


def _load(payload: Buffer) -> Any:
    first = payload[0]
    if first == _PICKLE:
        return _loads(payload)
    if first != _CONTAINER:
        raise ValueError(f"a payload cannot begin with the byte {first:#04x}: damaged, or made by another version")
    stream, *buffers = _parts(payload)
    return _loads(stream, buffers=[bytearray(each) if each.readonly else each for each in buffers])


def _parts(payload: Buffer) -> list[memoryview]:
    view = memoryview(payload).cast("B")
    _, count = _HEAD.unpack_from(view)
    lengths = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    parts = []
    at = _HEAD.size + 8 * count
    for length in lengths:
        at += -at % _ALIGNED_BYTES
        parts.append(view[at : at + length])
        at += length
    if at != len(view):
        raise ValueError(f"a payload of {len(view)} bytes says that it has {at}: it was damaged")
    return parts


def _stream_of(payload: bytes) -> bytes:
    return bytes(_parts(payload)[0]) if payload[0] == _CONTAINER else payload


# ---- outcomes: a value, or an error --------------------------------------------------------------------------------


class RemoteTraceback(Exception):
    """The traceback of another process, as text: the cause of an exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tb = text

    def __str__(self) -> str:
        return self.tb


def is_error(outcome: Buffer) -> bool:
    """Is this outcome an error? Looks at the first byte only; a damaged one is not, until it is loaded."""
    return outcome[:1] in (b"E", b"T")


def dump_error(error: BaseException) -> bytes:
    """The outcome of a task that raised; never raises. What cannot be pickled travels as type, message, traceback."""
    text, pickled, why = _traceback_text(error), None, ""
    with contextlib.suppress(Exception):
        error.__traceback__ = None  # its frames would keep alive all that the task held
    try:
        pickled = _dump_in_band(error)
    except BaseException as refusal:
        why = f"{_type_name(refusal)}: {_message(refusal)}"
    return b"E" + _dumps((pickled, text, _type_name(error), _message(error), why), 5)


def dump_transfer_error(what: str, error: BaseException) -> bytes:
    """The outcome of a task whose function or arguments could not be rebuilt here; `what` names them. Never raises."""
    text, pickled = _traceback_text(error), None
    with contextlib.suppress(BaseException):
        pickled = _dump_in_band(error)
    return b"T" + _dumps((what, pickled, text, f"{_type_name(error)}: {_message(error)}"), 5)


def _name_result() -> str:
    return "the result"


def load_outcome(payload: Buffer, name: Callable[[], str] = _name_result) -> tuple[Any, BaseException | None]:
    """Rebuild an outcome: (value, None) or (None, exception). Nothing raised by that escapes but a real Ctrl-C.

    `name` is asked for a name of the result when that is needed for an error.
    """
    try:
        first = payload[0]
        if first == _PICKLE:
            return _loads(payload), None
        if first == _ERROR:
            return None, _load_error(payload)
        if first == _TRANSFER:
            return None, _load_transfer_error(payload)
        return _load(payload), None
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return None, _transfer_error(name(), error)
    except BaseException as error:
        return None, _transfer_error(name(), error)


def _load_error(payload: Buffer) -> BaseException:
    from netfutures.errors import RemoteError

    pickled, text, type_name, message, why = _loads(memoryview(payload)[1:])
    if pickled is None:
        return _with_remote_cause(RemoteError(type_name, message, why), text)
    error, failure = load_outcome(pickled)
    if failure is None and not isinstance(error, BaseException):
        failure = TypeError(f"it became a {_type_name(error)}")
    if failure is None:
        return _with_remote_cause(error, text)
    cause = failure.__cause__ or failure
    again = _transfer_error(f"the exception that the task raised ({type_name}: {message})", cause)
    again.add_note(f"The task's own traceback:\n{text}")
    return again


def _load_transfer_error(payload: Buffer) -> BaseException:
    from netfutures.errors import TransferError

    what, pickled, text, why = _loads(memoryview(payload)[1:])
    error, failure = (None, None) if pickled is None else load_outcome(pickled)
    outcome = TransferError(what, why)
    if failure is None and isinstance(error, BaseException):
        outcome.__cause__ = _with_remote_cause(error, text)
        return outcome
    return _with_remote_cause(outcome, text)


def _with_remote_cause(error: BaseException, text: str) -> BaseException:
    from concurrent.futures import process

    kind: Callable[[str], BaseException] = getattr(process, "_RemoteTraceback", RemoteTraceback)
    error.__cause__ = kind(f'\n"""\n{text}"""')
    return error


def _transfer_error(what: str, cause: BaseException) -> BaseException:
    from netfutures.errors import TransferError

    outcome = TransferError(what, f"{_type_name(cause)}: {_message(cause)}")
    outcome.__cause__ = cause
    return outcome


def _dump_in_band(value: object) -> bytes:
    try:
        payload = _dumps(value, 5)
    except _REFUSALS:
        return dump_by_value(value)
    return dump_by_value(value) if names_by_value(payload) else payload


def _traceback_text(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as failure:
        return f"{_type_name(error)} (its traceback could not be written: {_type_name(failure)})\n"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failure:
        return f"(its message could not be written: {_type_name(failure)})"


def _note(error: BaseException, text: str) -> None:
    with contextlib.suppress(Exception):
        error.add_note(text)


def _note_result(error: BaseException, value: object) -> None:
    _note(error, f"The task ran, but its result (a {_type_name(value)}) cannot be pickled: return what can be.")


def _note_argument(error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any], function_name: str) -> None:
    """Find the argument that cannot be pickled, and name it in a note of the error."""
    if not isinstance(error, Exception):
        return
    for place, value in [*((f"argument {i}", each) for i, each in enumerate(args, 1)), *kwargs.items()]:
        try:
            _dump_in_band(value)
        except Exception:  # Whatever users' reducers raise; the error that is noted has said it already.
            _note(
                error,
                f"This is about {place} (a {_type_name(value)}) of {function_name}: it cannot be pickled, so it cannot "
                "be sent. Pass what it is made from, and make it in the task.",
            )
            return
    _note(error, f"The arguments of {function_name} cannot be pickled, so the call cannot be sent.")
