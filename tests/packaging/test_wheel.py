"""What is built from the checkout can be installed, imported and type-checked: wheel, sdist and editable install."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from source_files import CHECKOUT, ROOTS, tracked_files

pytestmark = pytest.mark.medium

PACKAGES = sorted(ROOTS)
USER_SCRIPT = '''
"""What a user of the library may write."""
from concurrent.futures import Future, as_completed

from netfutures import Executor


def square(number: int) -> int:
    return number * number


with Executor(max_workers=2) as executor:
    futures: list[Future[int]] = [executor.submit(square, number) for number in range(3)]
    total: int = sum(future.result() for future in as_completed(futures))
    texts: list[str] = list(executor.map(str, [1, 2], timeout=60, chunksize=2))
print(total, texts)
'''


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The output of a command that must succeed; it sees neither our path nor our settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, f"{command} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def build(project: Path, target: str, into: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into, cwd=project)
    (built,) = into.iterdir()
    return built


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment that shares the dependencies of this one, but not the project."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @classmethod
    def make(cls, folder: Path) -> "Environment":
        run(sys.executable, "-m", "venv", folder)
        environment = cls(folder)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site_packages = Path(run(environment.python, "-I", "-c", code).strip())
        # A path in a .pth file is searched, but the .pth files in there, such as that of our editable install, are not.
        (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        return environment

    def install(self, *arguments: str | Path) -> None:
        pip = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps")
        run(*pip, "--force-reinstall", *arguments)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as git keeps it, so that a build neither sees nor leaves anything else."""
    copied = tmp_path_factory.mktemp("project") / "checkout"
    for path in tracked_files():
        target = copied / path.relative_to(CHECKOUT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return copied


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(project, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment.make(tmp_path_factory.mktemp("environment") / "venv")
    made.install(wheel)
    return made


def members(wheel: Path) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as archive:
        yield from (name for name in archive.namelist() if ".dist-info/" not in name)


def test_a_wheel_has_the_three_packages_and_nothing_else(wheel: Path) -> None:
    names = list(members(wheel))
    assert sorted({name.partition("/")[0] for name in names}) == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    modules = {name for name in names if name.endswith(".py")}
    kept = {path.relative_to(root) for root in ROOTS.values() for path in tracked_files() if path.is_relative_to(root)}
    assert modules == {path.as_posix() for path in kept if path.parts[0] in PACKAGES and path.suffix == ".py"}


def test_an_sdist_builds_the_same_wheel(project: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build(project, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    rebuilt = build(unpacked, "wheel", tmp_path / "wheel")
    assert sorted(members(rebuilt)) == sorted(members(wheel))
    assert {"README.md", "LICENSE", "run", "tests"} <= {path.name for path in unpacked.iterdir()}


def origins(environment: Environment) -> list[Path]:
    code = f"import {', '.join(PACKAGES)}\nfor package in ({', '.join(PACKAGES)}): print(package.__file__)"
    return [Path(line).parent for line in run(environment.python, "-I", "-c", code).split()]


def test_an_installed_wheel_works(environment: Environment, tmp_path: Path) -> None:
    assert all(place.is_relative_to(environment.folder) for place in origins(environment))
    assert "netfutures 0." in run(environment.folder / "bin" / "netfutures", "--version")
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT)
    assert run(environment.python, script, cwd=tmp_path) == "5 ['1', '2']\n"


def test_a_user_s_file_passes_strict_type_checking(environment: Environment, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", tmp_path / "cache")
    run(*mypy, "--python-executable", environment.python, script, cwd=tmp_path)


def test_an_editable_install_works(project: Path, tmp_path: Path) -> None:
    environment = Environment.make(tmp_path / "venv")
    environment.install("--no-build-isolation", "--editable", project)
    places = [project / ROOTS[package].relative_to(CHECKOUT) / package for package in PACKAGES]
    assert origins(environment) == places
