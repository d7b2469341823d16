"""Every example is run as a script, in a pipe, under nohup and on a terminal, and must print what it promises."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from programs import LIMIT_S, WAYS, run_in_pipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Check = Callable[[list[str]], None]


def ordered_map(lines: list[str]) -> None:
    assert lines == [
        "main: map has returned a generator; the tasks run",
        *(f"main: nap({tenths}) slept 0.{tenths} s" for tenths in (5, 4, 3, 2, 1)),
        "main: done",
    ]


def submit(lines: list[str]) -> None:
    before, result, after = lines
    future = r"<(\w+ at 0x[0-9a-f]+) state="
    pending = re.fullmatch(rf"main: before, {future}(pending|running)>", before)
    finished = re.fullmatch(rf"main: after, {future}finished returned int>", after)
    assert pending
    assert finished
    assert pending[1] == finished[1]
    assert result == "main: the result is 144"


def as_completed(lines: list[str]) -> None:
    assert sorted(lines) == [f"main: the nap of 0.{tenths} s is over" for tenths in (1, 1, 2, 6)]
    assert lines[-1] == "main: the nap of 0.6 s is over", "the slow task was submitted first and is done last"


def callback(lines: list[str]) -> None:
    *callbacks, last = lines
    assert sorted(callbacks) == ["callback: half of 'five' failed with TypeError", "callback: half of 5 is 2.5"]
    assert last == "main: done"


def cancel(lines: list[str]) -> None:
    assert [line for line in lines if line.startswith("main: cancel")] == [
        f"main: cancel {number}: {number > 1}" for number in range(9, -1, -1)
    ]
    told = {line for line in lines if line.startswith("callback")}
    assert told == {f"callback: {number} was {'canceled' if number > 1 else 'not canceled'}" for number in range(10)}
    assert len(lines) == 21
    assert lines[-1] == "main: done"
    # The two that ran are done long after the last cancel.
    assert {line[:11] for line in lines[-3:-1]} == {"callback: 0", "callback: 1"}


def exception(lines: list[str]) -> None:
    assert lines[0] == "main: exception() gives ZeroDivisionError('division by zero')"
    assert lines[1] == "main: result() raises ZeroDivisionError('division by zero')"
    far_side = "\n".join(lines[2:])
    assert far_side.startswith("main: which happened here:")
    assert re.search(r'File ".*06_exception\.py", line \d+, in divide\n +return a / b\n', far_side)
    assert "ZeroDivisionError: division by zero" in far_side


def context_manager(lines: list[str]) -> None:
    assert lines[0] == "main: starting"
    assert sorted(lines[1:-1]) == [f"task {number}: done" for number in range(1, 5)]
    assert lines[-1] == "main: done"


def pids(lines: list[str]) -> None:
    *tasks, last = lines
    ran = [re.fullmatch(rf"task {number} ran in process (\d+)", line) for number, line in enumerate(tasks, 1)]
    main = re.fullmatch(r"main is process (\d+)", last)
    assert main
    children = {match[1] for match in ran if match}
    assert all(ran)
    assert len(ran) == 5
    assert len(children) in (1, 2)
    assert main[1] not in children


def broken_pool(lines: list[str]) -> None:
    ran = re.fullmatch(r"main: a task ran in process (\d+); SIGHUP to it", lines[0])
    assert ran
    certificate = "\n".join(lines[1:])
    assert certificate.startswith("main: caught BrokenWorkerPool: ")
    assert ran[1] in certificate, "the error names the process that died"
    assert "SIGHUP" in certificate, "the error names what it died of"


CHECKS: dict[str, Check] = {
    "01_map.py": ordered_map,
    "02_submit.py": submit,
    "03_as_completed.py": as_completed,
    "04_callback.py": callback,
    "05_cancel.py": cancel,
    "06_exception.py": exception,
    "07_context_manager.py": context_manager,
    "08_pids.py": pids,
    "09_broken_pool.py": broken_pool,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHECKS)
def test_prints_what_it_promises(name: str, way: str) -> None:
    ended = WAYS[way]([sys.executable, str(EXAMPLES / name)])
    assert ended.status == 0, ended
    assert ended.errors in ("", "nohup: ignoring input\n"), ended
    CHECKS[name](ended.lines)


@pytest.mark.medium
def test_the_readme_s_ten_lines() -> None:
    ended = run_in_pipe([sys.executable, str(EXAMPLES / "10_readme.py")], limit_s=1.5 * LIMIT_S)
    assert (ended.status, ended.errors) == (0, ""), ended
    rows = [re.fullmatch(r" *(\d+)  (/.+\.py):(\d+)  ([\w.]+)", line) for line in ended.lines]
    assert len(rows) == 10
    found = [(int(row[1]), Path(row[2]), int(row[3]), row[4]) for row in rows if row]
    assert [each[0] for each in found] == sorted((each[0] for each in found), reverse=True)
    for complexity, path, line, name in found:
        assert complexity > 40
        assert f"def {name.rpartition('.')[2]}(" in path.read_text("utf-8").splitlines()[line - 1]


def test_ten_lines_are_ten_lines() -> None:
    source = (EXAMPLES / "10_readme.py").read_text()
    code = [line for line in source.split('"""')[2].splitlines() if line]
    assert len(code) == 10


def test_each_example_is_short_has_a_check_and_is_in_the_readme() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [each.name for each in scripts] == [*CHECKS, "10_readme.py"]
    readme = (EXAMPLES / "README.md").read_text()
    for script in scripts:
        source = script.read_text()
        assert 10 <= len(source.splitlines()) <= 40
        assert "__main__" not in source
        assert f"({script.name})" in readme
