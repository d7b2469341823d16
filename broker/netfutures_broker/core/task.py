"""The life of a task at the broker: its states, its events, and the table of what may happen.

House rules: everything that changes a task's state goes through `advance`; a pair that is not in the table is a bug
here. The states of a run of tasks are the bytes of a bytearray, and an event is a translation of bytes, so that a
thousand tasks move as fast as one.
"""

from enum import IntEnum
from typing import Final

from netfutures.wire import LocalProtocolError


class State(IntEnum):
    """Where a task is; the value is its byte in `Run.states`."""

    QUEUED = 0
    """It waits in the session's backlog."""
    SENT = 1
    """It was handed to a worker, under a dispatch number."""
    RUNNING = 2
    """Its worker says that it runs."""
    DONE = 3
    """Its outcome is known; it is forgotten when the client has it."""
    GONE = 4
    """It was given back to the client unstarted, or dropped with its session."""


class Event(IntEnum):
    """What can happen to a task."""

    HAND_OUT = 0
    """The scheduler hands it to a worker."""
    STARTED = 1
    """Its worker says that it runs."""
    FINISHED = 2
    """Its worker says how it ended."""
    TAKEN_BACK = 3
    """Its worker has not started it and never will; or the message that handed it out was lost."""
    RUN_AGAIN = 4
    """Its child or worker was lost, or a worker that kept its outcome, and its retries allow another attempt."""
    LOST = 5
    """Its child or worker was lost, or a worker that kept its outcome, and it is not run again."""
    GIVE_BACK = 6
    """The client called it back."""


_ILLEGAL: Final = 255

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.QUEUED, Event.HAND_OUT): State.SENT,
    (State.QUEUED, Event.GIVE_BACK): State.GONE,
    (State.SENT, Event.STARTED): State.RUNNING,
    (State.SENT, Event.FINISHED): State.DONE,
    (State.SENT, Event.TAKEN_BACK): State.QUEUED,
    (State.SENT, Event.RUN_AGAIN): State.QUEUED,
    (State.SENT, Event.LOST): State.DONE,
    (State.RUNNING, Event.STARTED): State.RUNNING,
    (State.RUNNING, Event.FINISHED): State.DONE,
    (State.RUNNING, Event.TAKEN_BACK): State.QUEUED,
    (State.RUNNING, Event.RUN_AGAIN): State.QUEUED,
    (State.RUNNING, Event.LOST): State.DONE,
    (State.DONE, Event.RUN_AGAIN): State.QUEUED,
    (State.DONE, Event.LOST): State.DONE,
}
"""What may happen to a task in which state, and where it leads. A missing entry is the error."""


def _translation(event: Event) -> bytes:
    table = bytearray([_ILLEGAL]) * 256
    for (state, its_event), following in TRANSITIONS.items():
        if its_event is event:
            table[state] = following
    return bytes(table)


_TRANSLATIONS: Final = tuple(_translation(event) for event in Event)


def advance(states: bytearray, start: int, stop: int, event: Event) -> None:
    """Moves the tasks `start` to `stop` of a run.

    Raises `LocalProtocolError`, and changes nothing, when the table does not allow it for one of them.
    """
    if stop - start == 1:  # The common case of a task alone, without a copy.
        state = _TRANSLATIONS[event][states[start]]
        if state != _ILLEGAL:
            states[start] = state
            return
    following = states[start:stop].translate(_TRANSLATIONS[event])
    if _ILLEGAL in following:
        at = following.index(_ILLEGAL)
        raise LocalProtocolError(f"{event.name} happened to a task in state {State(states[start + at]).name}")
    states[start:stop] = following
