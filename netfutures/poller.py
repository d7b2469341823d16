"""Waits for descriptors and calls what watches them; the loop of each program stands on it."""

import select
from collections.abc import Callable
from typing import Final

FIRST: Final = 0
"""Watched before others: what a task wrote is read before its result."""
LAST: Final = 1


class Poller:
    """An epoll, and for each descriptor in it what to call."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Callable[[], None]]] = {}
        self._awaiting_room: set[int] = set()
        self._muted: set[int] = set()
        self._edges: set[int] = set()
        """Those watched edge-triggered that have not hung up."""

    def watch(self, fd: int, call: Callable[[], None], *, order: int = LAST, edge: bool = False) -> None:
        """Calls `call` when the descriptor is readable or hung up; with `edge` only when that is news.

        A hang-up is told twice: the first time there may be something to read before it, which hides it.
        """
        self._watched[fd] = (order, call)
        if edge:
            self._edges.add(fd)
        self._epoll.register(fd, select.EPOLLIN | (select.EPOLLET if edge else 0))

    def watch_room(self, fd: int, wanted: bool) -> None:
        """Also calls when an edge-watched descriptor can be written to, as long as that is wanted."""
        if (fd in self._awaiting_room) is not wanted:
            (self._awaiting_room.add if wanted else self._awaiting_room.discard)(fd)
            self._modify(fd)

    def mute(self, fd: int, wanted: bool) -> None:
        """Does not call when an edge-watched descriptor is readable, as long as that is wanted."""
        if (fd in self._muted) is not wanted:
            (self._muted.add if wanted else self._muted.discard)(fd)
            self._modify(fd)

    def _modify(self, fd: int) -> None:
        readable = 0 if fd in self._muted else select.EPOLLIN
        writable = select.EPOLLOUT if fd in self._awaiting_room else 0
        self._epoll.modify(fd, select.EPOLLET | readable | writable)

    def unwatch(self, fd: int) -> None:
        """Forgets a descriptor, which must still be open; one that is not watched is none of our business."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._edges.discard(fd)
            self._awaiting_room.discard(fd)
            self._muted.discard(fd)

    def wait(self, timeout_s: float | None) -> bool:
        """Sleeps until something is readable or the time is over, and calls what watches it; whether anything was."""
        events = self._epoll.poll(-1 if timeout_s is None else timeout_s)
        watched = self._watched
        if len(events) > 1:
            events.sort(key=lambda event: watched[event[0]][0] if event[0] in watched else LAST)
        for fd, event in events:
            entry = watched.get(fd)
            if entry is None:
                continue
            if event & select.EPOLLHUP and fd in self._edges:
                self._edges.discard(fd)
                self._epoll.modify(fd, select.EPOLLIN | select.EPOLLET)
            entry[1]()
        return bool(events)

    def close(self) -> None:
        """Gives the epoll up."""
        self._epoll.close()
