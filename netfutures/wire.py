"""Every message that clients, brokers and workers exchange, and its fields.

Everybody but the client and the child treats payloads as opaque bytes. `netfutures.fields` says what a field may be,
`netfutures.codec` how a message becomes frames and comes back.

`docs/protocol.md` says what each message is for, who sends it and what answers it.
"""

from __future__ import annotations

from typing import NamedTuple

from netfutures.fields import (
    Blobs,
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
from netfutures.message import MESSAGES as MESSAGES
from netfutures.message import Message as Message


class RemoteProtocolError(Exception):
    """The other side broke the protocol: drop that peer and go on."""


class LocalProtocolError(Exception):
    """This side broke the protocol: a bug here."""


class ClientHello(Message, kind=1):
    """A client opens a session, or comes back to it with a new connection number."""

    protocol: Version
    session: Identity
    token: Identity
    versions: Map
    reconnect_timeout_s: Seconds
    settings: Map
    initializer: OptionalPayload


class WorkerHello(Message, kind=2):
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


class Welcome(Message, kind=3):
    """The broker accepts a hello."""

    protocol: Version
    epoch: Word
    credit_tasks: Integer
    credit_bytes: Integer
    lease_s: Seconds


class Refused(Message, kind=4):
    """The broker refuses a hello, finally; the reason is for a person."""

    reason: Text


class Who(Message, kind=5):
    """The broker does not know this peer (any more), or has seen a gap: say hello with a new connection number."""


class Beat(Message, kind=6):
    """The sender is alive; a worker also says how many tasks it wants to hold."""

    credit_tasks: Integer


class Acknowledge(Message, kind=7):
    """Nothing but the three numbers in front of it."""


class Goodbye(Message, kind=8):
    """The sender leaves in good order and wants nothing that is still under way."""

    reason: Text


class Submit(Message, kind=9):
    """Tasks of a client, in runs of the same function; numbers are consecutive in a session."""

    first_epoch: Word
    blobs: Blobs
    runs: SubmittedRuns


class Cancel(Message, kind=10):
    """Calls back every task of the session that has not started; towards a worker, every one that it holds."""

    request: Integer
    session: Identity


class TakenBack(Message, kind=11):
    """Answer to `Cancel`, from a worker: these have not started and never will."""

    request: Integer
    dispatched: DispatchRanges


class Cancelled(Message, kind=12):
    """Answer to `Cancel`, to the client: these have not started, never will, and are forgotten by the broker."""

    request: Integer
    numbers: NumberRanges
    is_last: Flag


class Tasks(Message, kind=13):
    """Tasks handed to a worker."""

    session: Identity
    blobs: Blobs
    runs: SubmittedRuns


class Finished(Message, kind=14):
    """Outcomes from a worker, which keeps them until they are released."""

    credit_tasks: Integer
    runs: FinishedRuns


class Results(Message, kind=15):
    """Outcomes to the client; its acknowledgement of this message releases them."""

    runs: ResultsRuns


class Release(Message, kind=16):
    """The client has these outcomes: the worker may forget them."""

    dispatched: DispatchRanges


class Stale(Message, kind=17):
    """These dispatches are not current: the worker ends them and drops their outcomes."""

    dispatched: DispatchRanges


class Started(Message, kind=18):
    """These tasks really run; from a worker."""

    dispatched: DispatchRanges


class Running(Message, kind=19):
    """These tasks really run; to the client."""

    numbers: NumberRanges


class Output(Message, kind=20):
    """What tasks wrote to stdout (1) and stderr (2), in order with the outcomes; from a worker."""

    records: OutputRecords


class Printed(Message, kind=21):
    """What tasks wrote to stdout (1) and stderr (2), in order with the outcomes; to the client."""

    records: PrintedRecords


class Open(Message, kind=22):
    """A session whose tasks the worker will get; its children are set up by these settings."""

    session: Identity
    settings: Map
    initializer: OptionalPayload


class Close(Message, kind=23):
    """A session is over: its children end, its tasks and blobs are forgotten."""

    session: Identity
    at_once: Flag


class Lost(Message, kind=24):
    """A child of a session died: with what certificate, and what it may have been running."""

    session: Identity
    certificate: Map
    dispatched: DispatchRanges


class Broken(Message, kind=25):
    """The session is broken: all its futures fail with this cause."""

    certificate: Map


class Need(Message, kind=26):
    """Send the bytes of a payload from an offset up to a limit; the answer is chunks."""

    session: Identity
    key: Key
    offset: Integer
    limit: Integer


class Chunk(Message, kind=27):
    """Bytes of a payload; `abort` means that there is no such payload (any more)."""

    session: Identity
    key: Key
    offset: Integer
    content: Content
    abort: Flag


class Kill(Message, kind=28):
    """Reserved: end these running tasks, gently or not."""

    dispatched: DispatchRanges
    reason: Text


class Drain(Message, kind=29):
    """Reserved: the sender takes no new tasks and will leave when its own are done."""

    grace_s: Seconds


class LogRecords(Message, kind=30):
    """Reserved: log records of a worker or a task, for the client."""

    records: Maps


class Progress(Message, kind=31):
    """Reserved: progress that tasks report."""

    records: Maps


class Envelope(NamedTuple):
    """A message with the numbers of its connection (see `netfutures.conversation`)."""

    connection: int
    sequence: int
    acknowledged: int
    message: Message
