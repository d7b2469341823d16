"""How a message becomes frames and comes back; pure.

Frame 0 is a msgpack array: `[kind, connection, sequence, acknowledged, *fields]`. The frames after it are payloads
that were too large for it. `decode` validates whatever a peer may send and raises `RemoteProtocolError`; the cores
trust what they are given. Fields beyond those known here are ignored, so that a later minor version can add some.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from netfutures.fields import FRAME, Blob, Payload, Reference, integer
from netfutures.limits import CHUNK_BYTES_MAX, FRAME_BYTES_MIN, FRAMES_MAX
from netfutures.message import CHECKS, FIELDS, KINDS, MESSAGES, Message
from netfutures.wire import (
    Chunk,
    Envelope,
    Finished,
    RemoteProtocolError,
    Results,
    Submit,
    Tasks,
)

_RUNS_AT: Final[dict[type[Message], int]] = {Submit: 2, Tasks: 2, Finished: 1, Results: 0}
"""Where in a message of tasks or outcomes its runs are."""

_ONLY_BYTES: Final = {bytes}
_GARBAGE: Final = (ValueError, TypeError, KeyError, IndexError, RecursionError, msgpack.UnpackException)
"""What bytes that are no message may raise when they are read."""
_pack = msgpack.Packer(autoreset=True).pack


def _lift(payload: Payload, frames: list[Any]) -> Payload:
    frames.append(payload)
    return Reference(FRAME, len(frames) - 1, len(payload))


def _lift_large(payloads: list[Payload], frames: list[Any]) -> list[Payload]:
    if max(map(len, payloads)) < FRAME_BYTES_MIN:
        return payloads
    return [
        each if len(each) < FRAME_BYTES_MIN or len(frames) >= FRAMES_MAX else _lift(each, frames) for each in payloads
    ]


def _lift_runs(runs: list[Any], frames: list[Any]) -> list[Any]:
    return [(*run[:-1], _lift_large(run[-1], frames)) for run in runs]


def encode(envelope: Envelope) -> list[Any]:
    """Frames of a message: the header first, large payloads after it, as they are (not copied)."""
    connection, sequence, acknowledged, message = envelope
    message_type = type(message)
    values = FIELDS[message_type](message)
    frames: list[Any] = [b""]
    runs_at = _RUNS_AT.get(message_type)
    if runs_at is not None:
        for run in values[runs_at]:
            if max(map(len, run[-1])) >= FRAME_BYTES_MIN:
                values = (*values[:runs_at], _lift_runs(values[runs_at], frames))
                break
        if runs_at == 2 and values[1]:
            values = (values[0], _lift_blobs(values[1], frames), values[2])
    elif message_type is Chunk:
        session, key, offset, content, abort = values
        values = (session, key, offset, _lift(content, frames), abort)
    frames[0] = _pack((KINDS[message_type], connection, sequence, acknowledged, *values))
    return frames


def _lift_blobs(blobs: list[Blob], frames: list[Any]) -> list[Any]:
    return [(digest, _lift_large([payload], frames)[0], keep) for digest, payload, keep in blobs]


def decode(frames: Sequence[Any]) -> Envelope:
    """The message in these frames.

    Raises `RemoteProtocolError` for anything that is not a whole and valid message, whatever the bytes are.
    """
    if not 0 < len(frames) <= FRAMES_MAX:
        raise RemoteProtocolError(f"a message of {len(frames)} frames")
    try:
        header = msgpack.unpackb(frames[0], strict_map_key=True)
        if type(header) is not list:
            raise ValueError("the header is not an array")
        kind, connection, sequence, acknowledged = header[:4]
        message_type = MESSAGES[kind]
        checks = CHECKS[message_type]
        came = header[4:]
        values = [check(value) for check, value in zip(checks, came, strict=False)]
        message = message_type(*values)
        if len(frames) > 1 or _names_a_frame(message_type, values, came):
            message = _lower(message, frames)
        return Envelope(integer(connection), integer(sequence), integer(acknowledged), message)
    except _GARBAGE as error:
        raise RemoteProtocolError(f"not a message of this protocol: {type(error).__name__}: {error}"[:200]) from None


def decode_trusted(frames: Sequence[Any]) -> Envelope:
    """The message in frames that a process sent which we started, or which started us.

    On the path that every task takes nothing is checked again; all other messages are read by `decode`.
    """
    if len(frames) == 1:
        try:
            kind, connection, sequence, acknowledged, *values = msgpack.unpackb(frames[0])
            message_type = MESSAGES[kind]
            if (message_type is Results or (message_type is Submit and not values[1])) and _are_inline(values[-1]):
                return Envelope(connection, sequence, acknowledged, message_type(*values))
        except _GARBAGE:
            return decode(frames)  # Which says what is wrong with it.
    return decode(frames)


def _are_inline(runs: list[Any]) -> bool:
    return all(set(map(type, run[-1])) == _ONLY_BYTES for run in runs)


def _names_a_frame(message_type: type[Message], values: list[Any], came: list[Any]) -> bool:
    """Whether a payload claims to be in a frame; lists of nothing but bytes, kept as they came, need no look."""
    runs_at = _RUNS_AT.get(message_type)
    if runs_at is None:
        return message_type is Chunk and _is_frame(values[3])
    runs = zip(values[runs_at], came[runs_at], strict=True)
    return any(run[-1] is not source[-1] and any(map(_is_frame, run[-1])) for run, source in runs) or (
        message_type in (Submit, Tasks) and any(_is_frame(payload) for _, payload, _ in values[1])
    )


def _is_frame(payload: Payload) -> bool:
    return type(payload) is Reference and payload.kind == FRAME


def _lower(message: Message, frames: Sequence[Any]) -> Message:
    """Puts the payloads of the frames after the header in their places."""

    def place(payload: Payload) -> Payload:
        if not _is_frame(payload):
            return payload
        content = frames[payload.key]  # type: ignore[union-attr,index]  # a key of bytes raises TypeError, as it should
        if content is frames[0] or len(content) > CHUNK_BYTES_MAX:
            raise ValueError("not a frame of a payload")
        return content  # type: ignore[no-any-return]  # frames are bytes-like

    match message:
        case Submit(first_epoch, blobs, runs):
            return Submit(first_epoch, [(d, place(p), k) for d, p, k in blobs], _place_runs(runs, place))
        case Tasks(session, blobs, runs):
            return Tasks(session, [(d, place(p), k) for d, p, k in blobs], _place_runs(runs, place))
        case Finished(credit_tasks, runs):
            return Finished(credit_tasks, _place_runs(runs, place))
        case Results(runs):
            return Results(_place_runs(runs, place))
        case Chunk(session, key, offset, content, abort):
            return Chunk(session, key, offset, place(content), abort)
    raise ValueError("frames after a header that has no payloads")


def _place_runs(runs: list[Any], place: Callable[[Payload], Payload]) -> list[Any]:
    return [(*run[:-1], [place(each) for each in run[-1]]) for run in runs]
