"""One party's side of a numbered, acknowledged exchange over one connection; pure.

ZeroMQ loses messages in silence at every disconnect, and may deliver those of an old connection late. So every
message bears three numbers: the connection (one more at each hello), its sequence number in that connection and
direction, and the highest sequence number received from the other side. A gap means that something was lost: the
connection is over and the peer says hello again. Only batches count against the window of unacknowledged messages;
if bare acknowledgements did, both sides could wait for each other for ever.
"""

from collections import deque
from enum import Enum

from netfutures.limits import ACKNOWLEDGE_AFTER_S, WINDOW_BATCHES


class Verdict(Enum):
    """What the numbers of a received message say."""

    FRESH = "fresh"
    """The next message of this connection."""
    STALE = "stale"
    """Of an older connection, or received before: drop it."""
    GAP = "gap"
    """Something before it was lost: the connection is over."""


class Conversation:
    """Numbers what is sent, checks what is received, and knows when an acknowledgement is owed."""

    __slots__ = (
        "acknowledged",
        "connection",
        "owed_batches",
        "owed_since",
        "received",
        "sent",
        "unacknowledged",
        "window",
    )

    def __init__(self, connection: int, window: int = WINDOW_BATCHES) -> None:
        self.connection = connection
        self.window = window
        self.sent = 0
        self.received = 0
        self.acknowledged = 0
        self.unacknowledged: deque[int] = deque()
        self.owed_batches = 0
        self.owed_since: float | None = None

    def stamp(self, batch: bool = False) -> tuple[int, int, int]:
        """Numbers of the next message to send; it acknowledges everything received so far."""
        self.sent = sent = self.sent + 1
        if batch:
            self.unacknowledged.append(sent)
        if self.owed_batches:
            self.owed_batches = 0
            self.owed_since = None
        return self.connection, sent, self.received

    def accept(self, connection: int, sequence: int, acknowledged: int) -> Verdict:
        """Takes the numbers of a received message; after `Verdict.FRESH` they are noted."""
        if connection < self.connection or (connection == self.connection and sequence <= self.received):
            return Verdict.STALE
        if connection > self.connection or sequence > self.received + 1 or acknowledged > self.sent:
            return Verdict.GAP
        self.received = sequence
        if acknowledged > self.acknowledged:
            self.acknowledged = acknowledged
            unacknowledged = self.unacknowledged
            while unacknowledged and unacknowledged[0] <= acknowledged:
                unacknowledged.popleft()
        return Verdict.FRESH

    def owe(self, now: float) -> None:
        """A batch was taken into the core: its acknowledgement is owed from now on."""
        self.owed_batches += 1
        if self.owed_since is None:
            self.owed_since = now

    @property
    def is_open(self) -> bool:
        """Whether another batch may be sent."""
        return len(self.unacknowledged) < self.window

    def must_acknowledge(self, now: float) -> bool:
        """Whether an acknowledgement has to go alone: the other side's window is full, or it has waited long enough."""
        if self.owed_since is None:
            return False
        return self.owed_batches >= self.window or now >= self.owed_since + ACKNOWLEDGE_AFTER_S

    @property
    def acknowledge_at(self) -> float | None:
        """The time at which an owed acknowledgement has to go alone."""
        return None if self.owed_since is None else self.owed_since + ACKNOWLEDGE_AFTER_S
