"""The three numbers in front of every message: what is next, what is old, what was lost, and when to acknowledge."""

import pytest

from netfutures.conversation import Conversation, Verdict
from netfutures.limits import ACKNOWLEDGE_AFTER_S, WINDOW_BATCHES


@pytest.fixture
def ends() -> tuple[Conversation, Conversation]:
    return Conversation(3), Conversation(3)


def test_messages_that_arrive_in_order_are_fresh(ends: tuple[Conversation, Conversation]) -> None:
    one, other = ends
    for _ in range(3):
        assert other.accept(*one.stamp()) is Verdict.FRESH
        assert one.accept(*other.stamp()) is Verdict.FRESH
    assert one.acknowledged == 3


def test_a_repeated_message_is_stale(ends: tuple[Conversation, Conversation]) -> None:
    one, other = ends
    numbers = one.stamp()
    assert other.accept(*numbers) is Verdict.FRESH
    assert other.accept(*numbers) is Verdict.STALE


def test_a_message_of_an_older_connection_is_stale() -> None:
    assert Conversation(3).accept(2, 1, 0) is Verdict.STALE


def test_a_message_after_a_lost_one_shows_the_gap(ends: tuple[Conversation, Conversation]) -> None:
    one, other = ends
    one.stamp()
    assert other.accept(*one.stamp()) is Verdict.GAP
    assert other.received == 0


def test_a_message_of_a_newer_connection_shows_that_its_hello_was_lost() -> None:
    assert Conversation(3).accept(4, 1, 0) is Verdict.GAP


def test_an_acknowledgement_of_what_was_never_sent_is_a_gap(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    one.stamp()
    assert one.accept(3, 1, 2) is Verdict.GAP


def test_what_shows_a_gap_leaves_no_trace(ends: tuple[Conversation, Conversation]) -> None:
    one, other = ends
    one.stamp(batch=True)
    assert one.accept(3, 2, 1) is Verdict.GAP
    assert (one.received, one.acknowledged, len(one.unacknowledged)) == (0, 0, 1)
    assert one.accept(*other.stamp()) is Verdict.FRESH


def test_unacknowledged_batches_close_the_window_and_an_acknowledgement_opens_it(
    ends: tuple[Conversation, Conversation],
) -> None:
    one, other = ends
    for _ in range(WINDOW_BATCHES):
        assert one.is_open
        other.accept(*one.stamp(batch=True))
    assert not one.is_open
    one.accept(*other.stamp())
    assert one.is_open


def test_messages_that_are_no_batches_leave_the_window_open(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    for _ in range(100):
        one.stamp()
    assert one.is_open


def test_nothing_is_owed_at_first(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    assert not one.must_acknowledge(1e9)
    assert one.acknowledge_at is None


def test_an_acknowledgement_goes_alone_after_a_while(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    one.owe(10.0)
    assert one.acknowledge_at == 10.0 + ACKNOWLEDGE_AFTER_S
    assert not one.must_acknowledge(10.0 + ACKNOWLEDGE_AFTER_S / 2)
    assert one.must_acknowledge(10.0 + ACKNOWLEDGE_AFTER_S)


def test_the_time_counts_from_the_first_batch_that_is_owed(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    one.window = 100
    one.owe(10.0)
    one.owe(10.0 + ACKNOWLEDGE_AFTER_S / 2)
    assert one.acknowledge_at == 10.0 + ACKNOWLEDGE_AFTER_S


def test_a_full_window_of_the_other_side_is_acknowledged_at_once(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    for _ in range(WINDOW_BATCHES):
        assert not one.must_acknowledge(10.0)
        one.owe(10.0)
    assert one.must_acknowledge(10.0)


def test_whatever_is_sent_acknowledges(ends: tuple[Conversation, Conversation]) -> None:
    one, _ = ends
    one.owe(10.0)
    one.stamp()
    assert one.acknowledge_at is None
    assert not one.must_acknowledge(1e9)
