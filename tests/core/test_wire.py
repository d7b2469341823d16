"""Messages become frames and come back; whatever else a peer may send is refused, cheaply, and in one way."""

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netfutures import fields as declared
from netfutures.codec import decode, decode_trusted, encode
from netfutures.fields import BLOB, CHUNKS, FRAME, Reference
from netfutures.limits import (
    BATCH_TASKS_MAX,
    CHUNK_BYTES_MAX,
    FRAME_BYTES_MIN,
    FRAMES_MAX,
    PAYLOAD_BYTES_MAX,
    RUN_NUMBER_MAX,
    TEXT_CHARACTERS_MAX,
)
from netfutures.message import CHECKS, MESSAGES
from netfutures.wire import (
    Beat,
    Chunk,
    ClientHello,
    Envelope,
    Finished,
    Message,
    Refused,
    RemoteProtocolError,
    Results,
    Submit,
    Tasks,
    WorkerHello,
)

# What each declared type of field may be.

numbers = st.integers(0, RUN_NUMBER_MAX - 1)
identities = st.binary(min_size=16, max_size=16)
LETTERS = "ab é☃"
texts = st.text(LETTERS, max_size=TEXT_CHARACTERS_MAX)
small_maps = st.dictionaries(
    st.text(LETTERS, max_size=5), st.integers(0, 9) | st.text(LETTERS, max_size=5) | st.none(), max_size=3
)
references = st.builds(
    Reference, st.sampled_from([CHUNKS, BLOB]), numbers | identities, st.integers(0, PAYLOAD_BYTES_MAX)
)
payloads = st.binary(max_size=20) | references
payload_lists = st.lists(payloads, min_size=1, max_size=4)
blobs = st.tuples(identities, payloads, st.booleans())
submitted_runs = st.tuples(numbers, identities, st.none() | small_maps, payload_lists)

STRATEGIES: dict[Any, st.SearchStrategy[Any]] = {
    declared.Integer: numbers,
    declared.Word: st.integers(0, 2**64 - 1),
    declared.Seconds: st.floats(0, 1e8),
    declared.Flag: st.booleans(),
    declared.Text: texts,
    declared.Identity: identities,
    declared.Map: small_maps,
    declared.Maps: st.lists(small_maps, max_size=3),
    declared.Version: st.tuples(numbers, numbers),
    declared.Key: numbers | identities,
    declared.Content: st.binary(max_size=20),
    declared.OptionalPayload: st.none() | payloads,
    declared.Identities: st.lists(identities, max_size=3),
    declared.Blobs: st.lists(blobs, max_size=2),
    declared.SubmittedRuns: st.lists(submitted_runs, max_size=3),
    declared.FinishedRuns: st.lists(st.tuples(numbers, numbers, payload_lists), max_size=3),
    declared.ResultsRuns: st.lists(st.tuples(numbers, payload_lists), max_size=3),
    declared.NumberRanges: st.lists(st.tuples(numbers, numbers), max_size=3),
    declared.DispatchRanges: st.lists(st.tuples(numbers, numbers, numbers), max_size=3),
    declared.OutputRecords: st.lists(
        st.tuples(identities, numbers, numbers, numbers, st.binary(max_size=9)), max_size=3
    ),
    declared.PrintedRecords: st.lists(st.tuples(numbers, numbers, st.binary(max_size=9)), max_size=3),
}
BY_CHECK = {kind.__metadata__[0]: strategy for kind, strategy in STRATEGIES.items()}


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(kind, *[BY_CHECK[check] for check in CHECKS[kind]])


