"""What the broker's core tells its shell to do, and the gauges that it shows."""

from typing import NamedTuple

from netfutures.wire import Envelope


class Send(NamedTuple):
    """Send this message on this route."""

    route: bytes
    envelope: Envelope


class Note(NamedTuple):
    """Something worth a line in the log."""

    text: str


class SessionEnded(NamedTuple):
    """A client has said goodbye or is gone: nothing of its session is left here."""

    session: bytes


Command = Send | Note | SessionEnded


class Counters:
    """What happened since the start."""

    __slots__ = ("done_tasks", "gaps", "refused", "stale_messages", "stale_outcomes")

    def __init__(self) -> None:
        self.done_tasks = 0
        self.stale_messages = 0
        self.stale_outcomes = 0
        self.gaps = 0
        self.refused = 0


class Statistics(NamedTuple):
    """Gauges and counters of the broker."""

    sessions: int
    workers: int
    slots: int
    queued_tasks: int
    held_tasks: int
    done_tasks: int
    stale_messages: int
    stale_outcomes: int
    gaps: int
    refused: int
