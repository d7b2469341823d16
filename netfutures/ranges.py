"""Stretches of tasks: found among marks, and joined; pure."""

from netfutures.fields import Dispatched

HELD = 1
"""Mark of a task that its worker has to run, under a dispatch that is the task's current one."""
KEPT = 2
"""Mark of a task whose outcome its worker keeps until the client has it."""
OVER = 0
"""Mark of a task that a dispatch no longer concerns."""


def parts_of(marks: bytearray, mark: int, start: int, stop: int) -> list[tuple[int, int]]:
    """The stretches (start, count) of `marks[start:stop]` that consist of `mark`; a peer may have named any stop."""
    count = stop - start
    if marks.count(mark, start, stop) == count > 0:
        return [(start, count)]
    stop = min(stop, len(marks))
    found: list[tuple[int, int]] = []
    while True:
        start = marks.find(mark, start, stop)
        if start < 0:
            return found
        end = start + 1
        while end < stop and marks[end] == mark:
            end += 1
        found.append((start, end - start))
        start = end


def merge(ranges: list[Dispatched]) -> list[Dispatched]:
    """The same ranges in order, with neighbours joined."""
    if len(ranges) < 2:
        return ranges
    merged: list[Dispatched] = []
    for base, offset, count in sorted(ranges):
        if merged and merged[-1][0] == base and merged[-1][1] + merged[-1][2] == offset:
            merged[-1] = (base, merged[-1][1], merged[-1][2] + count)
        else:
            merged.append((base, offset, count))
    return merged
