"""What a field of a message may be: its types, and the check that turns a peer's bytes into them or refuses them."""

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from netfutures.limits import BATCH_TASKS_MAX, PAYLOAD_BYTES_MAX, RUN_NUMBER_MAX, TEXT_CHARACTERS_MAX


class Reference(NamedTuple):
    """Stands where a payload would: it is not in this message."""

    kind: int
    key: int | bytes
    size_bytes: int


FRAME: Final = 0
"""Reference kind, only between encode and decode: the payload is frame number `key` of the same message."""
CHUNKS: Final = 1
"""Reference kind: the payload comes in chunks when it is asked for by `Need` with this key."""
BLOB: Final = 2
"""Reference kind: the payload is the blob of this digest and comes in chunks when it is asked for."""
LOCAL: Final = 3
"""Reference kind, reserved: the payload is memory of the same host, passed beside the connection."""

NO_TASK: Final = 0
"""Stands for a task number where something cannot be attributed to a task; tasks are numbered from 1."""

Payload: TypeAlias = bytes | bytearray | memoryview | Reference
SubmittedRun: TypeAlias = tuple[int, bytes, dict[str, Any] | None, list[Payload]]
"""First task number, digest of the function, options of each task, payloads."""
TasksRun: TypeAlias = tuple[int, bytes, dict[str, Any] | None, list[Payload]]
"""Dispatch number of the first task, digest of the function, options of each task, payloads."""
FinishedRun: TypeAlias = tuple[int, int, list[Payload]]
"""Base (dispatch number of the first task of the run as it was handed out), offset in that run, outcomes."""
ResultsRun: TypeAlias = tuple[int, list[Payload]]
"""First task number, outcomes."""
Numbers: TypeAlias = tuple[int, int]
"""First task number, count."""
Dispatched: TypeAlias = tuple[int, int, int]
"""Base, offset, count: part of a run as it was handed out."""
Blob: TypeAlias = tuple[bytes, Payload, bool]
"""Digest, payload, whether a child may keep the unpickled object from task to task."""

Check: TypeAlias = Callable[[Any], Any]

# What a field may be. Each returns the value to keep, or raises ValueError or TypeError.


def integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < RUN_NUMBER_MAX:
        raise ValueError("not a number in range")
    return value


def _word(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("not a 64-bit word")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e9:
        raise ValueError("not a time in seconds")
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("not a boolean")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a text")
    return value[:TEXT_CHARACTERS_MAX]


def _identity(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 16:
        raise ValueError("not an identity of 16 bytes")
    return value


def _map(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError("not a map")
    return value


def _options(value: Any) -> dict[str, Any] | None:
    return None if value is None else _map(value)


def _key(value: Any) -> int | bytes:
    return _identity(value) if type(value) is bytes else integer(value)


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError("not bytes")
    return value


def _payload(value: Any) -> Payload:
    if type(value) is bytes:
        return value
    kind, key, size_bytes = value
    if kind not in (FRAME, CHUNKS, BLOB):
        raise ValueError("not a kind of reference")
    if type(size_bytes) is not int or not 0 <= size_bytes <= PAYLOAD_BYTES_MAX:
        raise ValueError("not a size of a payload")
    return Reference(kind, _key(key), size_bytes)


def _optional_payload(value: Any) -> Payload | None:
    payload = None if value is None else _payload(value)
    if type(payload) is Reference and payload.kind == FRAME:
        raise ValueError("a frame where none may be")
    return payload


def _content(value: Any) -> Payload:
    content = _payload(value)
    if type(content) is Reference and content.kind != FRAME:
        raise ValueError("a reference in place of bytes")
    return content


_ONLY_BYTES = {bytes}


def _payloads(value: Any) -> list[Payload]:
    if type(value) is not list or not 0 < len(value) <= BATCH_TASKS_MAX:
        raise ValueError("not a list of payloads")
    if set(map(type, value)) == _ONLY_BYTES:
        return value
    return [_payload(each) for each in value]


def _list_of(check: Check) -> Check:
    def checked(value: Any) -> list[Any]:
        if type(value) is not list or len(value) > BATCH_TASKS_MAX:
            raise ValueError("not a list, or too long")
        return [check(each) for each in value]

    return checked


def _submitted_run(value: Any) -> SubmittedRun:
    first, digest, options, payloads = value
    return integer(first), _identity(digest), _options(options), _payloads(payloads)


def _finished_run(value: Any) -> FinishedRun:
    base, offset, outcomes = value
    return integer(base), integer(offset), _payloads(outcomes)


def _results_run(value: Any) -> ResultsRun:
    first, outcomes = value
    return integer(first), _payloads(outcomes)


def _numbers(value: Any) -> Numbers:
    first, count = value
    return integer(first), integer(count)


def _dispatched(value: Any) -> Dispatched:
    base, offset, count = value
    return integer(base), integer(offset), integer(count)


def _blob(value: Any) -> Blob:
    digest, payload, keep = value
    return _identity(digest), _payload(payload), _flag(keep)


def _output_record(value: Any) -> tuple[bytes, int, int, int, bytes]:
    session, base, offset, stream, text = value
    return _identity(session), integer(base), integer(offset), integer(stream), _bytes(text)


def _printed_record(value: Any) -> tuple[int, int, bytes]:
    number, stream, text = value
    return integer(number), integer(stream), _bytes(text)


def _protocol(value: Any) -> tuple[int, int]:
    major, minor = value
    return integer(major), integer(minor)


# The types of fields, as messages declare them: what it is, and its check.

Integer: TypeAlias = Annotated[int, integer]
Word: TypeAlias = Annotated[int, _word]
Seconds: TypeAlias = Annotated[float, _seconds]
Flag: TypeAlias = Annotated[bool, _flag]
Text: TypeAlias = Annotated[str, _text]
Identity: TypeAlias = Annotated[bytes, _identity]
Map: TypeAlias = Annotated[dict[str, Any], _map]
Maps: TypeAlias = Annotated[list[dict[str, Any]], _list_of(_map)]
Version: TypeAlias = Annotated[tuple[int, int], _protocol]
Key: TypeAlias = Annotated[int | bytes, _key]
Content: TypeAlias = Annotated[Payload, _content]
OptionalPayload: TypeAlias = Annotated[Payload | None, _optional_payload]
Identities: TypeAlias = Annotated[list[bytes], _list_of(_identity)]
Blobs: TypeAlias = Annotated[list[Blob], _list_of(_blob)]
SubmittedRuns: TypeAlias = Annotated[list[SubmittedRun], _list_of(_submitted_run)]
FinishedRuns: TypeAlias = Annotated[list[FinishedRun], _list_of(_finished_run)]
ResultsRuns: TypeAlias = Annotated[list[ResultsRun], _list_of(_results_run)]
NumberRanges: TypeAlias = Annotated[list[Numbers], _list_of(_numbers)]
DispatchRanges: TypeAlias = Annotated[list[Dispatched], _list_of(_dispatched)]
OutputRecords: TypeAlias = Annotated[list[tuple[bytes, int, int, int, bytes]], _list_of(_output_record)]
PrintedRecords: TypeAlias = Annotated[list[tuple[int, int, bytes]], _list_of(_printed_record)]
