"""Batches of what waits, and the repetition of what was not acknowledged."""

from netfutures.limits import BATCH_BYTES_MAX, BATCH_TASKS_MAX
from netfutures.outbox import Outbox

Item = str | int


def small(item: Item) -> tuple[int, int]:
    return 1, 10


def filled(*items: Item) -> Outbox[Item]:
    outbox: Outbox[Item] = Outbox()
    for item in items:
        outbox.put(item)
    return outbox


def test_what_waits_leaves_together_in_its_order() -> None:
    outbox = filled("a", "b", "c")
    assert outbox.take_batch(1, small) == ["a", "b", "c"]
    assert not outbox.waiting


def test_items_of_another_class_wait_for_the_next_batch() -> None:
    outbox = filled("a", "b", 1, "c")
    assert [outbox.take_batch(sequence, small) for sequence in (1, 2, 3)] == [["a", "b"], [1], ["c"]]


def test_an_item_without_a_size_travels_alone() -> None:
    outbox = filled("a", "b")
    assert outbox.take_batch(1, lambda item: (0, 0)) == ["a"]


def test_a_batch_has_at_most_so_many_tasks() -> None:
    outbox = filled("a", "b", "c")
    assert outbox.take_batch(1, lambda item: (BATCH_TASKS_MAX // 2, 10)) == ["a", "b"]


def test_a_batch_is_closed_when_it_has_enough_bytes() -> None:
    outbox = filled("a", "b", "c")
    assert outbox.take_batch(1, lambda item: (1, BATCH_BYTES_MAX)) == ["a"]
    assert outbox.take_batch(2, lambda item: (1, BATCH_BYTES_MAX // 2)) == ["b", "c"]


def test_a_large_item_does_not_join_a_batch_that_is_almost_full() -> None:
    outbox = filled("a", "b")
    sizes = {"a": (1, BATCH_BYTES_MAX - 1), "b": (1, 2 * BATCH_BYTES_MAX)}
    assert outbox.take_batch(1, lambda item: sizes[str(item)]) == ["a"]
    assert outbox.take_batch(2, lambda item: sizes[str(item)]) == ["b"]


def test_acknowledged_items_are_told_once() -> None:
    outbox = filled("a", 1, "b")
    for sequence in (4, 6, 9):
        outbox.take_batch(sequence, small)
    assert outbox.acknowledged(3) == []
    assert outbox.acknowledged(7) == ["a", 1]
    assert outbox.acknowledged(7) == []
    assert outbox.acknowledged(9) == ["b"]


def test_what_was_not_acknowledged_goes_again_before_all_else_in_its_old_order() -> None:
    outbox = filled("a", "b", 1, "c")
    outbox.take_batch(1, small)
    outbox.take_batch(2, small)
    outbox.acknowledged(0)
    outbox.put("d")
    outbox.repeat_sent()
    assert list(outbox.waiting) == ["a", "b", 1, "c", "d"]
    assert not outbox.sent


def test_what_was_acknowledged_does_not_go_again() -> None:
    outbox = filled("a", 1)
    outbox.take_batch(1, small)
    outbox.take_batch(2, small)
    outbox.acknowledged(1)
    outbox.repeat_sent()
    assert list(outbox.waiting) == [1]
