"""What waits to be sent to one party, and what was sent and may not have arrived; pure.

Batches are numbered by the conversation. What the other side has acknowledged is in its core; all else is repeated, in
its old order, when the party comes back with a new connection.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from netfutures.limits import BATCH_BYTES_MAX, BATCH_TASKS_MAX

Item = TypeVar("Item")


class Outbox(Generic[Item]):
    """A queue of items, and the batches of them that are not acknowledged."""

    __slots__ = ("sent", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Item] = deque()
        self.sent: deque[tuple[int, list[Item]]] = deque()

    def put(self, item: Item) -> None:
        """Adds an item."""
        self.waiting.append(item)

    def take_batch(self, sequence: int, sizes: Callable[[Item], tuple[int, int]]) -> list[Item]:
        """The items of the next message, which will bear this sequence number: all of one class, within its limits.

        `sizes` tells how many tasks and bytes an item is; (0, 0) marks one that travels alone.
        """
        waiting = self.waiting
        items = [waiting.popleft()]
        if not waiting:
            self.sent.append((sequence, items))
            return items
        tasks, size_bytes = sizes(items[0])
        kind = type(items[0])
        while tasks and waiting and type(waiting[0]) is kind and size_bytes < BATCH_BYTES_MAX:
            more_tasks, more_bytes = sizes(waiting[0])
            if tasks + more_tasks > BATCH_TASKS_MAX or size_bytes + more_bytes > 2 * BATCH_BYTES_MAX:
                break
            tasks += more_tasks
            size_bytes += more_bytes
            items.append(waiting.popleft())
        self.sent.append((sequence, items))
        return items

    def acknowledged(self, upto: int) -> list[Item]:
        """The items that the other side has, since this was last asked."""
        items: list[Item] = []
        sent = self.sent
        while sent and sent[0][0] <= upto:
            items += sent.popleft()[1]
        return items

    def repeat_sent(self) -> None:
        """The connection is another one: what was not acknowledged has to go again, before all else."""
        while self.sent:
            self.waiting.extendleft(reversed(self.sent.pop()[1]))
