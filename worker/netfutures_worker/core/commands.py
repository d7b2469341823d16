"""What the worker's core tells its shell to do, and the gauges that it shows."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from netfutures.fields import Payload
from netfutures.wire import Envelope


class Pulled(Protocol):
    """A payload that was pulled in chunks into the shell's memory; the core only counts and passes it on."""

    def __len__(self) -> int:
        """Its size in bytes."""

    def write(self, offset: int, content: bytes | memoryview, /) -> None:
        """Puts bytes at an offset."""

    def seal(self) -> None:
        """All of it is there."""


Given: TypeAlias = Payload | Pulled
"""A payload as the shell takes it: bytes, or what was pulled."""


class Send(NamedTuple):
    """Send this message to the broker."""

    envelope: Envelope


class StartChild(NamedTuple):
    """Start a child in this slot, with this initializer."""

    slot: int
    initializer: Given | None


class GiveFunction(NamedTuple):
    """Hand a function to the child under a number."""

    slot: int
    number: int
    payload: Given
    keep: bool


class GiveTasks(NamedTuple):
    """Hand tasks to the child, the first of which has this index in the child's life."""

    slot: int
    number: int
    first: int
    payloads: Sequence[Given]


class Look(NamedTuple):
    """Read the child's claim and call `looked`."""

    slot: int


class TakeBack(NamedTuple):
    """Take back what the child has not started, call `revoked`, then hand in what it has finished."""

    slot: int


class Harvest(NamedTuple):
    """Hand in what the child has finished and not told yet, since its present task takes long."""

    slot: int


class EndChild(NamedTuple):
    """Let the child end in good order."""

    slot: int


class KillChild(NamedTuple):
    """End the child at once."""

    slot: int


class Mute(NamedTuple):
    """Do not read this child's output until `Unmute`, so that it waits."""

    slot: int


class Unmute(NamedTuple):
    """Read this child's output again."""

    slot: int


class Note(NamedTuple):
    """Something worth a line in the log."""

    text: str


class Refusal(NamedTuple):
    """The broker refuses this worker, finally."""

    reason: str


Command: TypeAlias = (
    Send
    | StartChild
    | GiveFunction
    | GiveTasks
    | Look
    | TakeBack
    | Harvest
    | EndChild
    | KillChild
    | Mute
    | Unmute
    | Note
    | Refusal
)


class Statistics(NamedTuple):
    """Gauges of the worker."""

    slots: int
    children: int
    sessions: int
    queued_tasks: int
    held_tasks: int
    kept_outcomes: int
