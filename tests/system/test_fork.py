"""A fork of the client: the copy is refused at once, and disturbs neither the executor nor its processes."""

from __future__ import annotations

from scripts import Script

# Newer Pythons warn of each fork of a process that has threads.
QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


def test_in_a_fork_of_the_client_the_executor_refuses_and_the_parent_goes_on(run_script: Script) -> None:
    ended = run_script(
        """
import os, sys
from netfutures import Executor

executor = Executor(1)
future = executor.submit(len, "abc")
assert future.result() == 3
pending = executor.submit(__import__("time").sleep, 0.5)
copy = os.fork()
if not copy:
    for ask in (lambda: executor.submit(len, "abc"), lambda: list(executor.map(len, ["a"])), pending.result,
                pending.cancel, executor.shutdown):
        try:
            print("answered", ask(), flush=True)
        except RuntimeError as error:
            print("refused", str(os.getppid()) in str(error) or "forked" in str(error), flush=True)
    with Executor(1) as own:
        print("own", own.submit(len, "four").result(), flush=True)
    sys.exit(0)
print("copy", os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
print("parent", executor.submit(len, "abcde").result(), pending.result())
executor.shutdown()
""",
        **QUIET,
    )
    assert ended.lines == [*["refused True"] * 5, "own 4", "copy 0", "parent 5 None"]
    assert ended.errors == ""


def test_a_fork_that_forgets_or_exits_disturbs_nothing(run_script: Script) -> None:
    ended = run_script(
        """
import gc, os, sys
from netfutures import Executor

executor = Executor(1)
assert executor.submit(len, "abc").result() == 3
for way in range(3):
    copy = os.fork()
    if not copy:
        if way == 0:
            del executor
            gc.collect()
        if way == 1:
            os._exit(0)
        sys.exit(0)
    assert os.waitpid(copy, 0)[1] == 0
    print(executor.submit(len, "abcde").result(), flush=True)
executor.shutdown()
""",
        **QUIET,
    )
    assert (ended.output, ended.errors) == ("5\n5\n5\n", "")
