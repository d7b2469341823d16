"""Virtual time: a heap of what will happen, one seeded source of randomness, and a trace that is hashed."""

import heapq
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any


class Timeline:
    """The only clock of a simulated world; nothing in it ever asks for another one."""

    def __init__(self, seed: int, show: Callable[[str, bytes], object]) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._planned = 0
        self._hash = blake2b(digest_size=16)
        self._show = show

    def at(self, time: float, action: Callable[..., object], *arguments: Any) -> None:
        """Something will happen at this time, or now if that is past; what is planned first happens first."""
        self._planned += 1
        heapq.heappush(self._heap, (max(time, self.now), self._planned, action, arguments))

    def after(self, delay_s: float, action: Callable[..., object], *arguments: Any) -> None:
        """Something will happen in so many seconds."""
        self.at(self.now + delay_s, action, *arguments)

    def step(self) -> bool:
        """The next thing happens; False if there is none."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heapq.heappop(self._heap)
        self.steps += 1
        action(*arguments)
        return True

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self.random.random() < probability

    def trace(self, who: str, what: str, content: bytes = b"") -> None:
        """A line of the trace, with what was received."""
        line = f"{self.now:.6f} {who} {what}"
        self._hash.update(line.encode() + content)
        self._show(line, content)

    @property
    def trace_hash(self) -> str:
        """Two runs in which the same things happened have the same."""
        return self._hash.hexdigest()
