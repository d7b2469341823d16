"""Every message that clients, brokers and workers exchange, and its fields.

Everybody but the client and the child treats payloads as opaque bytes. `netfutures.fields` says what a field may be,
`netfutures.codec` how a message becomes frames and comes back.

`docs/protocol.md` says what each message is for, who sends it and what answers it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

from netfutures.fields import (
    Blobs,
    Check,
    Content,
    DispatchRanges,
    FinishedRuns,
    Flag,
    Identities,
    Identity,
    Integer,
    Key,
    Map,
    Maps,
    NumberRanges,
    OptionalPayload,
    OutputRecords,
    PrintedRecords,
    ResultsRuns,
    Seconds,
    SubmittedRuns,
    Text,
    Version,
    Word,
)


class RemoteProtocolError(Exception):
    """The other side broke the protocol: drop that peer and go on."""


class LocalProtocolError(Exception):
    """This side broke the protocol: a bug here."""


class Message:
    """Any message of the protocol. Nobody changes one after it was made; to freeze it would cost twice the time."""

    __slots__ = ()

    # Once here instead of in each class, since generating them would take half of the time of the import.

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(FIELDS[type(self)](self) == FIELDS[type(self)](other))

    def __hash__(self) -> int:
        raise TypeError("messages hold lists and cannot be hashed")

    def __repr__(self) -> str:
        names = (each.name for each in fields(self))  # type: ignore[arg-type]  # it is a dataclass below this
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


M = TypeVar("M", bound=Message)


MESSAGES: Final[dict[int, type[Message]]] = {}
"""Every kind of message, by the number that stands for it on the wire."""
CHECKS: Final[dict[type[Message], tuple[Check, ...]]] = {}
FIELDS: Final[dict[type[Message], Callable[[Any], Any]]] = {}
KINDS: Final[dict[type[Message], int]] = {}


def _kind(number: int) -> Callable[[type[M]], type[M]]:
    def declare(message: type[M]) -> type[M]:
        assert number not in MESSAGES
        names = [each.name for each in fields(message)]  # type: ignore[arg-type]  # it is a dataclass below `Message`
        hints = get_type_hints(message, include_extras=True)
        MESSAGES[number] = message
        KINDS[message] = number
        CHECKS[message] = tuple(hints[name].__metadata__[0] for name in names)
        FIELDS[message] = _fields_of(names)
        return message

    return declare


def _fields_of(names: Sequence[str]) -> Callable[[Any], Any]:
    if len(names) > 1:
        return attrgetter(*names)
    if names:
        only = attrgetter(names[0])
        return lambda message: (only(message),)
    return lambda message: ()


@_kind(1)
@dataclass(slots=True, eq=False, repr=False)
class ClientHello(Message):
    """A client opens a session, or comes back to it with a new connection number."""

    protocol: Version
    session: Identity
    token: Identity
    versions: Map
    reconnect_timeout_s: Seconds
    settings: Map
    initializer: OptionalPayload


@_kind(2)
@dataclass(slots=True, eq=False, repr=False)
class WorkerHello(Message):
    """A worker registers, or comes back, and says what it holds."""

    protocol: Version
    worker: Identity
    token: Identity
    versions: Map
    host: Text
    pid: Integer
    slots: Integer
    credit_tasks: Integer
    sessions: Identities
    held: DispatchRanges
    finished: DispatchRanges


@_kind(3)
@dataclass(slots=True, eq=False, repr=False)
class Welcome(Message):
    """The broker accepts a hello."""

    protocol: Version
    epoch: Word
    credit_tasks: Integer
    credit_bytes: Integer
    lease_s: Seconds


@_kind(4)
@dataclass(slots=True, eq=False, repr=False)
class Refused(Message):
    """The broker refuses a hello, finally; the reason is for a person."""

    reason: Text


@_kind(5)
@dataclass(slots=True, eq=False, repr=False)
class Who(Message):
    """The broker does not know this peer (any more), or has seen a gap: say hello with a new connection number."""


@_kind(6)
@dataclass(slots=True, eq=False, repr=False)
class Beat(Message):
    """The sender is alive; a worker also says how many tasks it wants to hold."""

    credit_tasks: Integer


@_kind(7)
@dataclass(slots=True, eq=False, repr=False)
class Acknowledge(Message):
    """Nothing but the three numbers in front of it."""


@_kind(8)
@dataclass(slots=True, eq=False, repr=False)
class Goodbye(Message):
    """The sender leaves in good order and wants nothing that is still under way."""

    reason: Text


@_kind(9)
@dataclass(slots=True, eq=False, repr=False)
class Submit(Message):
    """Tasks of a client, in runs of the same function; numbers are consecutive in a session."""

    first_epoch: Word
    blobs: Blobs
    runs: SubmittedRuns


@_kind(10)
@dataclass(slots=True, eq=False, repr=False)
class Cancel(Message):
    """Calls back every task of the session that has not started; towards a worker, every one that it holds."""

    request: Integer
    session: Identity


@_kind(11)
@dataclass(slots=True, eq=False, repr=False)
class TakenBack(Message):
    """Answer to `Cancel`, from a worker: these have not started and never will."""

    request: Integer
    dispatched: DispatchRanges


@_kind(12)
@dataclass(slots=True, eq=False, repr=False)
class Cancelled(Message):
    """Answer to `Cancel`, to the client: these have not started, never will, and are forgotten by the broker."""

    request: Integer
    numbers: NumberRanges
    is_last: Flag


@_kind(13)
@dataclass(slots=True, eq=False, repr=False)
class Tasks(Message):
    """Tasks handed to a worker."""

    session: Identity
    blobs: Blobs
    runs: SubmittedRuns


@_kind(14)
@dataclass(slots=True, eq=False, repr=False)
class Finished(Message):
    """Outcomes from a worker, which keeps them until they are released."""

    credit_tasks: Integer
    runs: FinishedRuns


@_kind(15)
@dataclass(slots=True, eq=False, repr=False)
class Results(Message):
    """Outcomes to the client; its acknowledgement of this message releases them."""

    runs: ResultsRuns


@_kind(16)
@dataclass(slots=True, eq=False, repr=False)
class Release(Message):
    """The client has these outcomes: the worker may forget them."""

    dispatched: DispatchRanges


@_kind(17)
@dataclass(slots=True, eq=False, repr=False)
class Stale(Message):
    """These dispatches are not current: the worker ends them and drops their outcomes."""

    dispatched: DispatchRanges


@_kind(18)
@dataclass(slots=True, eq=False, repr=False)
class Started(Message):
    """These tasks really run; from a worker."""

    dispatched: DispatchRanges


@_kind(19)
@dataclass(slots=True, eq=False, repr=False)
class Running(Message):
    """These tasks really run; to the client."""

    numbers: NumberRanges


@_kind(20)
@dataclass(slots=True, eq=False, repr=False)
class Output(Message):
    """What tasks wrote to stdout (1) and stderr (2), in order with the outcomes; from a worker."""

    records: OutputRecords


@_kind(21)
@dataclass(slots=True, eq=False, repr=False)
class Printed(Message):
    """What tasks wrote to stdout (1) and stderr (2), in order with the outcomes; to the client."""

    records: PrintedRecords


@_kind(22)
@dataclass(slots=True, eq=False, repr=False)
class Open(Message):
    """A session whose tasks the worker will get; its children are set up by these settings."""

    session: Identity
    settings: Map
    initializer: OptionalPayload


@_kind(23)
@dataclass(slots=True, eq=False, repr=False)
class Close(Message):
    """A session is over: its children end, its tasks and blobs are forgotten."""

    session: Identity
    at_once: Flag


@_kind(24)
@dataclass(slots=True, eq=False, repr=False)
class Lost(Message):
    """A child of a session died: with what certificate, and what it may have been running."""

    session: Identity
    certificate: Map
    dispatched: DispatchRanges


@_kind(25)
@dataclass(slots=True, eq=False, repr=False)
class Broken(Message):
    """The session is broken: all its futures fail with this cause."""

    certificate: Map


@_kind(26)
@dataclass(slots=True, eq=False, repr=False)
class Need(Message):
    """Send the bytes of a payload from an offset up to a limit; the answer is chunks."""

    session: Identity
    key: Key
    offset: Integer
    limit: Integer


@_kind(27)
@dataclass(slots=True, eq=False, repr=False)
class Chunk(Message):
    """Bytes of a payload; `abort` means that there is no such payload (any more)."""

    session: Identity
    key: Key
    offset: Integer
    content: Content
    abort: Flag


@_kind(28)
@dataclass(slots=True, eq=False, repr=False)
class Kill(Message):
    """Reserved: end these running tasks, gently or not."""

    dispatched: DispatchRanges
    reason: Text


@_kind(29)
@dataclass(slots=True, eq=False, repr=False)
class Drain(Message):
    """Reserved: the sender takes no new tasks and will leave when its own are done."""

    grace_s: Seconds


@_kind(30)
@dataclass(slots=True, eq=False, repr=False)
class LogRecords(Message):
    """Reserved: log records of a worker or a task, for the client."""

    records: Maps


@_kind(31)
@dataclass(slots=True, eq=False, repr=False)
class Progress(Message):
    """Reserved: progress that tasks report."""

    records: Maps


class Envelope(NamedTuple):
    """A message with the numbers of its connection (see `netfutures.conversation`)."""

    connection: int
    sequence: int
    acknowledged: int
    message: Message
