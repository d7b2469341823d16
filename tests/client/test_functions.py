"""A function is pickled once while nothing that it carries changes, and never served as it was before a change."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import math
import operator
import os
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from netfutures import payload
from netfutures.client import functions as module
from netfutures.client.functions import Function, FunctionTable
from netfutures.payload import load_function


def double(x: int) -> int:
    return 2 * x


@functools.lru_cache
def cached(x: int) -> int:
    return 3 * x


class Callee:
    def __init__(self, add: int) -> None:
        self.add = add

    def __call__(self, x: int) -> int:
        return x + self.add

    def method(self, x: int) -> int:
        return x + self.add

    @classmethod
    def of_class(cls, x: int) -> int:
        return x

    @staticmethod
    def static(x: int) -> int:
        return x + 1


def main_module(source: str) -> dict[str, Any]:
    """Globals as those of a script."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    return names


def call(function: Function, *args: Any) -> Any:
    return load_function(function.payload)(*args)


@pytest.fixture
def table() -> FunctionTable:
    return FunctionTable()


# ---- by reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        double,
        cached,
        Callee,
        Callee.static,
        math.sqrt,
        len,
        os.path.join,
        str.upper,
        int,
        np.add,
        operator.add,
        json.dumps,
    ],
)
def test_by_reference_functions_are_found_by_identity(table: FunctionTable, fn: Callable[..., Any]) -> None:
    record = table.find(fn)
    assert table.find(fn) is record
    assert record.cacheable
    assert load_function(record.payload) is fn
    assert len(record.payload) < 100


def test_a_record_names_its_function_and_its_blob() -> None:
    pool = object()
    record = FunctionTable(pool).find(double)
    assert record.name == "double"
    assert "double" in repr(record)
    assert record.pool is pool
    assert record.pid == os.getpid()
    assert record.is_new
    assert len(record.digest) == 16
    assert record.digest == FunctionTable().find(double).digest != FunctionTable().find(cached).digest
    assert weakref.ref(record)() is record