messages = st.one_of([messages_of(kind) for kind in MESSAGES.values()])
envelopes = st.builds(Envelope, numbers, numbers, numbers, messages)
BRIEF = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def in_bytes(frames: list[Any]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def header_of(message: Message) -> list[Any]:
    """The header of a message as a peer of another make might write it."""
    header: list[Any] = msgpack.unpackb(encode(Envelope(1, 2, 3, message))[0])
    return header


def refused(*frames: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(frames)
    return str(raised.value)


# Round trips.


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type[Message]) -> None:
    @given(numbers, messages_of(kind))
    @settings(BRIEF, max_examples=8)
    def comes_back(number: int, message: Message) -> None:
        envelope = Envelope(number, 2, 3, message)
        assert decode(in_bytes(encode(envelope))) == envelope

    comes_back()


LARGE = bytes(range(256)) * (FRAME_BYTES_MIN // 256)


@pytest.mark.parametrize(
    "message",
    [
        Submit(7, [(b"d" * 16, LARGE, True)], [(1, b"d" * 16, None, [b"small", LARGE, LARGE + b"!"])]),
        Tasks(b"s" * 16, [(b"d" * 16, LARGE, False)], [(1, b"d" * 16, {"retries": 2}, [LARGE, b""])]),
        Finished(9, [(1, 0, [LARGE]), (5, 2, [b"small"]), (9, 0, [b"", LARGE])]),
        Results([(1, [LARGE] * 3), (7, [b"small"])]),
        Chunk(b"s" * 16, 5, 1 << 20, b"x" * CHUNK_BYTES_MAX, False),
        Chunk(b"s" * 16, b"k" * 16, 0, b"", True),
    ],
    ids=lambda message: type(message).__name__,
)
def test_large_payloads_travel_in_frames_of_their_own_and_come_back(message: Message) -> None:
    frames = encode(Envelope(1, 2, 3, message))
    assert len(frames) > 1
    assert len(frames[0]) < FRAME_BYTES_MIN
    assert decode(in_bytes(frames)) == Envelope(1, 2, 3, message)


def test_a_large_payload_is_not_copied() -> None:
    content = bytearray(LARGE)
    frames = encode(Envelope(1, 1, 0, Results([(1, [content])])))
    assert frames[1] is content


def test_small_payloads_are_one_frame() -> None:
    assert len(encode(Envelope(1, 1, 0, Results([(1, [b"x" * (FRAME_BYTES_MIN - 1)] * 3)])))) == 1


def test_payloads_beyond_the_limit_of_frames_stay_in_the_header() -> None:
    message = Results([(1, [LARGE] * (FRAMES_MAX + 5))])
    frames = encode(Envelope(1, 1, 0, message))
    assert len(frames) == FRAMES_MAX
    assert decode(in_bytes(frames)).message == message


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    header = [*header_of(Beat(5)), "something", {"of": "tomorrow"}]
    assert decode([msgpack.packb(header)]) == Envelope(1, 2, 3, Beat(5))


def test_a_long_text_is_cut() -> None:
    assert decode(in_bytes(encode(Envelope(1, 2, 3, Refused("x" * 1000))))).message == Refused(
        "x" * TEXT_CHARACTERS_MAX
    )


@given(envelopes)
@settings(BRIEF, max_examples=30)
def test_what_a_trusted_process_sends_means_the_same(envelope: Envelope) -> None:
    frames = in_bytes(encode(envelope))
    assert encode(decode_trusted(frames)) == encode(decode(frames))


def test_garbage_of_a_trusted_process_is_refused_too() -> None:
    for frames in ([], [b""], [b"\x93\x0f\x01\x02"], [msgpack.packb([15, 1, 2, 3, 5])], [LARGE, LARGE]):
        with pytest.raises(RemoteProtocolError):
            decode_trusted(frames)


# Refusals.


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 0),
        (0, 200),
        (0, "Beat"),
        (0, [1]),
        (1, -1),
        (1, RUN_NUMBER_MAX),
        (2, 1.5),
        (3, None),
        (4, True),
        (4, "5"),
        (4, 1 << 62),
    ],
)
def test_a_header_with_a_wrong_value_is_refused(place: int, value: Any) -> None:
    header = header_of(Beat(5))
    header[place] = value
    assert "not a message of this protocol" in refused(msgpack.packb(header))


@pytest.mark.parametrize("length", range(5))
def test_a_header_that_is_too_short_is_refused(length: int) -> None:
    refused(msgpack.packb(header_of(Beat(5))[:length]))


