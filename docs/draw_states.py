"""Draws `docs/states.md` from the tables of states in the cores: `python docs/draw_states.py` writes the file."""

import ast
import inspect
from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from netfutures_broker.core import task
from netfutures_worker.core import slot

FILE = Path(__file__).with_name("states.md")

HEAD = """\
# States

Drawn from the `TRANSITIONS` tables of the cores by `python docs/draw_states.py`; a test compares. A pair of state and
event that is not in a table is an error, and nothing but the table moves a state.
"""
TASK = """\
## A task, at the broker

`broker/netfutures_broker/core/task.py`. The states of many tasks are the bytes of one array, so that a run of tasks
moves as one. The futures' own states (pending, running, cancelled, finished) are the standard library's, and live in
the client.
"""
SLOT = """\
## A slot, at a worker

`worker/netfutures_worker/core/slot.py`. A slot is room for one child; a child serves one session and ends with it.
"""


def sentences(module: ModuleType, kind: type[Enum]) -> dict[str, str]:
    """What stands below each member of an enumeration."""
    found: dict[str, str] = {}
    tree = ast.parse(inspect.getsource(module))
    body = next(each.body for each in tree.body if isinstance(each, ast.ClassDef) and each.name == kind.__name__)
    for statement, following in pairwise(body):
        match statement, following:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str() as text)):
                found[name] = " ".join(text.split())
    missing = [member.name for member in kind if member.name not in found]
    assert not missing, f"{module.__name__}.{kind.__name__} does not say what these mean: {missing}"
    return found


def diagram(transitions: Mapping[tuple[Enum, Enum], Enum]) -> str:
    """The table as a picture; events with the same way share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), following in transitions.items():
        arrows.setdefault((state.name, following.name), []).append(event.name.lower())
    first = next(iter(transitions))[0]
    lines = [f"    [*] --> {first.name}"]
    lines += [f"    {start} --> {end} : {', '.join(events)}" for (start, end), events in arrows.items()]
    leaving = {state for state, _ in transitions}
    lines += [f"    {state.name} --> [*]" for state in type(first) if state not in leaving]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def meanings(title: str, found: dict[str, str]) -> str:
    """A table of names and what they mean."""
    rows = [f"| {name} | {text} |" for name, text in found.items()]
    return "\n".join([f"| {title} | meaning |", "|---|---|", *rows])


def table(transitions: Mapping[tuple[Enum, Enum], Enum]) -> str:
    """The whole product of states and events; a dash stands for what cannot happen."""
    (state, event), _ = next(iter(transitions.items()))
    states, events = list(type(state)), list(type(event))
    rows = ["| state | " + " | ".join(each.name for each in events) + " |", "|---" * (len(events) + 1) + "|"]
    for each in states:
        following = [transitions.get((each, its_event)) for its_event in events]
        rows.append(f"| {each.name} | " + " | ".join("-" if to is None else to.name for to in following) + " |")
    return "\n".join(rows)


def section(text: str, module: Any) -> list[str]:
    """Everything about one table."""
    return [
        text,
        diagram(module.TRANSITIONS),
        meanings("state", sentences(module, module.State)),
        meanings("event", sentences(module, module.Event)),
        table(module.TRANSITIONS),
    ]


def drawn() -> str:
    """The whole file."""
    parts = [HEAD, *section(TASK, task), *section(SLOT, slot)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    FILE.write_text(drawn())
