"""`netfutures demo` as people run it: what it shows in a pipe and on a terminal, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from programs import Ended, run_in_pipe, run_on_terminal, surroundings

NETFUTURES = [sys.executable, "-m", "netfutures"]
DEMO = [*NETFUTURES, "demo"]
WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from netfutures.cli import main; sys.exit(main(sys.argv[1:]))"

GOOD = '''\
import os
from re import sub

class Walker:
    def step(self, a):
        """Complexity 4."""
        for x in a:
            if x and os:
                return x

def old(a):
    return a is 1 or "\\d"
'''
TANGLED = "def tangled(a):\n" + "    if a: pass\n" * 11


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three files that parse and six that do not, one of them with a name that would disturb a terminal."""
    root = tmp_path / "tree"
    (root / "deep" / "site-packages").mkdir(parents=True)
    (root / "good.py").write_text(GOOD)
    (root / "deep" / "tangled.py").write_text(TANGLED)
    (root / "deep" / "site-packages" / "mine.py").write_text("x = 1\n")
    (root / "deep" / "python2.py").write_text("a = 1\nprint 'x'\n")
    (root / "latin.py").write_bytes(b"a = '\xf6'\n")
    (root / "null.py").write_bytes(b"a = 1\n\0\n")
    (root / "gone.py").symlink_to("nowhere")
    (root / os.fsdecode(b"\x1b[31m\xff.py")).write_text("(")
    os.mkfifo(root / "pipe.py")
    (root / "notes.txt").write_text("no source")
    return root