def test_no_frames_and_too_many_are_refused() -> None:
    assert "0 frames" in refused()
    frames = in_bytes(encode(Envelope(1, 1, 0, Results([(1, [LARGE])]))))
    assert f"{FRAMES_MAX + 1} frames" in refused(*frames, *[LARGE] * (FRAMES_MAX - 1))


def test_frames_after_a_message_without_payloads_are_refused() -> None:
    refused(*in_bytes(encode(Envelope(1, 1, 0, Beat(5)))), b"more")


def test_a_frame_that_is_larger_than_a_chunk_is_refused() -> None:
    header, _ = in_bytes(encode(Envelope(1, 1, 0, Results([(1, [LARGE])]))))
    refused(header, b"x" * (CHUNK_BYTES_MAX + 1))


@pytest.mark.parametrize("key", [0, 1, 2, 1 << 61, b"k" * 16])
@pytest.mark.parametrize("message", ["submit", "submit's blob", "tasks", "finished", "results", "chunk", "hello"])
def test_a_payload_in_a_frame_that_is_not_there_is_refused(message: str, key: int | bytes) -> None:
    # Passed on, it would stand for another user's payload in the message that takes it there.
    there = Reference(FRAME, key, 5)
    made: dict[str, Message] = {
        "submit": Submit(7, [], [(1, b"d" * 16, None, [b"x", there])]),
        "submit's blob": Submit(7, [(b"d" * 16, there, True)], []),
        "tasks": Tasks(b"s" * 16, [], [(1, b"d" * 16, None, [there])]),
        "finished": Finished(1, [(1, 0, [b"x"]), (2, 0, [there])]),
        "results": Results([(1, [there])]),
        "chunk": Chunk(b"s" * 16, 1, 0, b"", False),
        "hello": ClientHello((1, 0), b"s" * 16, b"t" * 16, {}, 1.0, {}, there),
    }
    header = header_of(made[message])
    if message == "chunk":
        header[7] = list(there)
    refused(msgpack.packb(header))


def test_a_chunk_bears_bytes_and_no_reference() -> None:
    header = header_of(Chunk(b"s" * 16, 1, 0, b"", False))
    header[7] = [CHUNKS, 1, 5]
    assert "in place of bytes" in refused(msgpack.packb(header))


@pytest.mark.parametrize(
    "payload",
    [[CHUNKS, 1], [CHUNKS, 1, -1], [CHUNKS, 1, PAYLOAD_BYTES_MAX + 1], [9, 1, 1], [CHUNKS, "1", 1], "text", None, 5],
)
def test_a_payload_that_is_neither_bytes_nor_a_good_reference_is_refused(payload: Any) -> None:
    header = header_of(Results([(1, [b"x"])]))
    header[4] = [[1, [payload]]]
    refused(msgpack.packb(header))


def test_more_tasks_than_a_batch_may_have_are_refused() -> None:
    header = header_of(Results([(1, [b"x"])]))
    header[4] = [[1, [b""] * (BATCH_TASKS_MAX + 1)]]
    refused(msgpack.packb(header))
    header[4] = [[1, [b""]]] * (BATCH_TASKS_MAX + 1)
    refused(msgpack.packb(header))


