"""The frame of the repository itself: the script `run`, the choice of tests, and the guards around every test."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import netfutures
from left_behind import end_processes, processes_of_this_run, wait_until_gone
from source_files import CHECKOUT


def call(*command: str | Path, cwd: Path, **environment: str) -> tuple[int, str]:
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
    )
    return ended.returncode, ended.stdout


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert netfutures.__version__ == project["version"] == version("netfutures")


@pytest.mark.parametrize(("words", "status"), [([], 0), (["--help"], 0), (["bild"], 2)])
def test_run_teaches_its_use(words: list[str], status: int, tmp_path: Path) -> None:
    ended, said = call(CHECKOUT / "run", *words, cwd=tmp_path)
    assert ended == status
    assert all(command in said for command in ("./run demo", "./run test", "./run check", "NETFUTURES_VENV"))


def test_run_does_not_overwrite_a_folder_that_is_no_environment(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("dear to its owner")
    ended, said = call(CHECKOUT / "run", "test", cwd=tmp_path, NETFUTURES_VENV=".")
    assert (ended, kept.read_text()) == (1, "dear to its owner")
    assert "is no virtual environment" in said


def test_run_refuses_a_python_that_it_cannot_use(tmp_path: Path) -> None:
    ended, said = call(CHECKOUT / "run", "test", cwd=tmp_path, NETFUTURES_VENV="new", PYTHON="python2.7")
    assert ended == 1
    assert "needs Python 3.11 or newer, and python2.7 is not one" in said
    assert not (tmp_path / "new").exists()


CHOICES = """
import pytest
@pytest.mark.long
def test_long(): ...
@pytest.mark.medium
def test_medium(): ...
def test_quick(): ...
"""


@pytest.fixture
def small_suite(tmp_path: Path) -> Path:
    """Three tests under a copy of our own conftest and settings."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tmp_path / "pyproject.toml").write_text((CHECKOUT / "pyproject.toml").read_text())
    (tests / "left_behind.py").write_text((CHECKOUT / "tests" / "left_behind.py").read_text())
    conftest = (CHECKOUT / "tests" / "conftest.py").read_text()
    conftest = conftest.replace("Path(__file__).resolve().parent.parent", f"Path({str(CHECKOUT)!r})", 1)
    (tests / "conftest.py").write_text(conftest)
    (tests / "test_three.py").write_text(CHOICES)
    return tmp_path


@pytest.mark.medium
@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], ["medium", "quick"]),
        (["--quick"], ["quick"]),
        (["--all"], ["long", "medium", "quick"]),
        (["-m", "long"], ["long"]),
        (["--quick", "tests/test_three.py::test_long"], ["long"]),
    ],
)
def test_the_options_choose_by_marks(small_suite: Path, options: list[str], chosen: list[str]) -> None:
    pytest_command = (sys.executable, "-P", "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    ended, said = call(*pytest_command, *options, cwd=small_suite)
    assert ended == 0, said
    assert [line.rpartition("test_")[2] for line in said.splitlines() if "::" in line] == chosen


def test_a_mix_of_checkout_and_installed_packages_is_refused(small_suite: Path) -> None:
    (small_suite / "elsewhere" / "netfutures_worker").mkdir(parents=True)
    (small_suite / "elsewhere" / "netfutures_worker" / "__init__.py").touch()
    elsewhere = str(small_suite / "elsewhere")
    ended, said = call(sys.executable, "-P", "-m", "pytest", cwd=small_suite, PYTHONPATH=elsewhere)
    assert ended == pytest.ExitCode.USAGE_ERROR
    assert "mix" in said
    assert elsewhere in said


def test_children_and_orphans_of_a_test_are_found() -> None:
    before = set(processes_of_this_run())
    child = subprocess.Popen(["sleep", "600"])
    # It tells its pid, and lets go of the pipe when it has become what it will be.
    orphan = "setsid sh -c 'echo $$; exec sleep 601 >/dev/null' &"
    told = subprocess.run(["sh", "-c", orphan], stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout
    found = wait_until_gone(before, 0.0)
    try:
        assert found.keys() == {child.pid, int(told)}
        assert (found[child.pid].parent, found[int(told)].command()) == (os.getpid(), "sleep 601")
    finally:
        end_processes(found)
        child.wait(10)
    assert wait_until_gone(before, 10.0) == {}


LEAVES_A_CHILD = """
import subprocess
kept = []
def test_leaves(): kept.append(subprocess.Popen(["sleep", "600"]))
"""


@pytest.mark.medium
def test_a_test_that_leaves_a_child_fails(small_suite: Path) -> None:
    (small_suite / "tests" / "test_three.py").write_text(LEAVES_A_CHILD)
    conftest = small_suite / "tests" / "conftest.py"
    conftest.write_text(conftest.read_text().replace("LEFT_BEHIND_WAIT_S = 5.0", "LEFT_BEHIND_WAIT_S = 0.1"))
    ended, said = call(sys.executable, "-P", "-m", "pytest", cwd=small_suite)
    assert ended == pytest.ExitCode.TESTS_FAILED
    assert "test_leaves left processes behind" in said
    assert "sleep 600" in said
