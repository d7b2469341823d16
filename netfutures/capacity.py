"""How many cores this process may use: its affinity and its cgroup's quota, whichever is less."""

import math
import os
from collections.abc import Callable
from typing import TypeAlias

CGROUP_ROOT = "/sys/fs/cgroup"
StrPath: TypeAlias = str | os.PathLike[str]


def usable_cores() -> int:
    """At least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota("/proc/self/cgroup", CGROUP_ROOT)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(membership: StrPath, root: StrPath) -> float | None:
    """The least quota in cores of this process's cgroup and those above it, versions 1 and 2; None: no limit."""
    quotas: list[float] = []
    for line in _lines(membership):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            quotas += _walk(root, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _walk(os.path.join(root, controllers), path, _quota_v1)
            quotas += _walk(os.path.join(root, "cpu"), path, _quota_v1)
    return min(quotas, default=None)


def _lines(file: StrPath) -> list[str]:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read().splitlines()
    except OSError:
        return []  # Not Linux, or hidden: no quota is known.


def _walk(root: StrPath, path: str, read: Callable[[str], float | None]) -> list[float]:
    """Quotas from the cgroup up to the root; in a container the path may not exist, but its root is ours."""
    parts = [part for part in path.split("/") if part]
    directories = [os.path.join(root, *parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [quota for quota in map(read, directories) if quota is not None]


def _quota_v2(directory: str) -> float | None:
    fields = " ".join(_lines(os.path.join(directory, "cpu.max"))).split()
    if len(fields) != 2 or not fields[0].isdigit():
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(directory: str) -> float | None:
    quota = " ".join(_lines(os.path.join(directory, "cpu.cfs_quota_us")))
    period = " ".join(_lines(os.path.join(directory, "cpu.cfs_period_us")))
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)
