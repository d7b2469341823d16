"""What an import must not bring with it: users wait for imports, and each child pays for its own."""

import subprocess
import sys

import pytest

from source_files import package_sources

HEAVY = ["zmq", "msgpack", "numpy", "cloudpickle", "asyncio", "multiprocessing", "netfutures.client"]


def loaded(code: str, *unwanted: str) -> list[str]:
    """Those of the unwanted modules that are there after the code has run in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(*(name for name in {list(unwanted)} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_netfutures_itself_is_light() -> None:
    assert loaded("import netfutures", *HEAVY) == []


def test_the_command_answers_help_without_the_rest() -> None:
    assert loaded("import netfutures.cli", "zmq", "numpy", "cloudpickle", "asyncio", "rich") == []


@pytest.mark.parametrize("module", ["child_main", "zygote"])
def test_a_child_knows_neither_zeromq_nor_the_wire(module: str) -> None:
    unwanted = ("zmq", "netfutures.transport", "netfutures.wire", "netfutures.client", "netfutures_worker.shell")
    assert loaded(f"import netfutures_worker.{module}", *unwanted, "asyncio") == []


def test_the_broker_cannot_unpickle() -> None:
    modules = [source.module for source in package_sources() if source.package == "netfutures_broker"]
    code = "\n".join(f"import {module}" for module in modules if not module.endswith("__main__"))
    assert loaded(code, "netfutures.payload", "cloudpickle", "netfutures.client", "netfutures_worker") == []


@pytest.mark.parametrize("code", ["import asyncio", "from zmq import Context", "import netfutures.client.core"])
def test_the_rule_finds_what_is_heavy(code: str) -> None:
    assert loaded(code, *HEAVY) != []