WRONG: dict[Any, Any] = {
    declared.Integer: "5",
    declared.Word: -1,
    declared.Seconds: -1.0,
    declared.Flag: 1,
    declared.Text: b"bytes",
    declared.Identity: b"short",
    declared.Map: [],
    declared.Maps: [5],
    declared.Version: [1],
    declared.Key: b"short",
    declared.Content: 5,
    declared.OptionalPayload: 5,
    declared.Identities: [b"short"],
    declared.Blobs: [[b"d" * 16, b"x", 1]],
    declared.SubmittedRuns: [[1, b"d" * 16, [], [b"x"]]],
    declared.FinishedRuns: [[1, 0, []]],
    declared.ResultsRuns: [[1]],
    declared.NumberRanges: {},
    declared.DispatchRanges: [[1, 2]],
    declared.OutputRecords: [[b"s" * 16, 1, 0, 1, "text"]],
    declared.PrintedRecords: [[1, 1]],
}
GOOD: dict[Any, Any] = {
    declared.Integer: 1,
    declared.Word: 1,
    declared.Seconds: 1.0,
    declared.Flag: True,
    declared.Text: "text",
    declared.Identity: b"i" * 16,
    declared.Map: {},
    declared.Version: (1, 0),
    declared.Key: 1,
    declared.Content: b"x",
    declared.OptionalPayload: None,
}
WRONG_BY_CHECK = {kind.__metadata__[0]: value for kind, value in WRONG.items()}
GOOD_BY_CHECK = {kind.__metadata__[0]: value for kind, value in GOOD.items()}


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=lambda kind: kind.__name__)
def test_a_wrong_value_in_any_field_of_any_message_is_refused(kind: type[Message]) -> None:
    checks = CHECKS[kind]
    header, *payload = in_bytes(encode(Envelope(1, 2, 3, kind(*[GOOD_BY_CHECK.get(check, []) for check in checks]))))
    decode([header, *payload])
    for place, check in enumerate(checks, 4):
        changed = msgpack.unpackb(header)
        changed[place] = WRONG_BY_CHECK[check]
        refused(msgpack.packb(changed), *payload)


# Garbage.


def decodes_or_refuses(frames: list[bytes]) -> None:
    """Either a message that can be sent on, or `RemoteProtocolError`; nothing else, whatever the bytes are."""
    try:
        envelope = decode(frames)
    except RemoteProtocolError:
        return
    assert decode(in_bytes(encode(envelope))) == envelope


@given(st.lists(st.binary(max_size=60), max_size=3))
@settings(BRIEF, max_examples=120)
def test_garbage_is_refused(frames: list[bytes]) -> None:
    decodes_or_refuses(frames)


odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**64 - 1)
    | st.floats()
    | st.binary(max_size=17)
    | st.text(LETTERS, max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(LETTERS, max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(envelopes, st.data())
@settings(BRIEF, max_examples=100)
def test_a_message_with_something_odd_in_some_place_is_refused_or_harmless(envelope: Envelope, draw: Any) -> None:
    header = msgpack.unpackb(encode(envelope)[0])
    target = header
    while isinstance(target, list) and target:
        place = draw.draw(st.integers(0, len(target) - 1))
        if not isinstance(target[place], list) or not target[place] or draw.draw(st.booleans()):
            target[place] = draw.draw(odd_values)
            break
        target = target[place]
    extra = draw.draw(st.lists(st.binary(max_size=5), max_size=2))
    decodes_or_refuses([msgpack.packb(header), *extra])


@given(envelopes, st.integers(0, 400), st.integers(0, 255))
@settings(BRIEF, max_examples=100)
def test_a_message_with_a_changed_or_missing_byte_is_refused_or_harmless(
    envelope: Envelope, place: int, value: int
) -> None:
    header = bytearray(encode(envelope)[0])
    place %= len(header)
    decodes_or_refuses([bytes(header[:place])])
    header[place] = value
    decodes_or_refuses([bytes(header)])


def test_deep_nesting_is_refused() -> None:
    refused(b"\x91" * 100_000)
    refused(msgpack.packb(header_of(Beat(5))[:4])[:-1] + b"\x81\xa1a" * 5000)


@pytest.mark.parametrize(
    "head",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"],
    ids=["array", "map", "bytes", "text"],
)
def test_a_declared_size_that_is_not_there_allocates_nothing(head: bytes) -> None:
    tracemalloc.start()
    try:
        refused(head)
        refused(b"\x95" + head + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_worker_s_hello_names_all_that_the_broker_has_to_know() -> None:
    names = WorkerHello.__match_args__
    assert names[:3] == ("protocol", "worker", "token")
    assert {"held", "finished", "sessions"} <= set(names)
