"""What all fakes share: time as a number, the codec in the middle, and an inbox in which nothing may stay unclaimed."""

from dataclasses import dataclass
from typing import TypeVar

from netfutures.codec import decode, encode
from netfutures.conversation import Conversation, Verdict
from netfutures.limits import PROTOCOL_MAJOR, PROTOCOL_MINOR
from netfutures.wire import Acknowledge, Beat, Envelope, Message

M = TypeVar("M", bound=Message)

EPOCH = 7
VERSION = (PROTOCOL_MAJOR, PROTOCOL_MINOR)
FUNCTION = b"function of 16 b"
UNASKED = (Beat, Acknowledge)
"""What nobody has to claim."""


def through_codec(envelope: Envelope) -> Envelope:
    """The envelope as the other side gets it."""
    return decode([bytes(frame) for frame in encode(envelope)])


def named(text: str) -> bytes:
    """An identity that can be read in a failure."""
    return text.encode().ljust(16, b".")[:16]


@dataclass
class FakeClock:
    """Time as a number."""

    now: float = 1000.0


class Inbox:
    """The end of a connection that a test plays: its numbers, and what came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.identity = named(name)
        self.token = named(f"token {name}")
        self.conversation = Conversation(0)
        self.came: list[Message] = []

    def hear(self, envelope: Envelope) -> None:
        """A message for this peer; those without numbers are for whoever is not connected."""
        envelope = through_codec(envelope)
        if envelope.connection:
            verdict = self.conversation.accept(*envelope[:3])
            if verdict is Verdict.STALE:
                return
            assert verdict is Verdict.FRESH, f"{self.name} has missed something before {envelope}"
        self.came.append(envelope.message)

    def take(self, kind: type[M]) -> M:
        """The oldest message of this kind, which must be there."""
        for message in self.came:
            if isinstance(message, kind):
                self.came.remove(message)
                return message
        raise AssertionError(f"no {kind.__name__} for {self.name}: {self.came}")

    def take_all(self, kind: type[M]) -> list[M]:
        """All messages of this kind."""
        taken = [message for message in self.came if isinstance(message, kind)]
        self.came = [message for message in self.came if not isinstance(message, kind)]
        return taken

    def has(self, kind: type[Message]) -> bool:
        """Whether there is one of this kind."""
        return any(isinstance(message, kind) for message in self.came)

    def forget(self) -> None:
        """What came is of no interest to this test."""
        self.came.clear()

    def refuse_unclaimed(self) -> None:
        """A test has to claim all that came."""
        left = [message for message in self.came if not isinstance(message, UNASKED)]
        assert not left, f"unclaimed by {self.name}: {left}"
