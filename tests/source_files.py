"""The project's own files, as the rule tests read them: paths, text, syntax trees and what each module imports."""

import ast
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
ROOTS = {
    "netfutures": CHECKOUT,
    "netfutures_broker": CHECKOUT / "broker",
    "netfutures_worker": CHECKOUT / "worker",
}


@dataclass(frozen=True)
class Import:
    """One name that a module imports, wherever in the file that stands."""

    name: str
    line: int
    through: str = ""
    typing_only: bool = False


@dataclass(frozen=True)
class Source:
    """One Python file; a test of a rule makes one from a snippet."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """The dotted name by which it is imported, or "" for files outside of the three packages."""
        parts = Path(self.path).with_suffix("").parts
        start = next((at for at, part in enumerate(parts) if part in ROOTS), None)
        if start is None or parts[0] not in ("netfutures", "broker", "worker"):
            return ""
        return ".".join(part for part in parts[start:] if part != "__init__")

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def tracked_files() -> list[Path]:
    """What git keeps, or would keep if it were added now; without git, as in an unpacked sdist, this raises."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True, text=True, timeout=30).stdout
    return [path for name in listed.split("\0") if name and (path := CHECKOUT / name).is_file()]


def read(path: Path) -> Source:
    return Source(path.relative_to(CHECKOUT).as_posix(), path.read_text(encoding="utf-8"))


def package_sources() -> list[Source]:
    """Every module of the three packages."""
    return [read(path) for package, root in ROOTS.items() for path in sorted((root / package).rglob("*.py"))]


def python_sources() -> list[Source]:
    """Every Python file of the project: packages, tests, examples, benchmarks."""
    return [read(path) for path in tracked_files() if path.suffix == ".py"]


def imports(source: Source) -> list[Import]:
    """Lazy imports, those for type checkers and those by a literal name are imports too."""
    return list(_imports_below(source.tree, source, False))


def _imports_below(node: ast.AST, source: Source, typing_only: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            yield from (Import(alias.name, node.lineno, typing_only=typing_only) for alias in names)
        case ast.ImportFrom(names=names):
            origin = _absolute(node, source)
            yield from (Import(f"{origin}.{alias.name}", node.lineno, origin, typing_only) for alias in names)
        case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if _imports_by_name(function):
            yield Import(name, node.lineno, typing_only=typing_only)
        case ast.If(test=test, body=body, orelse=otherwise) if "TYPE_CHECKING" in ast.unparse(test):
            for each in body:
                yield from _imports_below(each, source, True)
            for each in otherwise:
                yield from _imports_below(each, source, typing_only)
            return
    for child in ast.iter_child_nodes(node):
        yield from _imports_below(child, source, typing_only)


def _imports_by_name(function: ast.expr) -> bool:
    return ast.unparse(function) in ("__import__", "import_module", "importlib.import_module")


def _absolute(node: ast.ImportFrom, source: Source) -> str:
    if not node.level:
        return node.module or ""
    is_package = source.path.endswith("__init__.py")
    parts = source.module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def covers(prefix: str, name: str) -> bool:
    """Whether a name is the module of that prefix, or lies in it."""
    return name == prefix or name.startswith(prefix + ".")


def refuse(faults: Iterable[str]) -> None:
    """Fails the test that calls it, with all faults at once."""
    found = sorted(faults)
    if found:
        pytest.fail(f"{len(found)} against the rules of this file:\n" + "\n".join(found), pytrace=False)
