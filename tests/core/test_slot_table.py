"""Every state and event of a slot, from the whole product, and what a slot says of itself in each state."""

from itertools import product

import pytest

from netfutures.limits import LONG_TASK_S, PACKETS_AHEAD
from netfutures_worker.core.slot import TRANSITIONS, Event, Packet, Slot, State
from netfutures_worker.core.work import Holding, Work


def slot_in(state: State) -> Slot:
    slot = Slot(0)
    slot.state = state
    return slot


def packet(first: int, count: int) -> Packet:
    return Packet(first, Work(Holding(1, count, b"s" * 16), 0, b"d" * 16, None, [b""] * count))


@pytest.mark.parametrize(("state", "event"), [*product(State, Event)], ids=lambda each: each.name)
def test_a_pair_leads_where_the_table_says_or_is_refused(state: State, event: Event) -> None:
    slot = slot_in(state)
    if (state, event) in TRANSITIONS:
        slot.advance(event)
        assert slot.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(KeyError):
            slot.advance(event)
        assert slot.state is state


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) == set(TRANSITIONS.values())


@pytest.mark.parametrize("state", State)
def test_only_a_prepared_child_takes_tasks(state: State) -> None:
    slot = slot_in(state)
    assert slot.is_idle == (state is State.READY)
    assert slot.takes_ahead(0.0) == (state is State.READY)
    assert not slot.may_end


def test_a_child_that_may_get_no_more_tasks_ends_when_it_has_done_what_it_has() -> None:
    slot = slot_in(State.READY)
    slot.allowance = 0
    assert not slot.is_idle
    assert not slot.takes_ahead(0.0)
    assert slot.may_end
    slot.packets.append(packet(1, 1))
    assert not slot.may_end


def test_nothing_is_queued_behind_tasks_that_are_long_or_unknown_or_overdue() -> None:
    slot = slot_in(State.READY)
    slot.packets.append(packet(1, 1))
    assert slot.takes_ahead(LONG_TASK_S)
    assert not slot.takes_ahead(LONG_TASK_S * 1.01)
    assert not slot.takes_ahead(None)
    slot.is_overdue = True
    assert not slot.takes_ahead(0.0)


def test_a_child_holds_only_so_many_packets() -> None:
    slot = slot_in(State.READY)
    for at in range(PACKETS_AHEAD):
        assert slot.takes_ahead(0.0)
        slot.packets.append(packet(1 + at, 1))
    assert not slot.takes_ahead(0.0)


def test_a_packet_is_found_by_any_index_in_it() -> None:
    slot = slot_in(State.READY)
    slot.packets += [packet(1, 3), packet(10, 2)]
    assert [slot.packet_of(index) for index in (0, 1, 3, 4, 9, 10, 11, 12)] == [
        None,
        slot.packets[0],
        slot.packets[0],
        None,
        None,
        slot.packets[1],
        slot.packets[1],
        None,
    ]
