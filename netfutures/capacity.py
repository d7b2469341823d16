"""How many cores this process may use: its affinity and its cgroup's quota, whichever is less."""

import math
import os
from collections.abc import Callable
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """At least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(Path("/proc/self/cgroup"), CGROUP_ROOT)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(membership: Path, root: Path) -> float | None:
    """The least quota in cores of this process's cgroup and those above it, versions 1 and 2; None: no limit."""
    quotas: list[float] = []
    for line in _lines(membership):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            quotas += _walk(root, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _walk(root / controllers, path, _quota_v1) or _walk(root / "cpu", path, _quota_v1)
    return min(quotas, default=None)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []  # Not Linux, or hidden: no quota is known.


def _walk(root: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Quotas from the cgroup up to the root; in a container the path may not exist, but its root is ours."""
    here = root / path.strip("/")
    found = [read(directory) for directory in (here, *here.parents) if directory.is_relative_to(root)]
    return [quota for quota in found if quota is not None]


def _quota_v2(directory: Path) -> float | None:
    fields = " ".join(_lines(directory / "cpu.max")).split()
    if len(fields) != 2 or not fields[0].isdigit():
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(directory: Path) -> float | None:
    quota = " ".join(_lines(directory / "cpu.cfs_quota_us"))
    period = " ".join(_lines(directory / "cpu.cfs_period_us"))
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)
