"""One party's end of the connection to another party: where it leads, its numbers, and when it was last heard; pure."""

from netfutures.conversation import Conversation
from netfutures.limits import BEAT_S
from netfutures.wire import Envelope, Message


class Line:
    """A conversation, the route it takes, and the times that liveness needs."""

    __slots__ = ("beat_at", "conversation", "heard_at", "route")

    def __init__(self, route: bytes | None, connection: int, now: float) -> None:
        self.route = route
        self.conversation = Conversation(connection)
        self.heard_at = now
        self.beat_at = now + BEAT_S

    def envelope(self, message: Message, *, batch: bool = False) -> Envelope:
        """The message with the next numbers of this line."""
        connection, sequence, acknowledged = self.conversation.stamp(batch)
        return Envelope(connection, sequence, acknowledged, message)

    def is_beat_due(self, now: float) -> bool:
        """Whether a beat has to go; noted as gone if so."""
        if now < self.beat_at:
            return False
        self.beat_at = now + BEAT_S
        return True

    @property
    def deadline(self) -> float:
        """When something has to be sent even if nothing happens."""
        owed_at = self.conversation.acknowledge_at
        return owed_at if owed_at is not None and owed_at < self.beat_at else self.beat_at
