"""Whoever waits for the only task looks at the link, over a real socket pair; the test plays the I/O thread."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from future_stage import CALL
from netfutures.client.doors import settle
from netfutures.client.functions import Function
from netfutures.client.future import Future, release_waiters
from netfutures.client.glance import Glance
from netfutures.loss import lost_outcome
from netfutures.payload import dump_value
from netfutures.stream import StreamLink
from netfutures.wire import Envelope, Message, Printed, Results

LIMIT_S = 20


class Stage:
    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.link = StreamLink(near, b"broker")
        self.broker = StreamLink(far, b"client")
        self.woken = threading.Event()
        self.glance = Glance(self.link, self.woken.set)
        self.glance.naps = 1
        self.sent = 0

    def future(self, number: int) -> Future[int]:
        future: Future[int] = Future(Function(b"", True, "score", None, os.getpid()), CALL)
        future._number = number
        return future

    def say(self, message: Message) -> None:
        self.sent += 1
        self.broker.send(b"", Envelope(1, self.sent, 0, message))

    def received(self) -> list[Message]:
        """What the I/O thread would find."""
        self.link.mark_readable()
        messages = []
        while (received := self.link.receive()) is not None:
            messages.append(received.envelope.message)
        return messages


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.link.close()
    stage.broker.close()


def outcome(value: int) -> bytes:
    return dump_value(value)


def test_the_outcome_is_seen_and_stays_for_the_io_thread(stage: Stage) -> None:
    future = stage.future(7)
    stage.say(Results([(7, [outcome(42)])]))
    stage.glance.wait(future, None)
    assert future.done()
    assert future.result() == 42
    assert not stage.woken.is_set()
    assert stage.glance.unread == 1
    assert stage.received() == [Results([[7, [outcome(42)]]])]  # type: ignore[list-item]  # read without checks
    settle([future], [outcome(42)])  # As the I/O thread does; nothing changes.
    assert future.result() == 42


def test_what_was_seen_before_and_is_not_read_yet_does_not_stand_in_the_way(stage: Stage) -> None:
    first, second, third = (stage.future(number) for number in (1, 2, 3))
    for future in (first, second):
        stage.say(Results([(future._number or 0, [outcome(5)])]))
        stage.glance.wait(future, None)
        assert future.done()
    assert not stage.woken.is_set()
    assert stage.glance.unread == 2
    # Two of them are rather the sign that the I/O thread has not had its turn for long.
    stage.say(Results([(3, [outcome(5)])]))
    stage.glance.wait(third, None)
    assert not third.done()
    assert stage.woken.is_set()


@pytest.mark.parametrize(
    "message",
    [
        Printed([(7, 1, b"hello\n")]),
        Results([(8, [dump_value(1)])]),
        Results([(7, [dump_value(1), dump_value(2)])]),
        Results([(7, [lost_outcome({})])]),
        Results([(7, [b"x" * (64 << 10)])]),
    ],
    ids=["output", "another's outcome", "several outcomes", "a loss", "a large outcome"],
)
def test_all_else_is_left_to_the_io_thread(stage: Stage, message: Message) -> None:
    future = stage.future(7)
    stage.say(message)
    stage.glance.wait(future, None)
    assert not future.done()
    assert stage.woken.is_set()
    (left,) = stage.received()
    assert type(left) is type(message)


def test_output_in_front_of_the_outcome_is_left_to_the_io_thread(stage: Stage) -> None:
    future = stage.future(7)
    stage.say(Printed([(7, 1, b"hello\n")]))
    stage.say(Results([(7, [outcome(1)])]))
    stage.glance.wait(future, None)
    assert not future.done()
    assert len(stage.received()) == 2


def test_a_future_with_callbacks_is_left_to_the_io_thread(stage: Stage) -> None:
    future = stage.future(7)
    future.add_done_callback(lambda _: pytest.fail("not on this thread"))
    stage.say(Results([(7, [outcome(1)])]))
    stage.glance.wait(future, None)
    assert not future.done()
    assert stage.woken.is_set()


def test_nothing_is_believed_while_the_io_thread_is_awake(stage: Stage) -> None:
    future = stage.future(7)
    stage.glance.naps = 2
    stage.say(Results([(7, [outcome(1)])]))
    stage.glance.wait(future, None)
    assert not future.done()
    assert stage.woken.is_set()


def test_the_rest_of_a_message_is_not_taken_for_one(stage: Stage) -> None:
    future = stage.future(7)
    whole = Results([(7, [outcome(1)])])
    stage.broker._socket.send(b"\1\0\0\0\xff\0\0\0part of a message")
    assert stage.received() == []
    stage.say(whole)
    stage.glance.wait(future, None)
    assert not future.done()


def test_it_lasts_a_moment_and_gives_up(stage: Stage) -> None:
    future = stage.future(7)
    stage.glance.wait(future, None)
    assert not future.done()
    assert stage.woken.is_set()
    assert not stage.glance.is_on
    assert future.watched().wakers == []


def test_whoever_looks_returns_when_the_future_is_settled_elsewhere(stage: Stage) -> None:
    future = stage.future(7)

    def settle_it() -> None:
        while not future.watched().wakers and not stage.woken.is_set():
            os.sched_yield()
        settle([future], [outcome(3)])
        release_waiters()

    other = threading.Thread(target=settle_it)
    other.start()
    stage.glance.wait(future, None)
    other.join(LIMIT_S)
    assert future.result() == 3
    # A bell that was rung late disturbs nobody: the next one who looks sees the outcome, at the latest in the next try.
    again = stage.future(8)
    stage.say(Results([(8, [outcome(4)])]))
    for _ in range(2):
        stage.glance.wait(again, None)
    assert again.result(timeout=0) == 4


def test_one_thread_at_a_time(stage: Stage) -> None:
    assert stage.glance._is_free.acquire(False)
    stage.say(Results([(7, [outcome(1)])]))
    future = stage.future(7)
    stage.glance.wait(future, None)
    assert not future.done()
    assert not stage.woken.is_set()
