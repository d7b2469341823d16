"""Files and functions stay small and flat, and each file says first what its job is."""

import ast
from collections.abc import Iterator

import pytest

from source_files import Source, python_sources, refuse

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
NESTING_MAX = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match


def size_faults(source: Source) -> list[str]:
    return [f"{source.path}: {fault}" for fault in (*file_faults(source), *function_faults(source.tree))]


def file_faults(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{lines} lines, {FILE_LINES_MAX} at most: two ideas are two files"
    job = (ast.get_docstring(source.tree) or "").partition("\n")[0]
    if not is_one_sentence(job) or not first_line_of_code(source).startswith(('"""', 'r"""')):
        yield "its first line is not a docstring of one sentence that says what its job is"


def is_one_sentence(text: str) -> bool:
    return text.endswith((".", ":", "?")) and ". " not in text.replace("e.g. ", "").replace("i.e. ", "")


def first_line_of_code(source: Source) -> str:
    """What follows the line by which the kernel finds an interpreter, if there is one."""
    lines = source.text.split("\n")
    return lines[1] if lines[0].startswith("#!") and len(lines) > 1 else lines[0]


def function_faults(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, Function):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{node.name} (line {node.lineno}) has {lines} lines, {FUNCTION_LINES_MAX} at most"
        deepest = nesting(node.body)
        if deepest > NESTING_MAX:
            yield f"{node.name} (line {node.lineno}) nests {deepest} deep, {NESTING_MAX} at most"


def nesting(body: list[ast.stmt]) -> int:
    return max((nesting_of(statement) for statement in body), default=0)


def nesting_of(statement: ast.stmt) -> int:
    """A function within counts for itself; `elif` and `except` are no deeper than their `if` and `try`."""
    if not isinstance(statement, BLOCKS):
        return 0
    return 1 + max(nesting(body) for body in bodies(statement))


def bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for part in ast.iter_child_nodes(statement):
        if isinstance(part, ast.ExceptHandler | ast.match_case):
            yield part.body
    for name in ("body", "finalbody"):
        yield getattr(statement, name, [])
    otherwise = getattr(statement, "orelse", [])
    is_elif = isinstance(statement, ast.If) and len(otherwise) == 1 and isinstance(otherwise[0], ast.If)
    if is_elif:
        yield from bodies(otherwise[0])
    else:
        yield otherwise


def test_files_and_functions_are_small() -> None:
    refuse(fault for source in python_sources() for fault in size_faults(source))


GOOD = '"""Does one thing."""\n'
DEEP = """
def f():
    for a in b:
        if a:
            c()
        elif d:
            try:
                e()
            except E:
                with g:
                    h()
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "docstring"),
        ("x = 1\n", "docstring"),
        ('"""no sentence"""\n', "docstring"),
        ('"""Does one thing. And another."""\n', "docstring"),
        ('\n"""Begins late."""\n', "docstring"),
        (GOOD + "\n" * FILE_LINES_MAX, "501 lines"),
        (GOOD + "def f():\n" + "    x()\n" * FUNCTION_LINES_MAX, "61 lines"),
        (GOOD + DEEP, "nests 4 deep"),
    ],
)
def test_the_rule_finds_what_is_large(text: str, says: str) -> None:
    assert says in " ".join(size_faults(Source("x.py", text)))


def test_the_rule_lets_what_is_small_pass() -> None:
    flat = "def f():\n    if a:\n        b()\n" + 4 * "    elif c:\n        d()\n"
    assert size_faults(Source("x.py", "#!/usr/bin/env python3\n" + GOOD + flat)) == []
