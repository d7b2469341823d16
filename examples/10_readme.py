"""The demo in ten lines: the most complex functions of Python's standard library, found on every core.

Prints the ten with the highest cyclomatic complexity: the number, the file with the line, and the name.
"""

import sysconfig
from pathlib import Path

from netfutures import Executor
from netfutures.demo.complexity import analyse

library = Path(sysconfig.get_path("stdlib"))
files = [str(file) for file in library.rglob("*.py") if "site-packages" not in file.parts]

with Executor() as ex:
    found = [(f.complexity, r.path, f) for r in ex.map(analyse, files, chunksize=4) for f in r.functions]

for complexity, path, function in sorted(found, reverse=True)[:10]:
    print(f"{complexity:4}  {path}:{function.line}  {function.name}")
