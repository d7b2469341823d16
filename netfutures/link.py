"""What a link is: it carries envelopes between a shell and the others, over ZeroMQ, an inherited socket, or a list.

A link has four methods, `send`, `receive`, `is_ready` and `close`; the cores do not notice which one it is.
"""

from collections import deque
from typing import NamedTuple, Protocol

from netfutures.wire import Envelope


class Unreachable(Exception):
    """The route is dead: what was sent on it lately may be lost."""


class BadMessage(Exception):
    """A peer sent what is no message of the protocol."""

    def __init__(self, route: bytes, why: str) -> None:
        super().__init__(why)
        self.route = route
        self.why = why


class Received(NamedTuple):
    """An envelope and the route that it came on."""

    route: bytes
    envelope: Envelope


class Link(Protocol):
    """What carries envelopes between a shell and the others."""

    def send(self, route: bytes, envelope: Envelope) -> None:
        """Sends; never blocks. Raises `Unreachable` when the route is known to be dead."""

    def receive(self) -> Received | None:
        """The next envelope, or None when there is none now.

        Raises `BadMessage` for one that cannot be understood.
        """

    def is_ready(self) -> bool:
        """Whether `receive` has something; to be asked before each sleep."""

    def close(self) -> None:
        """Gives the link up; what was sent and not yet written may be lost."""


class LocalLink:
    """One end of a link between two shells that run in one loop: nothing is encoded, nothing can be lost."""

    def __init__(self, route: bytes) -> None:
        self.route = route
        self._incoming: deque[Received] = deque()
        self._outgoing: deque[Received] = deque()

    @classmethod
    def pair(cls, route: bytes) -> tuple["LocalLink", "LocalLink"]:
        """Both ends; `route` is how the one that routes names the other."""
        one, other = cls(route), cls(route)
        one._outgoing, other._outgoing = other._incoming, one._incoming
        return one, other

    def send(self, route: bytes, envelope: Envelope) -> None:
        """Hands the envelope over."""
        self._outgoing.append(Received(self.route, envelope))

    def receive(self) -> Received | None:
        """The next envelope of the other end."""
        return self._incoming.popleft() if self._incoming else None

    def is_ready(self) -> bool:
        """Whether the other end has sent something."""
        return bool(self._incoming)

    def close(self) -> None:
        """Nothing to give up."""
