"""A payload is pulled a few MiB at a time, survives lost chunks, and is never larger than it was said to be."""

import pytest

from netfutures.fetch import Fetch, abort, chunks
from netfutures.fields import CHUNKS, Reference
from netfutures.limits import CHUNK_BYTES_MAX, CHUNKS_BYTES_MAX
from netfutures.wire import Chunk, Need
from worker_stage import FakeMemory

SESSION = b"s" * 16
MiB = 1 << 20


def fetch_of(size_bytes: int) -> tuple[Fetch, FakeMemory]:
    store = FakeMemory(size_bytes)
    return Fetch(SESSION, Reference(CHUNKS, 5, size_bytes), store), store


def pattern(size_bytes: int) -> bytes:
    return bytes(at * 7 % 251 for at in range(1000)) * (size_bytes // 1000 + 1)


@pytest.mark.parametrize("size_bytes", [1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, CHUNKS_BYTES_MAX, 9 * MiB + 5])
def test_a_payload_arrives_as_it_was(size_bytes: int) -> None:
    payload = pattern(size_bytes)[:size_bytes]
    fetch, store = fetch_of(size_bytes)
    is_complete = False
    while not is_complete:
        need = fetch.need()
        assert need is not None
        for chunk in chunks(need, payload):
            assert not is_complete
            assert 0 < len(chunk.content) <= CHUNK_BYTES_MAX
            is_complete = fetch.take(chunk)
    assert bytes(store.content) == payload
    assert fetch.need() is None


def test_no_more_is_asked_for_than_may_be_under_way() -> None:
    fetch, _ = fetch_of(100 * MiB)
    need = fetch.need()
    assert need == Need(SESSION, 5, 0, CHUNKS_BYTES_MAX)
    assert fetch.need() is None


def test_more_is_asked_for_when_half_of_it_has_come() -> None:
    fetch, _ = fetch_of(100 * MiB)
    fetch.need()
    fetch.take(Chunk(SESSION, 5, 0, bytes(MiB), False))
    assert fetch.need() is None
    fetch.take(Chunk(SESSION, 5, MiB, bytes(MiB), False))
    assert fetch.need() == Need(SESSION, 5, CHUNKS_BYTES_MAX, CHUNKS_BYTES_MAX + 2 * MiB)


def test_a_chunk_that_does_not_follow_on_the_last_is_ignored() -> None:
    fetch, store = fetch_of(10)
    fetch.need()
    assert not fetch.take(Chunk(SESSION, 5, 4, b"later", False))
    assert not fetch.take(Chunk(SESSION, 5, 0, b"first", False))
    assert not fetch.take(Chunk(SESSION, 5, 0, b"again", False))
    assert fetch.take(Chunk(SESSION, 5, 5, b"secon", False))
    assert bytes(store.content) == b"firstsecon"


def test_more_bytes_than_were_declared_are_ignored() -> None:
    fetch, store = fetch_of(5)
    assert not fetch.take(Chunk(SESSION, 5, 0, b"too many", False))
    assert bytes(store.content) == bytes(5)


def test_after_a_reconnect_it_asks_again_from_where_it_stands() -> None:
    fetch, _ = fetch_of(100 * MiB)
    fetch.need()
    fetch.take(Chunk(SESSION, 5, 0, bytes(MiB), False))
    fetch.restart()
    assert fetch.need() == Need(SESSION, 5, MiB, MiB + CHUNKS_BYTES_MAX)


def test_an_answer_stops_at_the_end_of_the_payload() -> None:
    assert list(chunks(Need(SESSION, 5, 2, 1 << 40), b"abcdef")) == [Chunk(SESSION, 5, 2, b"cdef", False)]
    assert list(chunks(Need(SESSION, 5, 9, 1 << 40), b"abcdef")) == []


def test_what_is_not_here_is_answered_too() -> None:
    assert abort(Need(SESSION, 5, 2, 9)) == Chunk(SESSION, 5, 2, b"", True)