def figures(text: str, title: str) -> dict[str, list[str]]:
    """The rows of a table of the result, by their first cell."""
    table = text.partition(f"\n{title}\n")[2].partition("\n\n")[0]
    rows = [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


def check_result(ended: Ended) -> None:
    """What must be there on any screen."""
    assert ended.status == 0, ended
    text = ended.plain
    assert "Python files: 9 files" in text
    functions = re.findall(r"^ +(\d+) +(\S+) +(\S+:\d+)$", text, re.MULTILINE)
    assert functions == [
        ("12", "tangled", "deep/tangled.py:1"),
        ("4", "Walker.step", "good.py:5"),
        ("2", "old", "good.py:11"),
    ]
    totals = figures(text, "Totals")
    assert totals["files"] == ["9", "6 of them not parsed"]
    assert totals["lines"] == [str(12 + 12 + 1 + 2 + 1 + 2 + 0 + 1 + 0)]
    assert totals["functions"] == ["3", "complexity 6.0 on average"]
    assert (totals["classes"], totals["imports"]) == (["1"], ["2"])
    speed = figures(text, "Speed")
    assert re.fullmatch(r"\d+\.\d\d s", speed["2 slots"][0])
    assert re.fullmatch(r"[\d,]+ tasks per second", speed["2 slots"][1])
    assert re.fullmatch(r"\d+\.\d\d s", speed["one process"][0])
    assert re.fullmatch(r"\d+\.\d\d times", speed["speed-up"][0])
    assert "Both found exactly the same." in " ".join(text.split())
    assert "Warning" not in text
    failures = " ".join(text.partition("Not parsed: 6")[2].partition("The most complex")[0].split())
    reasons = [
        (r"\\x1b\[31m\\udcff\.py", r"SyntaxError, line 1: '\(' was never closed"),
        (r"deep/python2\.py", r"SyntaxError, line 2: Missing parentheses"),
        (r"gone\.py", r"FileNotFoundError: No such file or directory"),
        (r"latin\.py", r"SyntaxError, line 1: "),
        (r"pipe\.py", r"OSError: not a regular file"),
        (r"null\.py", r"(Syntax|Value)Error: source code string cannot contain null bytes"),
    ]
    for name, reason in reasons:
        assert re.search(f"{name} {reason}", failures), (name, failures)


def test_in_a_pipe_it_is_a_plain_result(tree: Path) -> None:
    ended = run_in_pipe([*DEMO, "--path", str(tree), "--slots", "2"])
    check_result(ended)
    assert ended.errors == ""
    assert ended.output == ended.plain
    assert "━" not in ended.output
    assert "100 %" not in ended.output


def test_on_a_terminal_there_are_bars_and_nothing_is_too_wide(tree: Path) -> None:
    ended = run_on_terminal([*DEMO, "--path", str(tree), "--slots", "2"], columns=80)
    check_result(ended)
    for label in ("2 slots", "one process"):
        assert re.search(rf"  {label} +━+ +100 % 9 of 9 files 0:00:0\d", ended.plain), ended.plain
    assert max(len(line) for line in re.split(r"[\r\n]", ended.plain)) <= 80
    assert ended.output.count("\x1b[?25l") == ended.output.count("\x1b[?25h"), "the cursor is shown again"


def test_without_rich_progress_is_told_in_lines(tree: Path) -> None:
    ended = run_on_terminal([sys.executable, "-c", WITHOUT_RICH, "demo", "--path", str(tree), "--slots", "2"])
    check_result(ended)
    assert "pip install 'netfutures[demo]'" in ended.output
    assert ended.output == ended.plain
    for label in ("2 slots", "one process"):
        told = [int(each) for each in re.findall(rf"^{label} +(\d+) % +\d of 9 files$", ended.output, re.MULTILINE)]
        assert told[-1] == 100
        assert told == sorted(set(told))


def test_without_rich_a_pipe_is_told_nothing_of_it(tree: Path) -> None:
    ended = run_in_pipe([sys.executable, "-c", WITHOUT_RICH, "demo", "--path", str(tree), "--slots", "2"])
    check_result(ended)
    assert "pip install" not in ended.output + ended.errors


def test_one_slot(tree: Path) -> None:
    ended = run_in_pipe([*DEMO, "--path", str(tree), "--slots", "1"])
    assert ended.status == 0
    assert "1 slot" in figures(ended.output, "Speed")


def test_many_failures_are_listed_in_part_and_all_with_verbose(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"bad{number:02}.py").write_text("(")
    command = [*DEMO, "--path", str(tmp_path), "--slots", "2"]
    short = run_in_pipe(command)
    assert short.status == 0
    assert re.findall(r"bad(\d\d)\.py", short.output) == [f"{number:02}" for number in range(20)]
    assert re.search(r"and 5 more +--verbose names them all", short.output)
    assert "There is no function in these files." in short.output
    whole = run_in_pipe([*command, "--verbose"])
    assert re.findall(r"bad(\d\d)\.py", whole.output) == [f"{number:02}" for number in range(25)]
    assert "more" not in whole.output.partition("Not parsed")[2].partition("\n\n")[0]


BAD_USE = [
    (["--path", "nowhere"], "nowhere does not exist"),
    (["--path", "file.py"], "file.py is not a directory"),
    (["--path", "empty"], "there is no .py file in empty"),
    (["--path", ""], "an empty name is no directory"),
    (["--slots", "0"], "'0' is not a number of slots"),
    (["--slots", "-3"], "'-3' is not a number of slots"),
    (["--slots", "two"], "'two' is not a number of slots"),
    (["--slots", "1.5"], "'1.5' is not a number of slots"),
    (["--address", "client.json"], "--address is coming"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
]


@pytest.mark.parametrize(("options", "reason"), BAD_USE, ids=[" ".join(each[0]) for each in BAD_USE])
def test_bad_use_ends_with_2_and_a_reason(options: list[str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.py").write_text("x = 1\n")
    done = subprocess.run([*DEMO, *options], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_on_a_terminal_ends_it_cleanly() -> None:
    ended = run_on_terminal(DEMO, type_keys=(" of ", b"\x03"))
    assert ended.status == 130, ended
    assert ended.plain.endswith("netfutures demo: stopped by Ctrl-C, before the end.\n")
    assert "Traceback" not in ended.output
    assert "Totals" not in ended.output
    assert ended.output.count("\x1b[?25l") == ended.output.count("\x1b[?25h"), "the cursor is shown again"


def test_a_broken_pool_ends_it_with_1_and_the_cause() -> None:
    process = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings())
    try:
        (cluster,) = children_of(process.pid, at_least=1)
        children_of(cluster, at_least=2)  # The zygote, and one that runs tasks.
        os.kill(cluster, signal.SIGKILL)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1, errors
    last = errors.splitlines()[-1]
    assert last.startswith("netfutures demo: not all files were analysed. ")
    assert "SIGKILL" in last
    assert "Totals" not in output


def children_of(pid: int, *, at_least: int) -> list[int]:
    """Waits until a process has so many children."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        # Each thread keeps a list of those that it has started.
        lists = [children.read_text().split() for children in Path(f"/proc/{pid}/task").glob("*/children")]
        children = [int(child) for each in lists for child in each]
        if len(children) >= at_least:
            return children
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} has fewer than {at_least} children")


def test_a_reader_that_goes_away_is_no_error(tree: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [*DEMO, "--path", str(tree), "--slots", "2"]
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30, env=surroundings()
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_help_teaches() -> None:
    whole = run_in_pipe([*NETFUTURES, "--help"])
    assert (whole.status, whole.errors) == (0, "")
    assert "demo" in whole.output
    part = run_in_pipe([*DEMO, "--help"])
    assert part.status == 0
    for told in ("--path", "--slots", "--address", "--verbose", "exit status", "130"):
        assert told in part.output
    nothing = run_in_pipe(NETFUTURES)
    assert (nothing.status, nothing.output) == (2, "")
    assert nothing.errors == whole.output


def test_version() -> None:
    ended = run_in_pipe([*NETFUTURES, "--version"])
    assert ended.status == 0
    assert re.fullmatch(r"netfutures \d\S+ on \w+ 3\.\d+\.\S+\n", ended.output)


@pytest.mark.long
@pytest.mark.timeout(200)
def test_the_standard_library() -> None:
    ended = run_in_pipe(DEMO, limit_s=180)
    assert (ended.status, ended.errors) == (0, ""), ended
    totals = figures(ended.output, "Totals")
    assert int(totals["files"][0].replace(",", "")) > 500
    assert int(totals["functions"][0].replace(",", "")) > 10_000
    assert "The ten most complex functions" in ended.output
    assert "site-packages/" not in ended.output
