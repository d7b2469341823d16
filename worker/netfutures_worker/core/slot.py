"""A slot, the child in it, and what that child was given; with the table of a slot's states."""

from collections import deque
from enum import Enum
from typing import Final

from netfutures.limits import LONG_TASK_S, PACKETS_AHEAD

from .session import WorkerSession
from .work import Work


class State(Enum):
    """What is in a slot."""

    EMPTY = "empty"
    """No child."""
    STARTING = "starting"
    """A child that was asked for, or that runs its initializer."""
    READY = "ready"
    """A child that takes tasks, busy or idle."""
    STOPPING = "stopping"
    """A child that was told to end."""


class Event(Enum):
    """What can happen to a slot."""

    START = "start"
    """A child is asked for."""
    PREPARED = "prepared"
    """The child says that it takes tasks."""
    END = "end"
    """The child is told to end, or killed."""
    EXITED = "exited"
    """The child is dead."""


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.EMPTY, Event.START): State.STARTING,
    (State.STARTING, Event.PREPARED): State.READY,
    (State.STARTING, Event.END): State.STOPPING,
    (State.STARTING, Event.EXITED): State.EMPTY,
    (State.READY, Event.END): State.STOPPING,
    (State.READY, Event.EXITED): State.EMPTY,
    (State.STOPPING, Event.END): State.STOPPING,
    (State.STOPPING, Event.PREPARED): State.STOPPING,
    (State.STOPPING, Event.EXITED): State.EMPTY,
}
"""What may happen to a slot in which state, and where it leads. A missing entry is the error."""


class Packet:
    """Tasks that a child was given at once; indices `first` to `first + count - 1` are its own."""

    __slots__ = ("count", "cut", "done", "first", "measured", "work")

    def __init__(self, first: int, work: Work) -> None:
        self.first = first
        self.work = work
        self.count = work.count
        self.done = 0
        """How many outcomes have come."""
        self.measured = 0
        """For how many of them the child has said how long they took."""
        self.cut = False
        """Its tail was taken back, and the child has not yet said where it stopped."""

    @property
    def end(self) -> int:
        """The index after its last one."""
        return self.first + self.count

    @property
    def next_index(self) -> int:
        """The index of the first task of which no outcome has come."""
        return self.first + self.done


class Slot:
    """Room for one child."""

    __slots__ = (
        "allowance",
        "exact",
        "failure",
        "functions",
        "is_muted",
        "is_overdue",
        "kill_at",
        "last_work",
        "look_at",
        "next_index",
        "number",
        "output_bytes",
        "packets",
        "pid",
        "seen_claim",
        "session",
        "started_at",
        "state",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = State.EMPTY
        self.output_bytes = 0
        self.clear()

    def clear(self) -> None:
        """No child is here, nor anything that was said of one."""
        self.session: WorkerSession | None = None
        self.pid = 0
        self.exact = False
        self.failure: str | None = None
        self.packets: deque[Packet] = deque()
        self.functions: set[int] = set()
        self.next_index = 1
        self.allowance: int | None = None
        """How many tasks this child may still get; None: no limit."""
        self.look_at: float | None = None
        """When to see whether a task stands for long."""
        self.seen_claim = 0
        self.is_overdue = False
        """Its task has run for long: nothing is queued behind it."""
        self.kill_at: float | None = None
        """When a child that was told to end is killed."""
        self.last_work: Work | None = None
        self.started_at = 0.0
        self.is_muted = False

    def advance(self, event: Event) -> None:
        """Moves the slot; KeyError when the table does not allow it."""
        self.state = TRANSITIONS[self.state, event]

    @property
    def is_idle(self) -> bool:
        """Whether its child waits for tasks."""
        return self.state is State.READY and not self.packets and self.allowance != 0

    @property
    def may_end(self) -> bool:
        """Whether its child has had all the tasks that it may get, and has done them."""
        return self.state is State.READY and not self.packets and self.allowance == 0

    def takes_ahead(self, estimate_s: float | None) -> bool:
        """Whether tasks of this length may be queued behind what its child has."""
        return (
            self.state is State.READY
            and self.allowance != 0
            and not self.is_overdue
            and len(self.packets) < PACKETS_AHEAD
            and estimate_s is not None
            and estimate_s <= LONG_TASK_S
        )

    @property
    def has_more_behind(self) -> bool:
        """Whether its child has tasks after the one that it runs."""
        return self.seen_claim + 1 < self.next_index and any(
            packet.end > max(packet.first, self.seen_claim + 1) for packet in self.packets
        )

    def packet_of(self, index: int) -> Packet | None:
        """The packet that a task of this index came in, if it is still here."""
        for packet in self.packets:
            if packet.first <= index < packet.end:
                return packet
        return None
