"""Whoever waits for a lone task can be interrupted anywhere, and no outcome is lost or mixed up by it."""

from pathlib import Path

from scripts import run

SCRIPT = """
import random, signal
from netfutures import Executor

class Alarm(KeyboardInterrupt):
    pass

def ring(*_):
    raise Alarm

signal.signal(signal.SIGALRM, ring)
rounds = random.Random(1)
with Executor(1) as ex:
    ex.submit(int).result()
    interrupted = 0
    for number in range(1000):
        future = ex.submit(abs, -number)
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, rounds.uniform(1e-6, 4e-4))
                future.result(timeout=30)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            interrupted += 1
        assert future.result(timeout=30) == number
    assert interrupted > 20, interrupted
    assert list(ex.map(abs, range(50))) == list(range(50))
print("done")
"""


def test_interrupts_hit_lone_waits_anywhere(tmp_path: Path) -> None:
    done = run(tmp_path, SCRIPT)
    assert done.output == "done\n", done.errors
    assert done.status == 0
