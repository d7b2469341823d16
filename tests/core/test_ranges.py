"""Stretches of marks, found and joined; checked against the plainest way to do it."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from netfutures.ranges import HELD, KEPT, OVER, merge, parts_of

marks_strategy = st.lists(st.sampled_from([OVER, HELD, KEPT]), max_size=12).map(bytearray)


def test_all_of_one_mark_is_one_stretch() -> None:
    assert parts_of(bytearray([HELD] * 5), HELD, 1, 4) == [(1, 3)]


def test_stretches_lie_between_other_marks() -> None:
    marks = bytearray([HELD, HELD, OVER, HELD, KEPT, HELD])
    assert parts_of(marks, HELD, 0, 6) == [(0, 2), (3, 1), (5, 1)]
    assert parts_of(marks, KEPT, 0, 6) == [(4, 1)]
    assert parts_of(marks, HELD, 1, 4) == [(1, 1), (3, 1)]


def test_an_empty_range_has_no_stretches() -> None:
    assert parts_of(bytearray([HELD]), HELD, 0, 0) == []
    assert parts_of(bytearray(), HELD, 0, 0) == []


def test_what_a_peer_names_beyond_the_end_is_not_there() -> None:
    marks = bytearray([HELD, HELD])
    assert parts_of(marks, HELD, 1, 1 << 61) == [(1, 1)]
    assert parts_of(marks, HELD, 5, 9) == []
    assert parts_of(marks, HELD, 1 << 61, 1 << 62) == []


@given(marks_strategy, st.sampled_from([OVER, HELD, KEPT]), st.integers(0, 14), st.integers(0, 14))
@settings(deadline=None, database=None, max_examples=60)
def test_stretches_are_just_the_places_with_the_mark(marks: bytearray, mark: int, start: int, stop: int) -> None:
    found = parts_of(marks, mark, start, stop)
    places = [at for first, count in found for at in range(first, first + count)]
    assert places == [at for at in range(start, min(stop, len(marks))) if marks[at] == mark]
    assert all(first + count < following for (first, count), (following, _) in pairwise(found))


def test_neighbours_are_joined_and_sorted() -> None:
    assert merge([(1, 5, 2), (1, 0, 5), (2, 0, 1), (1, 8, 1)]) == [(1, 0, 7), (1, 8, 1), (2, 0, 1)]


def test_ranges_of_different_dispatches_stay_apart() -> None:
    assert merge([(1, 0, 2), (3, 2, 1)]) == [(1, 0, 2), (3, 2, 1)]


def test_nothing_and_one_are_left_alone() -> None:
    assert merge([]) == []
    assert merge([(4, 1, 2)]) == [(4, 1, 2)]