def test_the_table_is_bounded(table: FunctionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FUNCTIONS_MAX", 10)
    steady: list[Any] = [double, cached, Callee, math.sqrt, len, str.upper, int, str, float, bool, set, dict]
    for n in range(50):
        names = main_module(f"def f(x): return x + {n}\ng = f.__call__")
        assert call(table.find(names["f"]), 1) == n + 1
        assert call(table.find(functools.partial(double, n))) == 2 * n
        table.find(steady[n % len(steady)])
    for each in (table._plans, table._steady, table._last, table._partials):
        assert len(each) <= 10


# ---- by value -------------------------------------------------------------------------------------------------------

STATELESS = """
import math, re, os.path
LIMIT, WORD = 3, re.compile("x")
def plain(x): return x + 1
def uses(x: int, y=(1, "a", None), *, z=b"k") -> float: return math.floor(plain(x)) + LIMIT + len(WORD.findall("xx"))
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
lam = lambda x: [i + x for i in range(3)]
def nested(x):
    n = 0
    def add():
        nonlocal n
        n += x
        class Local:
            value = 1
        return n + Local.value
    return add()
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
"""


@pytest.mark.parametrize("name", ["plain", "uses", "fib", "lam", "nested", "even"])
def test_stateless_functions_of_main_are_pickled_once_and_may_be_kept(table: FunctionTable, name: str) -> None:
    fn = main_module(STATELESS)[name]
    record = table.find(fn)
    assert record.cacheable
    assert table.find(fn) is record
    assert call(record, 5) == fn(5)


@pytest.mark.parametrize(
    "source",
    [
        "n = 0\ndef f(x):\n    global n\n    n += x\n    return n",
        "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)",
        "def f(x, seen=[]):\n    seen.append(x)\n    return len(seen)",
        "def f(x, *, seen={}):\n    seen[x] = 1\n    return len(seen)",
        "def f(x):\n    f.n = getattr(f, 'n', 0) + x\n    return f.n",
        "def f(x):\n    setattr(f, 'n', getattr(f, 'n', 0) + x)\n    return f.n",
        "def g(): pass\ndef f(x):\n    g.n = getattr(g, 'n', 0) + x\n    return g.n",
        "def f(x):\n    globals()['n'] = globals().get('n', 0) + x\n    return n",
        "def f(x):\n    exec('global n; n = globals().get(\"n\", 0) + 1')\n    return n",
        "def make():\n    n = 0\n    def f(x):\n        nonlocal n\n        n += x\n        return n\n"
        "    return f\nf = make()",
        "def make():\n    n = 0\n    def f(x):\n        def g():\n            nonlocal n\n            n += x\n"
        "        g()\n        return n\n    return f\nf = make()",
        "class C: n = 0\ndef f(x):\n    C.n += x\n    return C.n",
        "import types\nns = types.SimpleNamespace(n=0)\ndef f(x):\n    ns.n += x\n    return ns.n",
        "def f(x):\n    f.__dict__['n'] = f.__dict__.get('n', 0) + x\n    return f.n",
        "import functools\n@functools.lru_cache\ndef g(x): return []\ndef f(x):\n    g(x).append(1)\n"
        "    return len(g(x))",
    ],
)
def test_what_a_task_could_change_is_unpickled_for_each_task(table: FunctionTable, source: str) -> None:
    fn = main_module(source)["f"]
    record = table.find(fn)
    assert not record.cacheable
    assert [call(record, 1), call(record, 1)] == [1, 1]
    if "class" not in source and "lru_cache" not in source:
        assert table.find(fn) is record, "though nothing here has changed"


MUTATIONS = {
    "global number": ("n = 1\ndef f(): return n", "n = 2"),
    "global number of another type": ("n = 1\ndef f(): return repr(n)", "n = 1.0"),
    "global list in place": ("n = [1]\ndef f(): return n", "n.append(2)"),
    "global list replaced by an equal tuple": ("n = [1]\ndef f(): return repr(n)", "n = (1,)"),
    "global appears": ("def f():\n    try: return n\n    except NameError: return None", "n = 2"),
    "global goes": ("n = 1\ndef f():\n    try: return n\n    except NameError: return None", "del n"),
    "global list goes": ("n = [1]\ndef f():\n    try: return n\n    except NameError: return None", "del n"),
    "builtin is covered": ("def f(): return len('abc')", "def len(x): return 7"),
    "other function": ("def g(): return 1\ndef f(): return g()", "def g(): return 2"),
    "global of another function": ("n = 1\ndef g(): return n\ndef f(): return g()", "n = 2"),
    "list of another function": ("n = [1]\ndef g(): return n\ndef f(): return g()", "n.append(1)"),
    "code": ("def f(): return 1", "def g(): return 2\nf.__code__ = g.__code__"),
    "code of another function": ("def g(): return 1\ndef f(): return g()", "g.__code__ = (lambda: 2).__code__"),
    "defaults": ("def f(x=1): return x", "f.__defaults__ = (2,)"),
    "defaults of another type": ("def f(x=1): return repr(x)", "f.__defaults__ = (True,)"),
    "defaults in place": ("def f(x=[]): return x", "f.__defaults__[0].append(1)"),
    "defaults of another function": ("def g(x=[]): return x\ndef f(): return g()", "g.__defaults__[0].append(1)"),
    "keyword defaults": ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2"),
    "attribute": ("def f(): return getattr(f, 'n', 1)", "f.n = 2"),
    "attribute replaced": ("def f(): return f.n\nf.n = 1", "f.n = 2"),
    "attribute of another function": ("def g(): pass\ndef f(): return getattr(g, 'n', 1)", "g.n = 2"),
    "docstring": ("def f():\n    'a'\n    return f.__doc__", "f.__doc__ = 'b'"),
    "class attribute": ("class C: n = 1\ndef f(): return C.n", "C.n = 2"),
    "class method": ("class C:\n    def m(self): return 1\ndef f(): return C().m()", "C.m = lambda self: 2"),
    "instance of a class": ("class C: n = 1\nc = C()\ndef f(): return c.n", "c.n = 2"),
    "instance and its class": ("class C: n = 1\nc = C()\ndef f(): return c.n", "C.n = 2"),
    "cell": (
        "def make():\n    n = 1\n    def f(): return n\n    def g():\n        nonlocal n\n        n = 2\n"
        "    return f, g\nf, g = make()",
        "g()",
    ),
    "cell in place": ("def make(n):\n    def f(): return n\n    return f\nl = [1]\nf = make(l)", "l.append(2)"),
    "cell of a wrapped function": (
        "import functools\ndef wrap(g):\n    @functools.wraps(g)\n    def w(): return g()\n    return w\n"
        "n = 1\n@wrap\ndef f(): return n",
        "n = 2",
    ),
    "module": (
        "import math as m\ndef f(): return m.floor(2.5)",
        "import operator as m; m.floor"
        " = None; import math as m2\nclass m:\n    @staticmethod\n    def floor(x): return 9",
    ),
    "array": ("import numpy\na = numpy.zeros(3)\ndef f(): return a.tolist()", "a[1] = 5"),
    "large array": ("import numpy\na = numpy.zeros(30000)\ndef f(): return a.sum()", "a[1] = 5"),
    "nested code": ("n = 1\ndef f(): return [n for _ in range(2)]", "n = 2"),
    "redefined": ("def f(): return 1", "def f(): return 2"),
}
if sys.version_info < (3, 14):  # From there on cloudpickle sends how annotations are computed, not their values.
    MUTATIONS["annotation"] = ("def f(x: int = 1): return str(f.__annotations__)", "f.__annotations__['x'] = str")


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_change_is_seen(table: FunctionTable, name: str) -> None:
    source, change = MUTATIONS[name]
    names = main_module(source)
    try:
        for _ in range(3):
            before = table.find(names["f"])
            assert call(before) == names["f"]()
        exec(change, names)
        assert call(table.find(names["f"])) == names["f"]()
        assert table.find(names["f"]).payload != before.payload
    finally:
        vars(operator).pop("floor", None)


def test_functions_made_anew_with_the_same_code(table: FunctionTable) -> None:
    def make(n: Any) -> Callable[[], Any]:
        return lambda: n

    for n in (1, 1.0, True, "a", [1], [True], (1, [2]), None, 1):
        assert repr(call(table.find(make(n)))) == repr(n)
    items = {"a": [1]}
    for count in range(10):
        items["a"].append(count)
        assert call(table.find(make(items))) == items, "changed each time"
    records = {id(table.find(make(items))) for _ in range(10)}
    assert len(records) <= 2, "unchanged since"


def test_a_closure_over_much_is_kept_once(table: FunctionTable) -> None:
    array = np.zeros(100_000)
    fn = lambda: array.sum()  # noqa: E731
    record = table.find(fn)
    assert all(table.find(fn) is record for _ in range(3))
    array[0] = 1
    assert call(table.find(fn)) == 1


def test_an_imported_submodule_travels_from_then_on(
    table: FunctionTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pack_for_functions"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sub.py").write_text("value = 5")
    monkeypatch.syspath_prepend(tmp_path)
    fn = main_module("import pack_for_functions\ndef f(): return pack_for_functions.sub.value")["f"]
    before = table.find(fn)
    importlib.import_module("pack_for_functions.sub")
    assert table.find(fn).payload != before.payload
    for name in ("pack_for_functions.sub", "pack_for_functions"):
        monkeypatch.delitem(sys.modules, name)
    assert call(table.find(fn)) == 5


def test_registering_a_module_by_value_is_seen(table: FunctionTable, monkeypatch: pytest.MonkeyPatch) -> None:
    only_here = types.ModuleType("only_here_too")
    exec("n = 4\ndef call(): return n", vars(only_here))
    monkeypatch.setitem(sys.modules, "only_here_too", only_here)
    table.find(lambda: None)  # cloudpickle is loaded
    assert len(table.find(only_here.call).payload) < 60
    cloudpickle.register_pickle_by_value(only_here)
    try:
        record = table.find(only_here.call)
        only_here.n = 5  # type: ignore[attr-defined]
        changed = table.find(only_here.call)
    finally:
        cloudpickle.unregister_pickle_by_value(only_here)
    assert len(table.find(only_here.call).payload) < 60
    monkeypatch.delitem(sys.modules, "only_here_too")
    assert (call(record), call(changed)) == (4, 5)


# ---- other callables ------------------------------------------------------------------------------------------------


def test_callables_are_pickled_as_they_are_now(table: FunctionTable) -> None:
    callee = Callee(1)
    for fn in (callee, callee.method, functools.partial(callee, 2), functools.partial(callee.method, 2)):
        args = () if isinstance(fn, functools.partial) else (2,)
        record = table.find(fn)
        assert table.find(fn) is record
        assert not record.cacheable
        assert call(record, *args) == 2 + callee.add
        callee.add += 1
        assert call(table.find(fn), *args) == 2 + callee.add
    assert table.find(callee.method) is table.find(callee.method)


def test_which_callables_may_be_kept(table: FunctionTable) -> None:
    stateless = main_module(STATELESS)["plain"]
    keeps: list[Any] = [functools.partial(double, 1), functools.partial(stateless, 1), Callee.of_class, "abc".join]
    for fn in keeps:
        assert table.find(fn).cacheable, fn
        assert table.find(fn) is table.find(fn)
    marked = functools.partial(double, 1)
    marked.note = []  # type: ignore[attr-defined]
    items: list[Any] = []
    others: list[Any] = [
        marked,
        functools.partial(json.dumps, [1]),
        items.append,
        functools.partial(lambda x, y=items: y, 1),
    ]
    for other in others:
        assert not table.find(other).cacheable, other


def test_cached_functions_of_main_travel_with_what_they_wrap(table: FunctionTable) -> None:
    script = """
import functools, sys
from netfutures.client.functions import FunctionTable
from netfutures.payload import dump_call
@functools.lru_cache(maxsize=7)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def uses(n): return fib(n)
assert dump_call((fib,), {})
for fn in (fib, uses): print(FunctionTable().find(fn).payload.hex())
"""
    for line in subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout.split():
        fn = load_function(bytes.fromhex(line.decode()))
        assert fn(50) == 12586269025
        assert fn.__name__ == "uses" or fn.cache_parameters()["maxsize"] == 7  # type: ignore[attr-defined]


def test_partials_of_functions_are_known_by_their_parts(table: FunctionTable) -> None:
    names = main_module("n = 1\ndef f(x, y): return x + y + n")
    fn = names["f"]

    def make(inner: Any, *args: Any, **kwargs: Any) -> Any:
        return functools.partial(inner, *args, **kwargs)

    record = table.find(make(fn, 2, y=3))
    assert table.find(make(fn, 2, y=3)) is record
    assert call(record) == 6
    names["n"] = 10
    assert call(table.find(make(fn, 2, y=3))) == 15
    assert call(table.find(make(fn, 2)), 5) == 17
    assert call(table.find(make(fn, y=2)), 5) == 17
    assert call(table.find(make(make(fn, 1), 2))) == 13
    assert repr(call(table.find(make(dict, a=1)))) == "{'a': 1}"
    assert repr(call(table.find(make(dict, a=True)))) == "{'a': True}"
    chunk = make(map_all, fn)
    assert [table.find(chunk) is table.find(make(map_all, fn)) for _ in range(3)] == [True] * 3


def map_all(fn: Any, calls: Any) -> Any:
    return [fn(*args) for args in calls]


def test_names_for_messages(table: FunctionTable) -> None:
    assert table.find(functools.partial(functools.partial(double, 1))).name == "double"
    assert table.find(Callee(1).method).name == "Callee.method"
    assert table.find(Callee(1)).name == "a Callee"
    assert "<lambda>" in table.find(lambda: 1).name


def test_what_cannot_be_called_fails_in_its_task_as_in_the_standard_library(table: FunctionTable) -> None:
    things: list[Any] = [42, "text", None, [1]]
    for thing in things:
        with pytest.raises(TypeError, match="not callable"):
            call(table.find(thing))


def test_a_function_that_cannot_be_pickled_is_named(table: FunctionTable) -> None:
    lock = threading.Lock()
    for _ in range(2):
        with pytest.raises(TypeError, match="lock") as caught:
            table.find(lambda: lock)
        assert "<lambda>" in caught.value.__notes__[-1]
        assert "captures" in caught.value.__notes__[-1]


# ---- life -----------------------------------------------------------------------------------------------------------


def test_a_closure_that_changed_is_not_kept_alive_by_its_record(table: FunctionTable) -> None:
    class Big:
        pass

    def make() -> tuple[Callable[[], Any], weakref.ref[Any]]:
        big = Big()
        return (lambda: big), weakref.ref(big)

    fn, seen = make()
    record = table.find(fn)
    del fn
    gc.collect()
    assert seen() is None
    assert record.payload


def test_threads_share_a_table(table: FunctionTable) -> None:
    names = main_module("n = [0]\ndef f(x): return n[0] + x")
    errors: list[BaseException] = []

    def find() -> None:
        try:
            for n in range(200):
                assert call(table.find(names["f"]), 1) >= 1
                assert call(table.find(functools.partial(double, n))) == 2 * n
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=find) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(2000):
        names["n"][0] = n
    for thread in threads:
        thread.join()
    assert not errors
    assert call(table.find(names["f"]), 1) == 2000


def test_a_real_script() -> None:
    script = """
import sys
from netfutures.client.functions import FunctionTable
counter = {"n": 0}
def count(x): return counter["n"] + x
table = FunctionTable()
payloads = []
for n in range(4):
    counter["n"] = n // 2
    payloads.append(table.find(count).payload)
sys.stdout.buffer.write(payloads[-1])
assert payloads[0] == payloads[1] != payloads[2] == payloads[3]
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
    assert load_function(out)(5) == 6


def test_a_by_value_function_goes_among_its_arguments_once_and_as_a_blob_when_it_comes_again(
    table: FunctionTable,
) -> None:
    function = main_module("def f(x):\n    return x + 1")["f"]
    record = table.find(function)
    carrier, args = table.first_use(record, (41,))
    assert carrier.digest == table.find(payload.call).digest != record.digest
    assert carrier.name == record.name
    positional, _ = payload.load_call(payload.dump_call(args, {}, record.name))
    assert payload.call(*positional) == 42
    assert table.find(function) is record
    assert not record.is_new


def test_a_by_reference_function_is_a_blob_from_the_first(table: FunctionTable) -> None:
    record = table.find(double)
    assert table.first_use(record, (1,)) == (record, (1,))
