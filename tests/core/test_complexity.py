"""The complexity of functions, on snippets whose decisions were counted by hand."""

import ast
import os
from pathlib import Path
from textwrap import dedent

import pytest

from netfutures.demo.complexity import FunctionReport, analyse, analyse_source


def complexities(source: str) -> dict[str, int]:
    """The complexity of each function of a snippet, by name."""
    report = analyse_source("snippet.py", dedent(source).encode())
    assert report.failure == ""
    return {each.name: each.complexity for each in report.functions}


def complexity(body: str) -> int:
    """The complexity of one function `f` with this body."""
    counted = complexities("async def f(a, b, c):\n" + "".join(f"    {line}\n" for line in dedent(body).splitlines()))
    assert list(counted) == ["f"]
    return counted["f"]


HAND_COUNTED = [
    ("nothing to decide", "return a", 1),
    ("if", "if a: b()", 2),
    ("if and else", "if a:\n    b()\nelse:\n    c()", 2),
    ("if, elif, elif, else", "if a: b\nelif b: c\nelif c: a\nelse: a", 4),
    ("an if in an else is an elif", "if a: b\nelse:\n    if b: c", 3),
    ("conditional expression", "return a if b else c", 2),
    ("two conditional expressions", "return a if b else c if a else b", 3),
    ("for", "for x in a: b(x)", 2),
    ("for with else", "for x in a:\n    if x: break\nelse:\n    b()", 3),
    ("while", "while a: b()", 2),
    ("while with else", "while a:\n    b()\nelse:\n    c()", 2),
    ("async for", "async for x in a: b(x)", 2),
    ("with and async with", "with a: b()\nasync with a: b()", 1),
    ("and", "return a and b", 2),
    ("a run of and", "return a and b and c", 3),
    ("and inside or", "return a and b or c and a", 4),
    ("if on a compound condition", "if a and (b or not c): b()", 4),
    ("not is no decision", "return not a", 1),
    ("chained comparison is one question", "return a < b < c", 1),
    ("try, except, except, else, finally", "try: a()\nexcept KeyError: b\nexcept: c\nelse: a\nfinally: b", 3),
    ("try and finally", "try: a()\nfinally: b()", 1),
    ("except star", "try: a()\nexcept* KeyError: b()\nexcept* ValueError: c()", 3),
    ("assert", "assert a, 'message'", 2),
    ("list comprehension", "return [x for x in a]", 2),
    ("comprehension with two ifs", "return {x for x in a if b if c}", 4),
    ("comprehension with two loops", "return {x: y for x in a for y in x if y}", 4),
    ("generator with a compound if", "return sum(x for x in a if x and b)", 4),
    ("async comprehension", "return [x async for x in a if x]", 3),
    ("match with a wildcard", "match a:\n    case 1: b\n    case [x, y]: c\n    case _: a", 3),
    ("match with a bare name", "match a:\n    case 1: b\n    case x: c", 2),
    ("match without a wildcard", "match a:\n    case 1: b\n    case 2: c", 3),
    ("guards", "match a:\n    case 1 if b: b\n    case x if b and c: c\n    case _: a", 5),
    ("alternatives are one question", "match a:\n    case 1 | 2 | 3: b", 2),
    ("an alternative that is a wildcard", "match a:\n    case 1 | _: b", 1),
    ("a named pattern can fail", "match a:\n    case [1, 2] as x: b", 2),
    ("lambda counts where it stands", "return lambda x: x if a else b", 2),
    ("break, continue, return, raise and yield", "yield a\nraise b\nreturn", 1),
    ("decisions of a class body", "class C:\n    if a: x = 1", 2),
]


@pytest.mark.parametrize(("what", "body", "expected"), HAND_COUNTED)
def test_hand_counted(what: str, body: str, expected: int) -> None:
    assert complexity(body) == expected, what


def test_nested_functions_are_counted_on_their_own() -> None:
    counted = complexities(
        """
        def outer(a):
            if a:
                async def inner(b):
                    while b and a:
                        pass
                return inner
        """
    )
    assert counted == {"outer": 2, "outer.inner": 3}


