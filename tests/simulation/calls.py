"""Calls of simulated users, and their runs in simulated children: what payloads and outcomes are made of."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

CALL: Final = struct.Struct("<cHIIII")
"""Tag, client, number of the call in the world, microseconds it takes, pieces it writes, size of its outcome."""
PIECE_BYTES: Final = 32 << 10
"""What a child writes in one packet at most."""
OUTCOME: Final = struct.Struct("<cII")
"""Tag, number of the call, number of the execution that this is the outcome of."""


class End(Enum):
    """How a call ended for its user."""

    RESULT = "result"
    LOST = "lost"
    BROKEN = "broken"
    CANCELLED = "cancelled"


@dataclass(eq=False)
class Call:
    """One call, as its client and the auditor know it."""

    number: int
    client: int
    microseconds: int
    written: int
    outcome_bytes: int
    retries: int | None
    function: int
    payload: bytes = b""
    is_handed_over: bool = False
    is_marked_running: bool = False
    end: End | None = None
    value: Execution | None = None
    executions: list[Execution] = field(default_factory=list)
    printed: Counter[int] = field(default_factory=Counter)
    """How many pieces of what its executions wrote the user has seen."""

    def pack(self, size_bytes: int) -> None:
        """Makes the payload, of at least this size."""
        head = CALL.pack(b"C", self.client, self.number, self.microseconds, self.written, self.outcome_bytes)
        self.payload = head.ljust(size_bytes, b"\0")


@dataclass(eq=False)
class Execution:
    """One run of a call in a child."""

    number: int
    call: Call
    dispatch: int
    worker: str
    child: int
    started_at: float
    ended_at: float | None = None
    is_finished: bool = False

    def outcome(self) -> bytes:
        """What the child hands back."""
        return OUTCOME.pack(b"R", self.call.number, self.number).ljust(self.call.outcome_bytes, b"\0")

    def text(self) -> bytes:
        """What the child writes, as often as its call says."""
        return (b"%d\n" % self.number).ljust(PIECE_BYTES if self.call.written > 1 else 0, b".")
