"""The poller: what is called when, in which order, and that nothing is called in vain."""

import os
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from netfutures.poller import FIRST, LAST, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


Pair = tuple[socket.socket, socket.socket]


def fill(sending: socket.socket) -> None:
    """Sends until nothing more fits."""
    try:
        while True:
            sending.send(bytes(65536))
    except BlockingIOError:
        return


def empty(receiving: socket.socket) -> None:
    """Reads until nothing is left."""
    try:
        while receiving.recv(65536):
            continue
    except BlockingIOError:
        return


def test_it_sleeps_until_something_is_readable(poller: Poller, pair: Pair) -> None:
    near, far = pair
    calls: list[str] = []
    poller.watch(near.fileno(), lambda: calls.append("near"))
    begin = time.monotonic()
    assert not poller.wait(0.02)
    assert time.monotonic() - begin >= 0.02
    far.send(b"x")
    assert poller.wait(None)
    assert poller.wait(0), "what was not read is still there"
    near.recv(1)
    assert not poller.wait(0)
    assert calls == ["near", "near"]


def test_the_least_time_is_not_cut_to_a_spin(poller: Poller) -> None:
    begin = time.monotonic()
    assert not poller.wait(0.0003)
    assert time.monotonic() - begin >= 0.0003


def test_an_edge_is_told_once(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.watch(near.fileno(), lambda: None, edge=True)
    far.send(b"x")
    assert poller.wait(0)
    assert not poller.wait(0)
    far.send(b"y")
    assert poller.wait(0)
    assert not poller.wait(0)


def test_a_hang_up_behind_an_edge_is_told_twice_and_no_more(poller: Poller, pair: Pair) -> None:
    near, far = pair
    read: list[bytes] = []
    poller.watch(near.fileno(), lambda: read.append(near.recv(100)), edge=True)
    far.send(b"last words")
    far.close()
    assert poller.wait(0)
    assert poller.wait(0)
    assert not poller.wait(0)
    assert read == [b"last words", b""]


def test_room_is_told_only_while_it_is_wanted(poller: Poller, pair: Pair) -> None:
    near, far = pair
    calls: list[str] = []
    poller.watch(near.fileno(), lambda: calls.append("near"), edge=True)
    assert not poller.wait(0), "there is room, and nobody wanted to know"
    fill(near)
    poller.watch_room(near.fileno(), True)
    assert not poller.wait(0)
    empty(far)
    assert poller.wait(0)
    poller.watch_room(near.fileno(), True)
    assert not poller.wait(0), "it was told"
    poller.watch_room(near.fileno(), False)
    fill(near)
    empty(far)
    assert not poller.wait(0)
    far.send(b"x")
    assert poller.wait(0)
    assert calls == ["near", "near"]


def test_what_comes_first_is_called_first(poller: Poller) -> None:
    calls: list[str] = []
    readable: list[int] = []
    for number in range(6):
        fd = os.eventfd(1)
        readable.append(fd)
        name = f"{'first' if number % 2 else 'last'} {number}"
        poller.watch(fd, partial(calls.append, name), order=FIRST if number % 2 else LAST)
    assert poller.wait(0)
    assert [call.split()[0] for call in calls] == ["first"] * 3 + ["last"] * 3
    for fd in readable:
        os.close(fd)


def test_what_a_call_forgets_is_not_called_in_the_same_turn(poller: Poller, pair: Pair) -> None:
    calls: list[str] = []

    def end_both() -> None:
        calls.append("called")
        for each in pair:
            poller.unwatch(each.fileno())

    for each in pair:
        poller.watch(each.fileno(), end_both)
        each.send(b"x")
    assert poller.wait(0)
    assert calls == ["called"]
    assert not poller.wait(0)


def test_a_number_that_is_used_again_has_no_past(poller: Poller, pair: Pair) -> None:
    near, far = pair
    poller.watch(near.fileno(), lambda: None, edge=True)
    poller.watch_room(near.fileno(), True)
    poller.unwatch(near.fileno())
    poller.unwatch(near.fileno())
    poller.watch(near.fileno(), lambda: None)
    far.send(b"x")
    poller.watch_room(near.fileno(), False)
    assert poller.wait(0)
    assert poller.wait(0), "it is watched by level now"
