"""Scripts as people run them, with functions of their own: by path, by name, as a text, typed, and without a guard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from programs import surroundings
from scripts import Script

SCRIPT = """
import os, sys
from dataclasses import dataclass
from netfutures import Executor

FACTOR = 3

@dataclass
class Point:
    x: int

class Mine(Exception):
    pass

def scale(point):
    return Point(point.x * FACTOR)

def fail(word):
    raise Mine(word)

def spread(values):
    return [scale(Point(value)).x for value in values]

executor = Executor(2)
print(executor.submit(scale, Point(5)).result())
print(isinstance(executor.submit(scale, Point(5)).result(), Point))
print([point.x for point in executor.map(scale, map(Point, range(4)))])
print(executor.submit(spread, [1, 2]).result())
FACTOR = 100
print(executor.submit(scale, Point(5)).result().x)
print((lambda: executor.submit(lambda: FACTOR + 1).result())())
try:
    executor.submit(fail, "word").result()
except Mine as error:
    print("Mine", error)
print(executor.submit(os.getpid).result() != os.getpid())
executor.shutdown()
"""
PRINTED = ["Point(x=15)", "True", "[0, 3, 6, 9]", "[3, 6]", "500", "101", "Mine word", "True"]


@pytest.mark.parametrize("way", ["file", "module", "text", "stdin", "isolated", "optimised"])
def test_functions_of_main_need_no_guard(tmp_path: Path, way: str) -> None:
    (tmp_path / "main_script.py").write_text(SCRIPT)
    commands = {
        "file": ["main_script.py"],
        "module": ["-m", "main_script"],
        "text": ["-c", SCRIPT],
        "stdin": ["-"],
        "isolated": ["-I", "main_script.py"],
        "optimised": ["-OO", "main_script.py"],
    }
    done = subprocess.run(
        [sys.executable, *commands[way]],
        cwd=tmp_path,
        env=surroundings(),
        input=SCRIPT if way == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=45,
    )
    assert (done.stdout.splitlines(), done.stderr) == (PRINTED, "")


def test_in_an_interactive_interpreter(tmp_path: Path) -> None:
    typed = "from netfutures import Executor\nexecutor = Executor(2)\ndef f(x):\n    return x + 1\n\n"
    typed += "executor.submit(f, 1).result()\ndef f(x):\n    return x + 50\n\nexecutor.submit(f, 1).result()\nexit()\n"
    command = [sys.executable, "-q", "-i"]
    done = subprocess.run(
        command, cwd=tmp_path, env=surroundings(), input=typed, capture_output=True, text=True, timeout=45
    )
    assert (done.stdout.split(), done.returncode) == (["2", "51"], 0)


def test_children_have_the_client_s_surroundings(run_script: Script, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'imported from beside'\n")
    ended = run_script(
        """
import os, sys, warnings
sys.path.append("added by the script")
os.environ["SET_BY_SCRIPT"] = "set"
from netfutures import Executor

def look():
    import beside
    return (beside.WORD, os.getcwd(), sys.argv, sys.path[-1], os.environ.get("SET_BY_SCRIPT"), sys.stdin.read(),
            sys.flags.optimize, [name for name in os.environ if name.startswith("NETFUTURES_") and "LEVEL" not in name])

with Executor(1) as executor:
    print(*executor.submit(look).result(), sep="\\n")
""",
        "--verbose",
        "data.csv",
        NETFUTURES_MAX_WORKERS="3",
        PYTHONOPTIMIZE="1",
    )
    assert ended.errors == ""
    script = str(tmp_path / "the_script.py")
    assert ended.lines == [
        "imported from beside",
        os.path.realpath(tmp_path),
        str([script, "--verbose", "data.csv"]),
        "added by the script",
        "set",
        "",
        "1",
        "[]",
    ]


def test_children_have_the_client_s_warning_filters_and_hash_seed(run_script: Script) -> None:
    ended = run_script(
        """
import warnings
from netfutures import Executor

def warn():
    warnings.warn("careful", UserWarning)

with Executor(1) as executor:
    print(type(executor.submit(warn).exception()).__name__)
    print(executor.submit(hash, "a word").result() == hash("a word"))
""",
        PYTHONWARNINGS="error::UserWarning",
        PYTHONHASHSEED="123",
    )
    assert (ended.lines, ended.errors) == (["UserWarning", "True"], "")


@pytest.mark.medium
def test_a_module_that_makes_an_executor_while_a_child_imports_it_is_no_fork_bomb(
    run_script: Script, tmp_path: Path
) -> None:
    """What a script without a guard would do under spawn."""
    (tmp_path / "unguarded.py").write_text("""
from netfutures import Executor

def f(value):
    return value + 1

executor = Executor(1)
future = executor.submit(f, 1)
try:
    result = future.result()
except Exception as error:
    result = f"{type(error).__name__}: {error}: {error.__cause__}"
executor.shutdown()
""")
    ended = run_script("import unguarded; print(unguarded.result)")
    assert ended.errors == ""
    assert "TransferError" in ended.output
    assert "import" in ended.output
    assert "RuntimeError" in ended.output


def test_threads_that_submit_first_at_the_same_time_start_one_cluster(run_script: Script) -> None:
    ended = run_script("""
import os, threading
from netfutures import Executor

executor = Executor(1)
barrier = threading.Barrier(8)
found = []

def submit():
    barrier.wait()
    found.append(executor.submit(os.getppid).result())

threads = [threading.Thread(target=submit) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len(set(found)))
executor.shutdown()
""")
    assert (ended.output, ended.errors) == ("8 1\n", "")


def test_the_exit_of_the_interpreter_finishes_what_was_submitted(run_script: Script, tmp_path: Path) -> None:
    ended = run_script(f"""
from netfutures import Executor
from pathlib import Path

def leave(number):
    (Path({str(tmp_path)!r}) / f"left{{number}}").write_text(str(number))

executor = Executor(2)
for number in range(30):
    executor.submit(leave, number).add_done_callback(lambda future: print("called", flush=True))
print("end of the script", flush=True)
""")
    assert (ended.status, ended.errors) == (0, "")
    assert sorted(ended.lines) == ["called"] * 30 + ["end of the script"]
    assert len(list(tmp_path.glob("left*"))) == 30


def test_submit_at_the_exit_of_the_interpreter_is_refused(run_script: Script) -> None:
    ended = run_script("""
import atexit
from netfutures import Executor
executor = Executor(1)
print(executor.submit(len, "abc").result())

def too_late():
    try:
        executor.submit(len, "abcd")
    except RuntimeError as error:
        print(error)

atexit.register(too_late)
""")
    assert (ended.lines, ended.errors) == (["3", "cannot schedule new futures after interpreter shutdown"], "")


@pytest.mark.parametrize("way", ["thread", "callback", "del"])
def test_submit_from_everywhere(run_script: Script, way: str) -> None:
    ended = run_script(f"""
import threading, signal, os
from netfutures import Executor
executor = Executor(1)
futures = []
def more(*_):
    futures.append(executor.submit(len, "four"))
class Dying:
    def __del__(self):
        more()
if {way!r} == "thread":
    thread = threading.Thread(target=more); thread.start(); thread.join()
if {way!r} == "callback":
    called = threading.Event()
    executor.submit(len, "a").add_done_callback(lambda _: (more(), called.set()))
    called.wait(30)
if {way!r} == "del":
    Dying()
signal.signal(signal.SIGUSR1, more)
os.kill(os.getpid(), signal.SIGUSR1)
print([future.result() for future in futures])
executor.shutdown()
""")
    assert (ended.output, ended.errors) == ("[4, 4]\n", "")
