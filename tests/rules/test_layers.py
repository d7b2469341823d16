"""Who may import what: pure cores, one file for each foreign library, three programs that do not know each other."""

import sys
from collections.abc import Iterable
from functools import cache

import pytest

from source_files import Import, Source, covers, imports, package_sources, refuse

IMPURE = {"zmq", "socket", "select", "time", "datetime", "threading", "asyncio", "multiprocessing", "subprocess"}
IMPURE |= {"os", "random", "secrets", "logging", "pickle", "cloudpickle"}
PURE = ("netfutures.wire", "netfutures.limits", "netfutures.errors", "netfutures.conversation")
PICKLES = ("netfutures.payload",)
EMBEDDED = "netfutures.embedded_main"
# The one process that is all three programs at times, the command, and what a user sees may look into the client.
FACES = ("netfutures.__main__", "netfutures.cli", "netfutures.demo", EMBEDDED)
BASE_DEPENDENCIES = {"zmq", "msgpack", "cloudpickle"}
EXTRAS = {"netfutures.demo": {"rich"}}
PROGRAMS = ("netfutures", "netfutures_broker", "netfutures_worker")


def must_be_pure(module: str) -> bool:
    return ".core" in module or module in PURE


@cache
def sources_by_module() -> dict[str, Source]:
    return {source.module: source for source in package_sources()}


@cache
def is_pure(name: str) -> bool:
    """Whether a module, or the module that a name is in, and all of the project that it imports, is without I/O."""
    source = sources_by_module().get(name) or sources_by_module().get(name.rpartition(".")[0])
    if source is None or source.path.endswith("__init__.py"):
        return ".core" in name
    names = [each.name for each in imports(source)]
    ours = [each for each in names if each.partition(".")[0] in PROGRAMS]
    return not any(covers(banned, each) for banned in IMPURE for each in names) and all(map(is_pure, ours))


def forbidden(module: str) -> dict[str, str]:
    """What this module must not import, and why."""
    rules: dict[str, str] = {}
    if must_be_pure(module):
        rules |= dict.fromkeys(IMPURE, "cores and formats know no socket, thread, process, clock or chance")
    if module != "netfutures.transport":
        rules["zmq"] = "only netfutures/transport.py knows ZeroMQ"
    if not any(covers(allowed, module) for allowed in PICKLES):
        rules |= dict.fromkeys(("pickle", "cloudpickle"), "only netfutures/payload pickles")
    if covers("netfutures_broker", module):
        rules["netfutures.payload"] = "the broker never unpickles"
        rules |= dict.fromkeys(("netfutures.client", "netfutures_worker"), "the broker stands beside them")
    if covers("netfutures_worker", module):
        rules |= dict.fromkeys(("netfutures.client", "netfutures_broker"), "the worker stands beside them")
    if covers("netfutures", module) and module != EMBEDDED:
        rules |= dict.fromkeys(("netfutures_broker", "netfutures_worker"), "only embedded_main.py may import programs")
    if module in ("netfutures_worker.child_main", "netfutures_worker.zygote"):
        reason = "a child talks no ZeroMQ and starts in milliseconds"
        rules |= dict.fromkeys(("netfutures.transport", "netfutures.wire"), reason)
        rules |= dict.fromkeys(("netfutures_worker.shell", "netfutures_worker.core"), reason)
    if module == "netfutures.client.executor":
        reason = "the executor speaks to the I/O thread only"
        rules |= dict.fromkeys(("netfutures.transport", "netfutures.wire"), reason)
    if lies_directly_in_netfutures(module):
        rules["netfutures.client"] = "what all programs share does not know the client"
    return rules


def lies_directly_in_netfutures(module: str) -> bool:
    outside = ("netfutures.client", *FACES)
    return module.startswith("netfutures.") and not any(covers(each, module) for each in outside)


def layer_faults(source: Source) -> list[str]:
    faults = []
    for each in imports(source):
        faults += [
            f"{source.path}:{each.line} imports {each.name}: {reason}"
            for prefix, reason in forbidden(source.module).items()
            if covers(prefix, each.name)
        ]
        faults += [f"{source.path}:{each.line} {fault}" for fault in other_faults(source.module, each)]
    return faults


def other_faults(module: str, each: Import) -> Iterable[str]:
    first = each.name.partition(".")[0]
    if each.name == "netfutures" or (each.through in PROGRAMS and each.name not in sources_by_module()):
        yield f"imports {each.name} through the face of a package: import the module that owns it"
    elif first in PROGRAMS:
        if must_be_pure(module) and not is_pure(each.name):
            yield f"imports {each.name}, which is not pure, into what is"
        if is_foreign_shell(module, each.name):
            yield f"imports {each.name}, the shell of another program"
    elif first not in sys.stdlib_module_names and not is_dependency(module, first, each.typing_only):
        yield f"imports {each.name}, which is not a base dependency of the project"