def test_methods_bear_the_names_of_their_classes() -> None:
    counted = complexities(
        """
        class A:
            def f(self):
                class B:
                    def g(self):
                        assert self
                return B if self else None
            async def f2(self): ...
        """
    )
    assert counted == {"A.f": 2, "A.f.B.g": 2, "A.f2": 1}


def test_the_header_of_a_function_belongs_to_what_surrounds_it() -> None:
    counted = complexities(
        """
        def outer(a):
            @(a or print)
            def inner(b=a and 1, *, c=[x for x in a if x]) -> "int if a else str":
                return b
            class C(a or object):
                pass
        """
    )
    # outer: 1, the decorator's `or`, the default's `and`, the comprehension's `for` and `if`, the base's `or`.
    assert counted == {"outer": 6, "outer.inner": 1}


def test_decisions_of_the_module_are_nobody_s() -> None:
    assert complexities("if True:\n    def f(): ...\nelse:\n    def f(x): return x or 1\n") == {"f": 2}


def test_counts_and_order() -> None:
    source = b"import os, sys\nfrom re import (\n    sub)\n\nclass A:\n    class B: 1\n    def z(self): 1\ndef a(): 1\n"
    report = analyse_source("x.py", source)
    assert (report.lines, report.classes, report.imports) == (8, 2, 2)
    assert report.functions == (FunctionReport("A.z", 7, 1), FunctionReport("a", 8, 1))
    assert report.nodes == sum(1 for _ in ast.walk(ast.parse(source)))


def test_lines_end_as_python_ends_them() -> None:
    assert analyse_source("x.py", b"a = 1\r\nb = 2\rc = 3").lines == 3
    assert analyse_source("x.py", b"").lines == 0


BAD_SOURCES = [
    ("syntax", b"a = 1\nprint 'x'\n", "SyntaxError, line 2: "),
    ("indentation", b"if a:\nb\n", "IndentationError, line 2: "),
    ("encoding", b"a = '\xf6'\n", "SyntaxError, line 1:"),
    ("unknown encoding", b"# coding: klingon\n", "SyntaxError: unknown encoding: klingon"),
    ("null byte", b"a = 1\n\0\n", "null byte"),
    ("parentheses", b"(" * 500 + b")" * 500, "too many nested parentheses"),
    ("operators", b"a = " + b"-" * 200_000 + b"1", "Error"),
]


@pytest.mark.parametrize(("what", "source", "reason"), BAD_SOURCES, ids=[each[0] for each in BAD_SOURCES])
def test_what_does_not_parse_is_told_not_raised(what: str, source: bytes, reason: str) -> None:
    report = analyse_source("x.py", source)
    assert reason in report.failure, what
    assert not report.failure.endswith(": "), what
    assert "\n" not in report.failure
    assert report.functions == ()
    assert report.lines == len(source.splitlines())


def test_a_deep_tree_is_walked() -> None:
    report = analyse_source("x.py", b"def f(a):\n    return a" + b".a" * 2000 + b"\n")
    assert report.functions == (FunctionReport("f", 1, 1),) or "Recursion" in report.failure


@pytest.mark.filterwarnings("error")
def test_warnings_about_old_sources_are_kept_quiet() -> None:
    assert analyse_source("x.py", b"a = '\\d'\nassert (a, 'always true')\na is 1\n").failure == ""


def test_reading_a_file(tmp_path: Path) -> None:
    good = tmp_path / "good.py"
    good.write_text("# coding: latin-1\ndef f(): return 'ö'\n", "latin-1")
    assert analyse(str(good)).functions == (FunctionReport("f", 2, 1),)
    missing = analyse(str(tmp_path / "missing.py"))
    assert missing.failure == "FileNotFoundError: No such file or directory"
    assert analyse(str(tmp_path)).failure == "IsADirectoryError: Is a directory"
    os.mkfifo(tmp_path / "pipe.py")
    assert analyse(str(tmp_path / "pipe.py")).failure == "OSError: not a regular file"
    assert analyse("/dev/zero").failure == "OSError: not a regular file"
