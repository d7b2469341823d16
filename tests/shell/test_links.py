"""What every link owes its shell, whatever carries it: a list, an inherited socket, ZeroMQ with and without keys."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from link_stage import KINDS, Ends, chunk, linked, messages, numbered, same
from netfutures.wire import Envelope

MANY = 2000


@pytest.fixture(params=KINDS)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    # A socket's path has to be short, and that of `tmp_path` may be long.
    with TemporaryDirectory(prefix="nf") as folder, linked(request.param, Path(folder)) as ends:
        yield ends


def test_messages_arrive_as_they_were_sent_both_ways(ends: Ends) -> None:
    for number, message in enumerate(messages(), 2):
        envelope = Envelope(3, number, number - 1, message)
        ends.far.send(b"", envelope)
        came = ends.take(ends.near)
        assert (came.route, same(came.envelope, envelope)) == (ends.route, True)
        ends.near.send(ends.route, envelope)
        assert same(ends.take(ends.far).envelope, envelope)


def test_thousands_arrive_in_order_both_ways(ends: Ends) -> None:
    for number in range(1, MANY):
        ends.far.send(b"", numbered(number))
        ends.near.send(ends.route, numbered(number))
    assert [ends.take(ends.near).envelope for _ in range(1, MANY)] == [numbered(number) for number in range(1, MANY)]
    assert [ends.take(ends.far).envelope for _ in range(1, MANY)] == [numbered(number) for number in range(1, MANY)]


def test_a_sender_never_waits_for_a_reader(ends: Ends) -> None:
    for number in range(1, 17):
        ends.near.send(ends.route, chunk(number))
        ends.far.send(b"", chunk(number))
        ends.far.send(b"", numbered(number))
    for number in range(1, 17):
        assert same(ends.take(ends.far).envelope, chunk(number))
        assert same(ends.take(ends.near).envelope, chunk(number))
        assert same(ends.take(ends.near).envelope, numbered(number))


def test_nothing_is_there_until_something_was_sent(ends: Ends) -> None:
    assert ends.near.receive() is None
    assert ends.far.receive() is None
    assert not ends.near.is_ready()
    assert not ends.far.is_ready()
    ends.far.send(b"", numbered(2))
    ends.wait_until(ends.near.is_ready)
    assert ends.near.receive() is not None
    assert ends.near.receive() is None
    assert not ends.near.is_ready()
