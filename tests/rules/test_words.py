"""The names of files, classes and functions use the project's words and none of the banned ones."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from source_files import Source, python_sources, refuse

BANNED = {"manager", "managers", "handler", "handlers", "controller", "util", "utils", "utility", "helper", "helpers"}
BANNED |= {"common", "misc", "base", "mixin", "data", "info", "job", "jobs", "node", "engine", "hub", "interchange"}
BANNED |= {"vanilla", "default", "abstract"}
# The broker's core is one; nothing else is.
SCHEDULER_MAY_STAND_IN = ("broker/netfutures_broker/", "tests/", "benchmarks/", "netfutures/embedded_main.py")

Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def word_faults(source: Source) -> list[str]:
    return [f"{source.path}: {name} has {bad!r}" for name in names(source) for bad in bad_words(source, name)]


def names(source: Source) -> Iterator[str]:
    yield from Path(source.path).with_suffix("").parts
    yield from (node.name for node in ast.walk(source.tree) if isinstance(node, Named))


def bad_words(source: Source, name: str) -> Iterator[str]:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    if words[-2:] == ["context", "manager"]:
        del words[-2:]  # Python's own word.
    yield from (word for word in words if word in BANNED)
    if words[:1] == ["process"] and len(words) > 1 and "_" in name.strip("_") and not name[0].isupper():
        yield "process_ as a verb"
    if "work item" in " ".join(words):
        yield "work item"
    if "scheduler" in words and not source.path.startswith(SCHEDULER_MAY_STAND_IN):
        yield "scheduler"


def test_no_name_has_a_banned_word() -> None:
    refuse(fault for source in python_sources() for fault in word_faults(source))


@pytest.mark.parametrize(
    ("path", "text", "word"),
    [
        ("netfutures/utils.py", "", "utils"),
        ("netfutures/common/x.py", "", "common"),
        ("x.py", "class TaskManager: ...", "manager"),
        ("x.py", "class _BaseThing: ...", "base"),
        ("x.py", "class A:\n    async def get_info(self): ...", "info"),
        ("x.py", "def _default_slots(): ...", "default"),
        ("x.py", "def process_result(): ...", "process_ as a verb"),
        ("x.py", "class WorkItem: ...", "work item"),
        ("worker/netfutures_worker/core/scheduler.py", "", "scheduler"),
    ],
)
def test_the_rule_finds_a_banned_word(path: str, text: str, word: str) -> None:
    assert word in " ".join(word_faults(Source(path, text)))


def test_the_rule_lets_the_project_s_words_pass() -> None:
    text = "class ChildProcess: ...\ndef database(): ...\ndef processes(): ...\ndef rebase(): ...\ndef process(): ..."
    assert word_faults(Source("broker/netfutures_broker/core/scheduler.py", text)) == []
