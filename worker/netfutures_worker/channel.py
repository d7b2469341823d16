"""What a worker and its child agree on: the packets of their two sockets and the page that they share.

Two `SOCK_SEQPACKET` socketpairs a child. On *tasks* the worker keeps both ends, so that it can read back what the
child has not read. On *results* it holds one end only. One memfd holds a page of control words, then a ring of results.

An *index* numbers the tasks in the life of one child: 1, 2, 3 … and never again, also not after a take-back.
The child stores CLAIM, then reads LIMIT; the worker stores LIMIT, issues a memory barrier, then reads CLAIM. So what
lies above the claim, from the limit on and below RESUME, never starts.

Ring offsets (START, END, READ) only grow; the place of an offset in the ring is its remainder by RING_BYTES. A region
holds the results of one packet: the index of the first, then one bin each, so it cannot be taken for another packet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from netfutures_worker.memory import Memory

PAGE_BYTES: Final = 4096
RING_BYTES: Final = 1 << 20
SHARED_BYTES: Final = PAGE_BYTES + RING_BYTES
SOCKET_BYTES: Final = 1 << 20
# More than this goes into a memfd that travels with the packet.
INLINE_BYTES_MAX: Final = 64 << 10
# No packet is larger; both sides read into a buffer of this size, and a packet that was cut is a fault.
PACKET_BYTES_MAX: Final = 128 << 10
OUTPUT_BYTES_MAX: Final = 32 << 10

# Control words, little endian unsigned 64 bit, by position in the page.
CLAIM: Final = 0  # child: the index of the task that it is about to run
LIMIT: Final = 1  # worker: nothing from this index on may start ...
RESUME: Final = 2  # worker: ... but what lies from this index on was given later, and may
START: Final = 3  # child: offset at which the present region begins
END: Final = 4  # child: offset up to which its results are published
READ: Final = 5  # worker: offset up to which it has consumed the ring
KILL: Final = 6  # worker: index + 1 of a task to interrupt, 0 for none; reserved
NO_LIMIT: Final = 1 << 63

# Packets on *tasks*.
PREPARE: Final = 1  # [kind, initializer | nil, extra map]: the first packet; the child has been reparented by then
FUNCTION: Final = 2  # [kind, number, payload, cacheable]
TASKS: Final = 3  # [kind, function number, first index, [payload ...], reserved map | nil]
FINISH: Final = 4  # [kind]: end in good order, after what lies before
# Packets on *results*.
READY: Final = 11  # [kind, pid, exact]: prepared; `exact` tells whether memory barriers reach this child
FAILED: Final = 12  # [kind, traceback text]: the initializer raised; the child ends
NOTE: Final = 13  # [kind, first index, count, start offset, end offset, microseconds]
RESULT: Final = 14  # [kind, index, payload, microseconds]: one that does not fit the ring
STOPPED: Final = 15  # [kind, index]: this and the later indices of its packet have not started and will not
OUTPUT: Final = 16  # [kind, index, stream, bytes]

# How a child ends when it is not by its task's doing; EXIT_REASONS says it to people.
EXIT_INITIALIZER: Final = 1
EXIT_CHANNEL: Final = 120
EXIT_ORPHANED: Final = 121
EXIT_PROTOCOL: Final = 122
EXIT_REASONS: Final[dict[int, str]] = {
    EXIT_CHANNEL: "its socket to the worker was closed, most likely by a task that closed all file descriptors",
    EXIT_ORPHANED: "its worker was gone before it could start",
    EXIT_PROTOCOL: "it read a packet that it could not understand",
}

STDOUT: Final = 1
STDERR: Final = 2


class Ready(NamedTuple):
    """The child is prepared and waits for tasks."""

    pid: int
    exact: bool


class Failed(NamedTuple):
    """The initializer raised; the child ends by itself."""

    text: str


class Results(NamedTuple):
    """Outcomes of consecutive tasks, the first of which is `first`; who gets a Memory closes it."""

    first: int
    outcomes: list[bytes | Memory]
    microseconds: int  # of the whole packet, 0 when harvested


class Stopped(NamedTuple):
    """The task `index` and the later ones of its packet have not started and never will."""

    task_index: int


class Output(NamedTuple):
    """What the task `index` (0: none that is known) wrote to stream 1 or 2."""

    task_index: int
    stream: int
    data: bytes


class HungUp(NamedTuple):
    """The child holds its results socket no more (it died, or ran exec); stop watching `results_fd`."""


Record: TypeAlias = Ready | Failed | Results | Stopped | Output | HungUp


class Revoked(NamedTuple):
    """What a take-back found: nothing above `claim` and from the limit on will ever start."""

    claim: int
    limit: int
    unread: list[int]  # first indices of TASKS packets that were read back, in order
    functions: list[int]  # numbers of FUNCTION packets that were read back, in order; give them again before use


class Exit(NamedTuple):
    """How a child ended: by exit code or by signal; neither when somebody else has reaped it."""

    code: int | None
    signal: int | None


class PacketBroken(Exception):
    """The other side of a child's channel sent what cannot be understood."""


_packer = msgpack.Packer()


def pack(packet: Sequence[Any]) -> bytes:
    """One packet as bytes; TypeError if a payload in it is a Memory."""
    packed: bytes = _packer.pack(packet)
    return packed


def unpack(packet: bytes | memoryview) -> list[Any]:
    """The array that a packet is; its first element is the kind."""
    try:
        fields = msgpack.unpackb(packet)
    except ValueError as error:
        raise PacketBroken(f"a packet of {len(packet)} bytes is not msgpack: {error}") from error
    if not isinstance(fields, list) or not fields or not isinstance(fields[0], int):
        raise PacketBroken(f"a packet of {len(packet)} bytes is not an array that begins with its kind")
    return fields
