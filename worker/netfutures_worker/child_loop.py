"""The child's inner loop: claims tasks one after another, runs them and publishes what came; the hottest of all.

No system call and no object that could be spared: results go into the ring, and one note tells of a whole packet.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import msgpack

from netfutures.payload import dump_error, dump_transfer_error, dump_value, load_call, load_function
from netfutures_worker.channel import (
    CLAIM,
    END,
    INLINE_BYTES_MAX,
    LIMIT,
    NOTE,
    READ,
    RESULT,
    RESUME,
    RING_BYTES,
    START,
    STOPPED,
)
from netfutures_worker.child_output import Outgoing
from netfutures_worker.memory import Buffer, Memory

# Where the loop stands; only in the last three may an interrupt be raised, as it is that task's then.
OURS: Final = 0
FUNCTION: Final = 1
ARGUMENTS: Final = 2
BODY: Final = 3
VALUE: Final = 4

_MAPPED_BYTES_MIN: Final = 1 << 20
_MAPPINGS_MAX: Final = 256

_NOTHING: Final = dump_value(None)
_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class _FunctionUnknown(Exception):
    """The function's packet was taken back, so this task cannot start."""


def open_memory(memory: Memory) -> bytearray | mmap.mmap:
    """What another process handed over, writable and private to this one; takes the descriptor."""
    try:
        if memory.size >= _MAPPED_BYTES_MIN and len(_mappings) < _MAPPINGS_MAX:
            mapping = mmap.mmap(memory.fd, memory.size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
            _mappings.add(mapping)
            return mapping
        return memory.read_all()
    finally:
        memory.close()


class TaskLoop:
    """Functions that this child knows, and the region of the ring that it writes."""

    __slots__ = (
        "_first", "_kept", "_loose", "_noted", "_outgoing", "_pack", "_ring", "_skipped_to", "_start", "_words",
    )  # fmt: skip

    def __init__(self, outgoing: Outgoing, words: memoryview, ring: memoryview) -> None:
        self._outgoing = outgoing
        self._words = words
        self._ring = ring
        self._pack: Callable[[object], bytes] = msgpack.Packer().pack
        self._kept: dict[int, Callable[..., Any]] = {}  # cacheable functions, loaded
        self._loose: dict[int, tuple[Buffer, bool]] = {}  # payloads of all others
        self._first = 0  # index of the open region's first result, 0: none is open
        self._start = 0  # and the offset where it begins
        self._skipped_to = 0  # offset below which all was read when the ring's begin was gone back to
        self._noted = 0.0  # when the last note was sent, or the packet began

    def learn(self, number: int, payload: Buffer, cacheable: bool) -> None:
        """Take in a function; it is loaded by the first task that needs it, as loading may run users' code."""
        self._kept.pop(number, None)
        self._loose[number] = payload, cacheable

    def run(self, number: int, first: int, payloads: list[Buffer]) -> None:
        """Run one packet: claim, look at the limit, run, publish, for each task; then one note."""
        words, ring, pack, outgoing = self._words, self._ring, self._pack, self._outgoing
        function = self._kept.get(number)
        fresh = function is None
        alone = len(payloads) == 1  # Then the ring would only be a detour.
        stage = OURS
        index = first
        stopped = True
        position = room = base = 0
        args: Any
        kwargs: Any
        outgoing.busy = True
        self._noted = perf_counter()
        for payload in payloads:
            words[CLAIM] = index
            if index >= words[LIMIT] and index < words[RESUME]:
                break
            try:
                if fresh:
                    stage = FUNCTION
                    function = self._load(number)
                    fresh = number not in self._kept
                stage = ARGUMENTS
                args, kwargs = load_call(payload)
                stage = BODY
                value = function(*args, **kwargs)  # type: ignore[misc]
                stage = VALUE
                outcome = _NOTHING if value is None else dump_value(value)
                stage = OURS
            except _FunctionUnknown:
                break
            except BaseException as error:
                failed, stage = stage, OURS
                if outgoing.copied:
                    outgoing.end_copy(error)
                outcome = _failure(failed, error)
            args = kwargs = value = None
            if outgoing.unsettled:
                outgoing.settle()
            if len(outcome) > INLINE_BYTES_MAX or (end := position + len(record := pack(outcome))) > room:
                position, room, base = self._publish_apart(index, outcome, alone)
            else:
                ring[position:end] = record
                words[END] = base + end
                position = end
            index += 1
        else:
            stopped = False
        if not alone:
            outgoing.check_copy()
            self._note(index)
        outgoing.busy = False
        if stopped:
            words[CLAIM] = index - 1
            outgoing.send(pack((STOPPED, index)))

    def _load(self, number: int) -> Callable[..., Any]:
        """The function, unpickled anew unless it may be kept."""
        loose = self._loose.get(number)
        if loose is None:
            raise _FunctionUnknown
        payload, cacheable = loose
        function: Callable[..., Any] = load_function(payload)
        if cacheable:
            self._kept[number] = function
            del self._loose[number]
        return function

    def _publish_apart(self, index: int, outcome: bytes, alone: bool) -> tuple[int, int, int]:
        """Publish a result that does not fit the open region; returns position, room and base of the next."""
        self._outgoing.check_copy()
        self._note(index)
        if len(outcome) <= INLINE_BYTES_MAX and not alone:
            opened = self._open_region(index, self._pack(outcome))
            if opened:
                return opened
        microseconds = self._lap_microseconds()
        if len(outcome) <= INLINE_BYTES_MAX:
            self._outgoing.send(self._pack((RESULT, index, outcome, microseconds)))
            return 0, 0, 0
        try:
            memory = Memory.of(outcome)
        except (OSError, MemoryError) as error:
            return self._publish_apart(index, dump_error(error), alone)
        self._outgoing.send_with(self._pack((RESULT, index, len(outcome), microseconds)), memory.fd)
        memory.close()
        return 0, 0, 0

    def _open_region(self, index: int, record: bytes) -> tuple[int, int, int] | None:
        """Begin a region with the result of `index`, where there is most room; None if it does not fit there."""
        words = self._words
        tail, read = words[END], max(words[READ], self._skipped_to)
        lap_end = tail - tail % RING_BYTES + RING_BYTES
        if read == tail:
            # All is consumed, so it begins at the ring's begin: that is in the cache, the rest need not be in memory.
            if tail % RING_BYTES:
                tail, lap_end = lap_end, lap_end + RING_BYTES
            # The worker does not count what is skipped here as read before it has read what comes after it.
            read = self._skipped_to = tail
        bound = read + RING_BYTES
        if min(lap_end, bound) - tail < bound - lap_end:
            tail, lap_end = lap_end, lap_end + RING_BYTES
        base = lap_end - RING_BYTES
        record = self._pack(index) + record
        position = tail - base
        end = position + len(record)
        room = min(lap_end, bound) - base
        if end > room:
            return None
        self._ring[position:end] = record
        # In this order: a worker that reads END, then START, never takes one region's end for another's.
        words[START] = tail
        words[END] = base + end
        self._first, self._start = index, tail
        return end, room, base

    def _note(self, index: int) -> None:
        """Tell of the open region, which ends before `index`, and close it."""
        first = self._first
        if first:
            self._first = 0
            note = NOTE, first, index - first, self._start, self._words[END], self._lap_microseconds()
            self._outgoing.send(self._pack(note))

    def _lap_microseconds(self) -> int:
        """Time since it was last asked in this packet."""
        now = perf_counter()
        microseconds = int((now - self._noted) * 1e6)
        self._noted = now
        return microseconds


def _failure(stage: int, error: BaseException) -> bytes:
    """The outcome of a task that raised, by how far it had come."""
    if isinstance(error, KeyboardInterrupt):
        outcome = dump_error(error)  # No fault of the pickle that was being loaded.
    elif stage == FUNCTION:
        outcome = dump_transfer_error("the function", error)
    elif stage == ARGUMENTS:
        outcome = dump_transfer_error("the arguments", error)
    else:
        outcome = dump_error(error)
    with contextlib.suppress(Exception):
        error.__traceback__ = None  # Its frames would keep the task's objects alive.
    return outcome
