"""What the broker's core tells its shell to do, and the gauges that it shows."""

from dataclasses import dataclass
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


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    done_tasks: int = 0
    stale_messages: int = 0
    stale_outcomes: int = 0
    gaps: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
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
