"""What the client's core tells its shell to do, and the gauges that it shows."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from netfutures.fields import Payload
from netfutures.wire import Envelope


class Send(NamedTuple):
    """Send this message to the broker."""

    envelope: Envelope


class Settle(NamedTuple):
    """These calls have ended, with these outcomes; they are of consecutive tasks from `first` on."""

    first: int
    calls: Sequence[Any]
    outcomes: Sequence[Payload]


class MarkRunning(NamedTuple):
    """These calls really run."""

    calls: Sequence[Any]


class Print(NamedTuple):
    """A task has written this to stdout (1) or stderr (2)."""

    number: int
    stream: int
    text: bytes


class GiveBack(NamedTuple):
    """These calls have not started and wait in the client again; `request` is answered when `is_last`."""

    request: int
    calls: Sequence[Any]
    is_last: bool


class Break(NamedTuple):
    """The session is over for a cause: every call that is awaited or waits fails with it."""

    certificate: dict[str, Any]
    calls: Sequence[Any]


class Connected(NamedTuple):
    """The broker has welcomed this session."""


class Ended(NamedTuple):
    """The broker has taken our goodbye: nothing of the session is there any more."""


Command: TypeAlias = Send | Settle | MarkRunning | Print | GiveBack | Break | Connected | Ended


class Statistics(NamedTuple):
    """Gauges and counters of the client."""

    awaited_tasks: int
    awaited_bytes: int
    connection: int
    stale_outcomes: int
    gaps: int
