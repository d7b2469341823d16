"""Measures one source file: its lines, classes, imports, and the cyclomatic complexity of each function.

The rule is McCabe's ("A Complexity Measure", IEEE Transactions on Software Engineering, December 1976): the number of
independent paths through a function is the number of its decisions plus one, and a compound condition is as many
decisions as it has conditions. Every function starts at 1. In it,

  +1  `if`, `elif`, `x if c else y`, `while`, `for` and `async for`, `assert`
  +1  each `except` clause
  +1  each `and`, each `or`: `a and b and c` has two
  +1  each `for` and each `if` of a comprehension
  +1  each `case` that can fail to match (`case _:` cannot), and each guard of a `case`

Nothing is added for `else`, `finally` and `with`: control has no choice there. Nothing is added either for a chained
comparison (`a < b < c`) or the alternatives of one pattern (`case 1 | 2`): each is one question to its reader.

A function or method inside another is counted on its own, and adds nothing to what surrounds it. What stands in its
header (decorators, defaults, annotations) is evaluated outside it and is counted there. A lambda has no name to be
listed by, so its decisions belong to the function that it stands in; so do those of a class body.
"""

import ast
import errno
import os
import stat
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORT = (ast.Import, ast.ImportFrom)


class FunctionReport(NamedTuple):
    """One function: its name with the classes and functions around it, its first line, its complexity."""

    name: str
    line: int
    complexity: int


class FileReport(NamedTuple):
    """What one file holds; `failure` says why it could not be read or parsed, and is empty when it could."""

    path: str
    lines: int = 0
    nodes: int = 0
    classes: int = 0
    imports: int = 0
    functions: tuple[FunctionReport, ...] = ()
    failure: str = ""


class _Scope:
    """A function, class or module on the way: the prefix of the names in it, and the function that it belongs to."""

    __slots__ = ("complexity", "function", "line", "name", "prefix")

    def __init__(self, name: str, line: int = 0, function: "_Scope | None" = None) -> None:
        self.name = name
        self.line = line
        self.prefix = f"{name}." if name else ""
        self.complexity = 1
        self.function = function or self


def analyse(path: str) -> FileReport:
    """Reads and measures the file at `path`; whatever is wrong with it is told in the report, never raised."""
    try:
        source = read_source(path)
    except OSError as error:
        return FileReport(path, failure=f"{type(error).__name__}: {error.strerror}")
    return analyse_source(path, source)


def read_source(path: str) -> bytes:
    """The content of a file; a pipe or device with such a name is refused, since reading it might never end."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def analyse_source(path: str, source: bytes) -> FileReport:
    """Measures `source`, which is the content of the file at `path`."""
    lines = len(source.splitlines())
    try:
        with warnings.catch_warnings():
            # Old sources have invalid escapes and comparisons by `is`; a warning on each would bury the result.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        return FileReport(path, lines, failure=f"{type(error).__name__}{where}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        # A null byte was a ValueError before Python 3.11.4; nesting that is too deep is either of the other two.
        return FileReport(path, lines, failure=f"{type(error).__name__}: {str(error) or 'nested too deeply'}")
    return _measure(path, lines, tree)


def _measure(path: str, lines: int, tree: ast.Module) -> FileReport:
    """Walks the whole tree with a stack of its own, since a deep one would exceed the interpreter's recursion limit."""
    nodes = classes = imports = 0
    functions: list[_Scope] = []
    stack: list[tuple[ast.AST, _Scope]] = [(tree, _Scope(""))]
    while stack:
        node, scope = stack.pop()
        nodes += 1
        inner = scope
        if isinstance(node, _FUNCTION):
            inner = _Scope(scope.prefix + node.name, node.lineno)
            functions.append(inner)
        elif isinstance(node, ast.ClassDef):
            classes += 1
            inner = _Scope(scope.prefix + node.name, node.lineno, scope.function)
        elif isinstance(node, _IMPORT):
            imports += 1
        elif decisions := _DECISIONS.get(type(node)):
            scope.function.complexity += decisions(node)
        _push_children(stack, node, scope, inner)
    found = [FunctionReport(each.name, each.line, each.complexity) for each in functions]
    found.sort(key=lambda each: (each.line, each.name))
    return FileReport(path, lines, nodes, classes, imports, tuple(found))


def _push_children(stack: list[tuple[ast.AST, _Scope]], node: ast.AST, outer: _Scope, inner: _Scope) -> None:
    """Puts the body of a node in its inner scope, and the rest of it (a definition's header) in the one around it."""
    for field in node._fields:
        value = getattr(node, field, None)
        scope = inner if field == "body" else outer
        if isinstance(value, ast.AST):
            stack.append((value, scope))
        elif isinstance(value, list):
            stack += [(child, scope) for child in value if isinstance(child, ast.AST)]


def _one(node: ast.AST) -> int:
    return 1


def _of_boolean_operators(node: ast.BoolOp) -> int:
    return len(node.values) - 1


def _of_comprehension(node: ast.comprehension) -> int:
    return 1 + len(node.ifs)


def _of_case(node: ast.match_case) -> int:
    return (not _always_matches(node.pattern)) + (node.guard is not None)


def _always_matches(pattern: ast.pattern) -> bool:
    """Whether a pattern is a wildcard or a bare name, alone or as an alternative."""
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _always_matches(pattern.pattern)
    return isinstance(pattern, ast.MatchOr) and any(map(_always_matches, pattern.patterns))


_DECISIONS: dict[type[ast.AST], Callable[[Any], int]] = {
    ast.If: _one,
    ast.IfExp: _one,
    ast.While: _one,
    ast.For: _one,
    ast.AsyncFor: _one,
    ast.Assert: _one,
    ast.ExceptHandler: _one,
    ast.BoolOp: _of_boolean_operators,
    ast.comprehension: _of_comprehension,
    ast.match_case: _of_case,
}
"""How many times control may go either way at a node of each kind, what is below it left out."""
