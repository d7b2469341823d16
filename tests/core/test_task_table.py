"""Every state and event of a task, from the whole product: what the table says happens, all else is a bug of ours."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfutures.wire import LocalProtocolError
from netfutures_broker.core.task import TRANSITIONS, Event, State, advance


@pytest.mark.parametrize(("state", "event"), [*product(State, Event)], ids=lambda each: each.name)
def test_a_pair_leads_where_the_table_says_or_is_refused(state: State, event: Event) -> None:
    states = bytearray([state])
    if (state, event) in TRANSITIONS:
        advance(states, 0, 1, event)
        assert states[0] == TRANSITIONS[state, event]
    else:
        with pytest.raises(LocalProtocolError, match=f"{event.name} happened to a task in state {state.name}"):
            advance(states, 0, 1, event)
        assert states[0] == state


@given(st.lists(st.sampled_from(State), min_size=1, max_size=9), st.sampled_from(Event), st.data())
@settings(deadline=None, database=None, max_examples=50)
def test_many_tasks_move_just_as_each_would_alone(states: list[State], event: Event, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(states)))
    stop = data.draw(st.integers(start, len(states)))
    together = bytearray(states)
    alone = bytearray(states)
    is_legal = all((state, event) in TRANSITIONS for state in states[start:stop])
    if not is_legal:
        with pytest.raises(LocalProtocolError):
            advance(together, start, stop, event)
        assert together == bytearray(states)
        return
    advance(together, start, stop, event)
    for at in range(start, stop):
        advance(alone, at, at + 1, event)
    assert together == alone


def test_a_new_task_is_queued() -> None:
    assert State(bytearray(1)[0]) is State.QUEUED


def test_every_state_can_be_reached_and_only_the_last_one_is_final() -> None:
    reached = {State.QUEUED} | set(TRANSITIONS.values())
    assert reached == set(State)
    assert {state for state in State if all(state is not its_state for its_state, _ in TRANSITIONS)} == {State.GONE}


def test_every_event_can_happen() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
