"""What tasks print reaches the client's terminal, before their futures are done, in order, whatever writes it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from programs import Ended, run_in_pipe, run_on_terminal, run_under_nohup
from scripts import Script

PRINTING = """
import os, subprocess, sys
from netfutures import Executor

def speak(number):
    if number == 1:
        print("by print", number)
    if number == 2:
        os.write(1, b"by descriptor 2\\n")
    if number == 3:
        subprocess.run(["echo", "by a process 3"])
    if number == 4:
        sys.stdout.write("without an end 4")
    if number == 5:
        sys.stdout.buffer.write("by bytes äöü 5\\n".encode())
    return number

with Executor(2) as executor:
    for number in range(1, 6):
        print("before", number, flush=True)
        print("\\nresult", executor.submit(speak, number).result(), flush=True)
"""
PRINTED = [
    "before 1", "by print 1", "", "result 1", "before 2", "by descriptor 2", "", "result 2", "before 3",
    "by a process 3", "", "result 3", "before 4", "without an end 4", "result 4", "before 5", "by bytes äöü 5", "",
    "result 5",
]  # fmt: skip


@pytest.mark.parametrize("way", [run_in_pipe, run_on_terminal, run_under_nohup])
def test_output_comes_before_the_result(way: object) -> None:
    run: Any = way
    ended: Ended = run([sys.executable, "-c", PRINTING])
    assert ended.lines == PRINTED


def test_streams_keep_apart_and_in_order(run_script: Script) -> None:
    ended = run_script("""
import os, sys
from netfutures import Executor

def speak(number):
    print("out", number)
    print("err", number, file=sys.stderr)

with Executor(1) as executor:
    list(executor.map(speak, range(500)))
    print("end")
""")
    assert ended.lines == [*(f"out {number}" for number in range(500)), "end"]
    assert ended.errors.splitlines() == [f"err {number}" for number in range(500)]


def test_callbacks_and_wait_come_after_the_output(run_script: Script) -> None:
    ended = run_script("""
import sys
from concurrent.futures import as_completed, wait
from netfutures import Executor

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # All at once, since other output may come between.
    sys.stdout.flush()

def speak(number):
    print("task", number)
    return number

with Executor(1) as executor:
    future = executor.submit(speak, 1)
    future.add_done_callback(lambda future: say("callback", future.result()))
    wait([future])
    futures = [executor.submit(speak, number) for number in range(2, 5)]
    for future in as_completed(futures):
        say("completed", future.result())
""")
    order = {line: place for place, line in enumerate(ended.lines)}
    assert order["task 1"] < order["callback 1"]
    assert all(order[f"task {number}"] < order[f"completed {number}"] for number in (2, 3, 4))


def test_output_goes_to_what_the_client_calls_its_stdout(run_script: Script) -> None:
    ended = run_script("""
import contextlib, io, sys
from netfutures import Executor

def speak(word):
    print(word)

kept = io.StringIO()
with Executor(1) as executor:
    with contextlib.redirect_stdout(kept):
        executor.submit(speak, "kept").result()
    executor.submit(speak, "shown").result()
print(repr(kept.getvalue()))
""")
    assert ended.lines == ["shown", "'kept\\n'"]


def test_what_is_printed_last_by_a_child_that_dies_is_shown(run_script: Script) -> None:
    ended = run_script("""
import os, sys
from netfutures import Executor

def die():
    print("last words")
    print("last trouble", file=sys.stderr)
    os._exit(5)

executor = Executor(1)
error = executor.submit(die).exception()
print(type(error).__name__, "last trouble" in str(error))
executor.shutdown()
""")
    assert ended.lines == ["last words", "BrokenWorkerPool True"]
    assert ended.errors == "last trouble\n"


@pytest.mark.medium
def test_a_task_that_prints_without_end_stops_nothing_else(run_script: Script) -> None:
    ended = run_script("""
import sys, threading
from netfutures import Executor

class Counting:
    written = 0
    enough = threading.Event()
    def write(self, text):
        self.written += len(text)
        if self.written > 30_000_000:
            self.enough.set()
    def flush(self):
        pass

def print_without_end():
    while True:
        print("again and again " * 50)

sys.stdout = counting = Counting()
executor = Executor(2)
endless = executor.submit(print_without_end)
assert counting.enough.wait(30)
for number in range(20):
    assert executor.submit(len, "x" * number).result(10) == number
assert not endless.done()
print("still alive", file=sys.stderr)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
""")
    assert (ended.status, ended.errors) == (-9, "still alive\n")


def test_a_stdout_that_breaks_does_not_break_the_executor(run_script: Script) -> None:
    ended = run_script("""
import sys
from typing import Any
from netfutures import Executor

class Broken:
    def write(self, text):
        raise OSError("no more room")
    def flush(self):
        raise OSError("no more room")

real, sys.stdout = sys.stdout, Broken()
with Executor(1) as executor:
    future = executor.submit(print, "lost")
    assert future.result(30) is None
    sys.stdout = real
    executor.submit(print, "shown").result(30)
""")
    assert (ended.output, ended.status) == ("shown\n", 0)


def test_a_megabyte_of_output_is_complete(run_script: Script) -> None:
    ended = run_script("""
from netfutures import Executor

def speak():
    for number in range(20_000):
        print("line", number, "." * 40)
    return "done"

with Executor(1) as executor:
    print(executor.submit(speak).result())
""")
    assert ended.lines == [*(f"line {number} {'.' * 40}" for number in range(20_000)), "done"]
