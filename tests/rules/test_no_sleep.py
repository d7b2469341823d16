"""Tests of logic never sleep, and no test is skipped, expected to fail or fed with a mock."""

import ast
from collections.abc import Iterator

import pytest

from source_files import Source, python_sources, refuse

NEVER_SLEEP = ("tests/core/", "tests/rules/", "tests/simulation/")
SLEEPS = {"sleep", "usleep", "nanosleep"}
SKIPS = {"skip", "skipif", "xfail", "importorskip", "skipTest", "SkipTest"}


def law_faults(source: Source) -> list[str]:
    faults = list(skips_and_mocks(source.tree))
    if source.path.startswith(NEVER_SLEEP):
        faults += [f"{line}: {name}: time is a number here" for line, name in names(source.tree) if name in SLEEPS]
    return [f"{source.path}:{fault}" for fault in faults]


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name):
                yield node.lineno, name
            case ast.ImportFrom(names=imported):
                yield from ((node.lineno, alias.name) for alias in imported)


def skips_and_mocks(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, value=owner) if name in SKIPS and ast.unparse(owner).startswith("pytest"):
                yield f"{node.lineno}: {name}: a test that is not run proves nothing"
            case ast.Import(names=imported) if any(alias.name.startswith("unittest.mock") for alias in imported):
                yield f"{node.lineno}: unittest.mock: use the real part, or a fake that speaks the wire"
            case ast.ImportFrom(module=("unittest" | "unittest.mock")):
                yield f"{node.lineno}: unittest.mock: use the real part, or a fake that speaks the wire"


def test_tests_keep_the_law() -> None:
    tests = [source for source in python_sources() if source.path.startswith("tests/")]
    refuse(fault for source in tests for fault in law_faults(source))


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("tests/core/test_x.py", "import time\ntime.sleep(1)", "sleep"),
        ("tests/rules/test_x.py", "from time import sleep as rest", "sleep"),
        ("tests/simulation/world.py", "import asyncio\nasync def f():\n    await asyncio.sleep(0)", "sleep"),
        ("tests/system/test_x.py", "import pytest\n@pytest.mark.xfail\ndef test_x(): ...", "xfail"),
        ("tests/system/test_x.py", "import pytest\npytest.skip('not now')", "skip"),
        ("tests/shell/test_x.py", "from unittest import mock", "mock"),
        ("tests/shell/test_x.py", "import unittest.mock", "mock"),
    ],
)
def test_the_rule_finds_a_breach(path: str, text: str, says: str) -> None:
    assert says in " ".join(law_faults(Source(path, text)))


def test_the_rule_lets_a_system_test_sleep() -> None:
    assert law_faults(Source("tests/system/test_x.py", "import time\ntime.sleep(1)")) == []
