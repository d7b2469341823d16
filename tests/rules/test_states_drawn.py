"""The drawing of the states is that of the tables in the cores."""

import runpy
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(CHECKOUT / "docs" / "draw_states.py"))


def test_the_file_is_what_the_tables_draw(script: dict[str, Any]) -> None:
    written = (CHECKOUT / "docs" / "states.md").read_text()
    assert written == script["drawn"](), "a table has changed: run 'python docs/draw_states.py'"


def test_the_drawing_tells_every_state_event_and_way(script: dict[str, Any]) -> None:
    written = script["drawn"]()
    for module in (script["task"], script["slot"]):
        for member in (*module.State, *module.Event):
            assert f"| {member.name} |" in written
        for (state, event), following in module.TRANSITIONS.items():
            arrows = [line for line in written.splitlines() if f"{state.name} --> {following.name} :" in line]
            assert any(event.name.lower() in line for line in arrows)
