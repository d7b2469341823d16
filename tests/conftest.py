"""Which tests are run, and what every one of them is held to: one origin of the code, no process left behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from left_behind import MARK, end_processes, processes_of_this_run, wait_until_gone

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "netfutures": CHECKOUT / "netfutures",
    "netfutures_broker": CHECKOUT / "broker" / "netfutures_broker",
    "netfutures_worker": CHECKOUT / "worker" / "netfutures_worker",
}
LEFT_BEHIND_WAIT_S = 5.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("netfutures")
    group.addoption("--quick", action="store_true", help="the core of the tests: without those marked medium or long")
    group.addoption("--all", action="store_true", help="all tests, those marked long too")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick") and config.getoption("--all"):
        raise pytest.UsageError("--quick and --all exclude each other")
    refuse_mixed_origins()
    # A user's settings must not steer the tests.
    for name in [name for name in os.environ if name.startswith("NETFUTURES_")]:
        del os.environ[name]
    os.environ[MARK] = str(os.getpid())


def pytest_report_header(config: pytest.Config) -> str:
    left_out = marks_left_out(config)
    return f"netfutures: without the tests marked {' or '.join(left_out)}" if left_out else "netfutures: all tests"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = marks_left_out(config)
    dropped = [item for item in items if any(item.get_closest_marker(mark) for mark in left_out)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


def marks_left_out(config: pytest.Config) -> list[str]:
    """Whoever names single tests, or chooses by marks, gets what was asked for."""
    if config.getoption("--all") or config.option.markexpr or any("::" in argument for argument in config.args):
        return []
    return ["medium", "long"] if config.getoption("--quick") else ["long"]


def refuse_mixed_origins() -> None:
    """Three packages of one version, here and in the processes that tests start, or the tests would prove nothing."""
    here = {name: origin(name) for name in PACKAGES}
    places = f"(find_spec(name).submodule_search_locations[0] for name in {[*PACKAGES]})"
    code = f"from importlib.util import find_spec; print(*{places}, sep='\\n')"
    found = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, timeout=30)
    if found.returncode:
        raise pytest.UsageError(f"{sys.executable} has no netfutures ('./run test' installs it): {found.stderr}")
    children = dict(zip(PACKAGES, map(Path, found.stdout.split("\n")), strict=False))
    from_checkout = [name for name, place in PACKAGES.items() if here[name] == place]
    installed_together = len({place.parent for place in here.values()}) == 1
    one_origin = len(from_checkout) == len(PACKAGES) or (not from_checkout and installed_together)
    if here != children or not one_origin:
        raise pytest.UsageError(
            "this run would mix a checkout with an installed wheel, so its result would mean nothing.\n"
            f"Here the packages come from\n{listed(here)}\nand in processes that tests start from\n{listed(children)}\n"
            "Use './run test', or run 'pytest' instead of 'python -m pytest', or install with 'pip install -e .[test]'."
        )


def origin(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise pytest.UsageError(f"{sys.executable} has no {name} ('./run test' installs it)")
    return Path(spec.submodule_search_locations[0])


def listed(places: dict[str, Path]) -> str:
    return "\n".join(f"    {place}" for place in places.values())


@pytest.fixture(scope="module", autouse=True)
def no_process_outlives_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    if starts_no_process(request.path):
        yield
        return
    before = set(processes_of_this_run())
    yield
    refuse_left_behind(before, request.node.nodeid)


@pytest.fixture(autouse=True)
def no_process_outlives_the_test(
    request: pytest.FixtureRequest, no_process_outlives_the_module: None
) -> Iterator[None]:
    if starts_no_process(request.path) or request.node.get_closest_marker("shares_processes"):
        yield
        return
    before = set(processes_of_this_run())
    yield
    refuse_left_behind(before, request.node.nodeid)


def starts_no_process(test_file: Path) -> bool:
    return not {"core", "rules", "simulation"}.isdisjoint(test_file.relative_to(Path(__file__).parent).parts)


def refuse_left_behind(known: set[int], test: str) -> None:
    """What is still there after a patient wait is ended, so that it cannot disturb the next test, and is told."""
    left = wait_until_gone(known, LEFT_BEHIND_WAIT_S)
    if left:
        told = "\n".join(map(str, left.values()))
        end_processes(left)
        pytest.fail(f"{test} left processes behind, {LEFT_BEHIND_WAIT_S:g} s after its end:\n{told}", pytrace=False)