def is_foreign_shell(module: str, name: str) -> bool:
    shells = ("netfutures_broker.shell", "netfutures_worker.shell", "netfutures.client.io_thread")
    own_package = name.rpartition(".")[0].partition(".")[0]
    return any(covers(shell, name) for shell in shells) and not covers(own_package, module) and module != EMBEDDED


def is_dependency(module: str, first: str, typing_only: bool) -> bool:
    extra = {name for prefix, names in EXTRAS.items() if covers(prefix, module) for name in names}
    return first in BASE_DEPENDENCIES | extra or (typing_only and first == "typing_extensions")


def circles(sources: list[Source]) -> list[list[str]]:
    """Groups of modules each of which reaches the others by imports."""
    modules = {source.module for source in sources}
    arrows = {source.module: {to for each in imports(source) for to in targets(each, modules)} for source in sources}
    reach = {module: reachable(module, arrows) for module in modules}
    groups = {tuple(sorted(other for other in reach[one] if one in reach[other])) for one in modules}
    return [list(group) for group in sorted(groups) if group]


def targets(each: Import, modules: set[str]) -> set[str]:
    """`from package import module` leads to the module, `from module import name` to the module too."""
    return {each.name} if each.name in modules else {each.through} & modules


def reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def test_every_import_keeps_to_the_layers() -> None:
    refuse(fault for source in package_sources() for fault in layer_faults(source))


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(package_sources()) == []


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("broker/netfutures_broker/core/task.py", "import time", "clock"),
        ("broker/netfutures_broker/core/task.py", "def f():\n    from os import path", "clock"),
        ("broker/netfutures_broker/core/task.py", "from netfutures.transport import X", "not pure"),
        ("broker/netfutures_broker/core/task.py", "from netfutures_broker.shell import X", "not pure"),
        ("netfutures/wire.py", "import random", "chance"),
        ("netfutures/client/core/session.py", "if TYPE_CHECKING:\n    import socket", "socket"),
        ("netfutures/client/core/session.py", "from netfutures.client.io_thread import X", "not pure"),
        ("netfutures/client/io_thread.py", "import zmq.asyncio", "transport.py"),
        ("netfutures/client/io_thread.py", "import pickle", "payload"),
        ("netfutures/client/io_thread.py", "importlib.import_module('cloudpickle')", "payload"),
        ("broker/netfutures_broker/shell.py", "from netfutures.payload import load_call", "never unpickles"),
        ("broker/netfutures_broker/shell.py", "import netfutures_worker.shell", "beside"),
        ("worker/netfutures_worker/shell.py", "from netfutures.client.future import Future", "beside"),
        ("netfutures/client/executor.py", "from netfutures_broker import shell", "embedded_main"),
        ("netfutures/client/executor.py", "from netfutures.wire import Submit", "I/O thread"),
        ("worker/netfutures_worker/child_main.py", "from .core import slot", "milliseconds"),
        ("worker/netfutures_worker/zygote.py", "import netfutures.wire", "milliseconds"),
        ("netfutures/transport.py", "from netfutures.client import executor", "does not know the client"),
        ("netfutures/embedded_main.py", "from netfutures import Executor", "face"),
        ("netfutures/embedded_main.py", "import netfutures", "face"),
        ("netfutures/client/executor.py", "import requests", "base dependency"),
        ("netfutures/client/executor.py", "import rich", "base dependency"),
    ],
)
def test_the_rule_finds_a_wrong_import(path: str, text: str, says: str) -> None:
    assert says in " ".join(layer_faults(Source(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("netfutures/embedded_main.py", "from netfutures_broker.shell import A\nfrom netfutures_worker.shell import B"),
        ("netfutures/demo/screen.py", "from rich.console import Console"),
        ("netfutures/payload.py", "import pickle\nimport cloudpickle"),
        ("netfutures/transport.py", "import zmq\nimport os\nfrom netfutures import limits"),
        ("netfutures/client/core/session.py", "from netfutures.wire import Submit\nfrom .ledger import Ledger"),
    ],
)
def test_the_rule_lets_a_right_import_pass(path: str, text: str) -> None:
    assert layer_faults(Source(path, text)) == []


def test_the_rule_finds_a_circle_of_lazy_imports() -> None:
    one = Source("netfutures/one.py", "def f():\n    from netfutures.two import g")
    two = Source("netfutures/two.py", "import netfutures.three")
    three = Source("netfutures/three.py", "if TYPE_CHECKING:\n    from netfutures import one")
    beside = Source("netfutures/beside.py", "import netfutures.one")
    assert circles([one, two, three, beside]) == [["netfutures.one", "netfutures.three", "netfutures.two"]]
