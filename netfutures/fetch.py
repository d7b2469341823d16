"""Pulling one payload in chunks, and cutting one into them; pure.

The side that wants a payload asks for it by `Need`, a few MiB at a time; so the receiver paces the sender, nothing has
to be kept on the way, and after a reconnect it asks again from where it stands.
"""

from collections.abc import Iterator
from typing import Protocol

from netfutures.fields import Payload, Reference
from netfutures.limits import CHUNK_BYTES_MAX, CHUNKS_BYTES_MAX
from netfutures.wire import Chunk, Need


class Store(Protocol):
    """Where a payload gathers."""

    def write(self, offset: int, content: bytes | memoryview, /) -> None:
        """Puts bytes at an offset."""


class Fetch:
    """One payload that is being pulled."""

    __slots__ = ("asked", "key", "received", "session", "size_bytes", "store")

    def __init__(self, session: bytes, reference: Reference, store: Store) -> None:
        self.session = session
        self.key = reference.key
        self.size_bytes = reference.size_bytes
        self.store = store
        self.received = 0
        self.asked = 0

    def need(self) -> Need | None:
        """The next thing to ask for, if it is time."""
        if self.asked - self.received > CHUNKS_BYTES_MAX // 2 or self.asked >= self.size_bytes:
            return None
        offset = self.asked
        self.asked = min(self.size_bytes, self.received + CHUNKS_BYTES_MAX)
        return Need(self.session, self.key, offset, self.asked)

    def take(self, chunk: Chunk) -> bool:
        """Stores a chunk; whether the payload is complete. One that does not follow on the last is ignored."""
        content = chunk.content
        assert not isinstance(content, Reference)
        if chunk.offset == self.received and chunk.offset + len(content) <= self.size_bytes:
            self.store.write(chunk.offset, memoryview(content))
            self.received += len(content)
        return self.received == self.size_bytes

    def restart(self) -> None:
        """What was asked for may be lost: ask again from where it stands."""
        self.asked = self.received


def chunks(need: Need, payload: Payload) -> Iterator[Chunk]:
    """The chunks that answer a `Need`."""
    assert not isinstance(payload, Reference)
    view = memoryview(payload)
    limit = min(need.limit, len(view))
    for offset in range(need.offset, limit, CHUNK_BYTES_MAX):
        content = bytes(view[offset : min(offset + CHUNK_BYTES_MAX, limit)])
        yield Chunk(need.session, need.key, offset, content, False)


def abort(need: Need) -> Chunk:
    """The answer to a `Need` of something that is not here."""
    return Chunk(need.session, need.key, need.offset, b"", True)
