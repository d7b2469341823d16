"""Children treat warnings as their client does when the cluster starts, set by -W or by code."""

import subprocess
import sys

SCRIPT = """
import warnings
from netfutures import Executor
warnings.filterwarnings("error", "loud", UserWarning)
warnings.filterwarnings("ignore", "quiet", UserWarning)
def warn(text):
    warnings.warn(text, UserWarning)
    return text
with Executor(1) as ex:
    print(repr(ex.submit(warn, "loud and clear").exception()))
    print(ex.submit(warn, "quiet please").result())
    print(repr(ex.submit(warnings.warn, "old", DeprecationWarning).exception()))
"""


def test_children_have_the_client_s_warning_filters() -> None:
    told = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", SCRIPT], capture_output=True, text=True, timeout=50
    )
    assert told.stdout.splitlines() == ["UserWarning('loud and clear')", "quiet please", "DeprecationWarning('old')"]
    assert told.stderr == ""


PLAIN = """
from netfutures import Executor
with Executor(1) as ex:
    print(ex.submit(exec, "import warnings; warnings.warn('old', DeprecationWarning)", {"__name__": "module"}).result())
"""


def test_the_interpreter_s_own_filters_mean_the_same_in_children() -> None:
    told = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, timeout=50)
    assert (told.stdout, told.stderr) == ("None\n", "")
