"""Functions that are submitted: pickled once, and again only when something that they carry may have changed.

A function travels by reference (module and name) or, as those of `__main__`, lambdas and closures, by value. The value
that a task sees is the value at its submit, so a by-value function is served from the table only when a survey of all
that its pickle holds says that nothing has changed: what cannot change in itself (numbers, strings, modules, what goes
by reference) must be the same object, the rest must have the same plain pickle, byte for byte. In doubt it is pickled.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from netfutures.payload import Packed, call, dump_by_value, dump_plain, load_cloudpickle, modules_by_value

FUNCTIONS_MAX = 1000
"""As many functions a table keeps; the oldest goes first, and is pickled again when it comes again."""
FINGERPRINT_BYTES_MAX = 64 * 1024
"""What carries more is not surveyed but pickled for each submit, and compared with the last pickle."""
MARK_BYTES = 200
"""A pickle by value names cloudpickle within its first bytes."""
_MISSES_MAX = 3
"""A function that was different as often in a row is not surveyed until its pickle is once the same as before."""

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented), re.Pattern}
)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type, functools.partial)
_MISSING: Any = object()
_TEXTS = attrgetter("__name__", "__qualname__", "__module__", "__doc__")
_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_RISKY_NAMES = frozenset(
    {"globals", "locals", "vars", "exec", "eval", "setattr", "delattr", "_getframe", "currentframe", "__globals__"}
    | {"__dict__", "__kwdefaults__", "__closure__", "cell_contents"}
)
"""A function that uses one of these could change what it carries in ways that a look at its code does not show."""


class Function:
    """A function as it travels."""

    __slots__ = ("__weakref__", "_digest", "cacheable", "is_new", "name", "payload", "pid", "pool")

    def __init__(self, payload: bytes, cacheable: bool, name: str, pool: Any = None, pid: int | None = None) -> None:
        self.payload = payload
        self.cacheable = cacheable
        self.name = name
        self.pool = pool
        self.pid = pid
        self.is_new = True
        """It was not submitted yet."""
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """Names the payload as a blob; computed when it is first asked for."""
        if self._digest is None:
            from hashlib import blake2b

            self._digest = blake2b(self.payload, digest_size=16).digest()
        return self._digest

    def __repr__(self) -> str:
        return f"<Function {self.name} of {len(self.payload)} bytes>"


class FunctionTable:
    """The functions that one pool has met."""

    def __init__(self, pool: Any = None) -> None:
        self._pool = pool
        self._pid = os.getpid()
        self._steady: dict[int, tuple[Function, object]] = {}  # by reference; holds fn, so that its id stays its own
        self._plans: dict[int, _Plan] = {}  # by the id of the code, which the plan holds
        self._partials: dict[
            tuple[int, ...], tuple[Function, list[Any]]
        ] = {}  # by the ids of the parts, which it holds
        self._last: dict[int, Function] = {}  # the last pickle of other callables; only ever compared
        if "cloudpickle" in sys.modules:
            load_cloudpickle()  # The user may have registered modules with it.
        self._registry = modules_by_value()
        self._registered = frozenset(self._registry)

    def find(self, fn: Callable[..., Any]) -> Function:
        """The record of this function as it is now; what pickling it raises is raised, with a note."""
        entry = self._steady.get(id(fn))
        if entry is not None:
            if not self._registry:
                return entry[0]
        elif type(fn) is types.FunctionType:  # the way of most by-value functions, without a detour
            plan = self._plans.get(id(fn.__code__))
            if plan is not None and self._registry == self._registered:
                survey = plan.survey
                if survey is not None and survey.holds(fn):
                    return plan.function
        try:
            return self._find_changeable(fn)
        except Exception as error:
            error.add_note(
                f"This is about the function {_name_of(fn)}: it cannot be pickled, so it cannot be sent. "
                "Look at what it captures: closure, defaults, globals that it uses, the object that it is bound to."
            )
            raise

    def first_use(self, function: Function, args: tuple[Any, ...]) -> tuple[Function, tuple[Any, ...]]:
        """How a function travels when it is submitted for the first time, with the arguments of its call.

        A by-value one goes among the arguments: it may never come again, as a closure that is made anew for each call,
        and what is sent as a blob stays with broker and workers as long as the session.
        """
        function.is_new = False
        if b"cloudpickle" not in function.payload[:MARK_BYTES]:
            return function, args
        caller = self.find(call)
        caller.is_new = False
        alone = Function(caller.payload, True, function.name, self._pool, self._pid)
        alone._digest = caller.digest
        return alone, (Packed(function.payload), *args)

    def _find_changeable(self, fn: Callable[..., Any]) -> Function:
        self._registry = modules_by_value()
        if self._registry != self._registered:
            self._forget()
        entry = self._steady.get(id(fn))
        if entry is not None:
            return entry[0]
        if type(fn) is not types.FunctionType:
            return self._find_partial(fn) if type(fn) is functools.partial else self._find_callable(fn)
        plan = self._plans.get(id(fn.__code__))
        if plan is not None:
            return self._pickle_again(fn, plan)
        if "cloudpickle" in sys.modules:
            load_cloudpickle()  # the user may have registered modules with it
        payload = dump_plain(fn)
        return self._keep_steady(fn, payload) if payload is not None else self._pickle_again(fn, None)

    def _forget(self) -> None:
        """The user has changed which modules travel by value."""
        self._registered = frozenset(self._registry)
        for each in (self._steady, self._plans, self._partials, self._last):
            each.clear()

    def _new(self, payload: bytes, cacheable: bool, fn: object) -> Function:
        return Function(payload, cacheable, _name_of(fn), self._pool, self._pid)

    def _keep_steady(self, fn: object, payload: bytes) -> Function:
        function = self._new(payload, True, fn)
        _bound(self._steady)[id(fn)] = function, fn
        return function

    def _pickle_again(self, fn: types.FunctionType, old: _Plan | None) -> Function:
        """A by-value function that is new or may have changed."""
        plan = _Plan(fn.__code__)
        if old is not None:
            plan.misses, plan.unclear = old.misses + 1, old.unclear
        before = plan.look_at(fn) if plan.misses <= _MISSES_MAX else None
        payload = dump_by_value(fn)
        self._registry = modules_by_value()  # cloudpickle's own, now that it is loaded
        if old is not None and old.function.payload == payload:
            plan.function, plan.misses = old.function, 0
            before = before or plan.look_at(fn)
        else:
            plan.function = self._new(payload, before is not None and before.cacheable, fn)
        if before is not None and before.holds(fn):  # else something changed it while it was pickled
            plan.survey = before
        _bound(self._plans)[id(fn.__code__)] = plan
        return plan.function

    def _find_partial(self, fn: functools.partial[Any]) -> Function:
        """A partial of functions and of what cannot change is the same as long as all these are."""
        parts = self._parts_of(fn)
        if parts is None:
            return self._find_callable(fn)
        key = tuple(map(id, parts))
        known = self._partials.get(key)
        if known is None:
            payload = dump_plain(fn) or dump_by_value(fn)
            cacheable = all(part.cacheable for part in parts if type(part) is Function)
            known = _bound(self._partials)[key] = self._new(payload, cacheable, fn), parts
        return known[0]

    def _parts_of(self, fn: functools.partial[Any]) -> list[Any] | None:
        reduced: Any = fn.__reduce__()  # not vars(): that would make the attributes, and so change the pickle
        func, args, keywords, attributes = reduced[2]
        parts: list[Any] = [len(args), *keywords]
        for part in (func, *args, *keywords.values()):
            if type(part) in _FUNCTIONS:
                parts.append(self.find(part))
            elif _immutable(part):
                parts.append(part)
            else:
                return None
        return None if attributes else parts

    def _find_callable(self, fn: Callable[..., Any]) -> Function:
        """What is callable and not a plain function: pickled each time, but a class or the like that has a name."""
        payload = dump_plain(fn)
        if payload is not None and _has_a_name(fn):
            return self._keep_steady(fn, payload)
        by_reference = payload is not None
        if payload is None:
            payload = dump_by_value(fn)
        inner = fn.func if isinstance(fn, functools.partial) else getattr(fn, "__func__", fn)
        last = self._last.get(id(inner))
        if last is not None and last.payload == payload:
            return last
        function = self._new(payload, _carries_nothing(fn, by_reference), fn)
        _bound(self._last)[id(inner)] = function
        return function


def _carries_nothing(fn: Callable[..., Any], by_reference: bool) -> bool:
    """Can this callable be kept in a child from task to task, since no task can change what it carries?"""
    owner = getattr(fn, "__self__", None)
    if type(fn) is types.MethodType:
        return by_reference and isinstance(owner, type)
    return type(fn) is types.BuiltinMethodType and _immutable(owner)


def _bound(table: dict[Any, Any]) -> dict[Any, Any]:
    while len(table) >= FUNCTIONS_MAX:
        try:
            del table[next(iter(table))]
        except (KeyError, RuntimeError, StopIteration):  # another thread did
            continue
    return table


def _name_of(fn: object) -> str:
    if isinstance(fn, functools.partial):
        return _name_of(fn.func)
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else f"a {type(fn).__qualname__}"


def _has_a_name(fn: object) -> bool:
    """Is the plain pickle of this nothing but a module and a name, so that it can never change?"""
    if isinstance(fn, (type, *_DESCRIPTORS)):
        return True
    reducer = copyreg.dispatch_table.get(type(fn))
    try:
        return isinstance(fn.__reduce_ex__(5) if reducer is None else reducer(fn), str)
    except TypeError:  # a type that pickle treats by itself, and nothing that can be called
        return False


def _immutable(value: object) -> bool:
    kind = type(value)
    if kind is tuple or kind is frozenset:
        return all(map(_immutable, value))  # type: ignore[call-overload]
    return kind in _ATOMS


# ---- is a by-value function unchanged? ------------------------------------------------------------------------------


class _Plan:
    """The last pickle of the functions with one code object, and a survey that says whether it still holds."""

    __slots__ = ("code", "function", "misses", "survey", "unclear")
    function: Function

    def __init__(self, code: types.CodeType) -> None:
        self.code = code
        self.survey: _Survey | None = None
        self.misses = 0  # how often in a row it was not the same as before
        self.unclear = False

    def look_at(self, fn: types.FunctionType) -> _Survey | None:
        if self.unclear:
            return None
        try:
            return _Survey(fn)
        except _Unclear:
            self.unclear = True
            return None


class _Code:
    """What the instructions of a function, and of those inside it, say about what it uses."""

    __slots__ = ("changes_itself", "code", "names", "sets_attributes")

    def __init__(self, code: types.CodeType) -> None:
        self.code = code
        names: dict[str, None] = {}
        self.changes_itself = self.sets_attributes = False
        for instruction in _instructions(code):
            opname, argument = instruction.opname, str(instruction.argval)
            if opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"):
                names[argument] = None
            if opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or argument in _RISKY_NAMES:
                self.changes_itself = True
            elif opname in ("STORE_DEREF", "DELETE_DEREF"):
                self.changes_itself = self.changes_itself or argument in code.co_freevars
            elif opname in ("STORE_ATTR", "DELETE_ATTR"):
                self.sets_attributes = True
        self.names = tuple(names)


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


_codes: dict[int, _Code] = {}


def _code_of(fn: types.FunctionType) -> _Code:
    known = _codes.get(id(fn.__code__))
    if known is None:
        known = _bound(_codes)[id(fn.__code__)] = _Code(fn.__code__)
    return known


class _Unclear(Exception):
    """This function carries something that cannot be compared cheaply, so it is pickled for each submit."""


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _MISSING


_annotations = attrgetter("__annotate__" if sys.version_info >= (3, 14) else "__annotations__")
"""As they were written: from 3.14 on they are made on demand by a function, which is not called here."""


_Reader = Callable[[types.FunctionType], Any]


class _Survey:
    """Everything that the pickle of one by-value function depends on, as it was, and whether it is still so."""

    __slots__ = ("_cells", "_fingerprint", "_inner", "_loose", "_modules_count", "_own", "_pins", "_seen", "cacheable")

    def __init__(self, fn: types.FunctionType) -> None:
        self._pins: list[tuple[dict[str, Any], str, Any]] = []  # in this map, under this name, is this object
        self._cells: list[tuple[int, types.CellType | None, Any]] = []  # in this cell, or the function's nth, is this
        self._inner: list[tuple[types.FunctionType, tuple[Any, ...]]] = []  # other by-value functions that it uses
        self._loose: list[_Reader] = []  # read what must be compared by its pickle
        self._modules_count: int | None = None
        self._seen: dict[int, _Code] = {}
        self.cacheable = True
        self._own = self._visit(fn, own=True)
        self._fingerprint = self._dump_loose(fn) if self._loose else b""
        if self._fingerprint is None or len(self._fingerprint) > FINGERPRINT_BYTES_MAX:
            raise _Unclear

    def holds(self, fn: types.FunctionType) -> bool:
        """Would this function, which has the same code, give the same pickle as the one that was surveyed?"""
        if not _looks(fn, self._own):
            return False
        for names, name, value in self._pins:
            if names.get(name, _MISSING) is not value:
                return False
        for index, cell, value in self._cells:
            if _contents(fn.__closure__[index] if cell is None else cell) is not value:  # type: ignore[index]
                return False
        for inner, look in self._inner:
            if not _looks(inner, look):
                return False
        if self._modules_count is not None and self._modules_count != len(sys.modules):
            return False
        return not self._loose or self._dump_loose(fn) == self._fingerprint

    def _visit(self, fn: types.FunctionType, own: bool) -> tuple[Any, ...]:
        code, names = _code_of(fn), fn.__globals__
        self._seen[id(fn)] = code
        self.cacheable = self.cacheable and not code.changes_itself
        for name in code.names:
            value = names.get(name, _MISSING)
            if self._pinned(value):
                self._pins.append((names, name, value))
            else:
                self._loose.append(functools.partial(_read_global, names, name))
        for index, cell in enumerate(fn.__closure__ or ()):
            value, known = _contents(cell), None if own else cell
            if self._pinned(value):
                self._cells.append((index, known, value))
            else:
                self._loose.append(functools.partial(_read_cell, index, known))
        if not _immutable(fn.__defaults__):
            self.cacheable = False
            self._loose.append(functools.partial(_read_defaults, None if own else fn))
        for value in (*(fn.__kwdefaults__ or {}).values(), *fn.__dict__.values()):
            if not self._pinned(value):
                raise _Unclear
        return _look_of(fn)

    def _pinned(self, value: Any) -> bool:
        """Does it suffice that this is the same object? Visits it when it is a by-value function."""
        if value is _MISSING or _immutable(value):
            return True
        if isinstance(value, types.ModuleType):
            self._check_module(value)
            return True
        named = isinstance(value, type | types.FunctionType) or (
            type(value) is types.BuiltinFunctionType and isinstance(value.__self__, types.ModuleType)
        )
        if named and dump_plain(value) is None:
            self._visit_by_value(value)
        self.cacheable = self.cacheable and named
        return named

    def _check_module(self, module: types.ModuleType) -> None:
        name = module.__name__
        if sys.modules.get(name) is not module or any(f"{name}.".startswith(f"{each}.") for each in modules_by_value()):
            raise _Unclear
        if hasattr(module, "__path__"):  # the pickle also names those of its submodules that are imported by now
            self._modules_count = len(sys.modules)

    def _visit_by_value(self, value: object) -> None:
        if type(value) is not types.FunctionType:
            raise _Unclear  # a class can change in too many ways
        if id(value) not in self._seen:
            self._inner.append((value, self._visit(value, own=False)))
        if any(code.sets_attributes for code in self._seen.values()):
            self.cacheable = False  # it might set them on itself

    def _dump_loose(self, fn: types.FunctionType) -> bytes | None:
        return dump_plain([read(fn) for read in self._loose])


def _read_global(names: dict[str, Any], name: str, fn: types.FunctionType) -> Any:
    return names.get(name)


def _read_cell(index: int, cell: types.CellType | None, fn: types.FunctionType) -> Any:
    content = _contents(fn.__closure__[index] if cell is None else cell)  # type: ignore[index]
    return None if content is _MISSING else content


def _read_defaults(other: types.FunctionType | None, fn: types.FunctionType) -> Any:
    return (fn if other is None else other).__defaults__


def _look_of(fn: types.FunctionType) -> tuple[Any, ...]:
    annotations = _annotations(fn)
    kept = dict(annotations) if isinstance(annotations, dict) else annotations
    defaults = fn.__defaults__ if _immutable(fn.__defaults__) else _MISSING
    return fn.__code__, fn.__globals__, defaults, _TEXTS(fn), kept, dict(fn.__kwdefaults__ or {}), dict(fn.__dict__)


def _looks(fn: types.FunctionType, look: tuple[Any, ...]) -> bool:
    code, names, defaults, texts, annotations, kwdefaults, attributes = look
    return not (
        fn.__code__ is not code
        or fn.__globals__ is not names
        or (fn.__defaults__ is not defaults and defaults is not _MISSING)
        or _TEXTS(fn) != texts
        or _annotations(fn) != annotations
        or ((fn.__kwdefaults__ or kwdefaults) and not _same_items(fn.__kwdefaults__, kwdefaults))
        or ((fn.__dict__ or attributes) and not _same_items(fn.__dict__, attributes))
    )


def _same_items(now: dict[str, Any] | None, then: dict[str, Any]) -> bool:
    if not now or not then:
        return not now and not then
    return len(now) == len(then) and all(now.get(key, _MISSING) is value for key, value in then.items())
