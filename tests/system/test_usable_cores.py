"""How many slots `Executor()` has: the cores that affinity and the quotas of cgroups leave, both versions of these."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netfutures.capacity import cgroup_quota
from scripts import Script

COUNT = "from netfutures import Executor; print(Executor()._max_workers)"


def test_affinity_is_respected(run_script: Script) -> None:
    cores = os.sched_getaffinity(0)
    for count in range(1, len(cores) + 1):
        chosen = sorted(cores)[:count]
        ended = run_script(f"import os; os.sched_setaffinity(0, {chosen}); {COUNT}")
        assert int(ended.output) <= count
        assert int(ended.output) >= 1


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root / "cgroup"


V2 = "0::/a/b\n"
V1 = "3:cpuset:/\n2:cpu,cpuacct:/docker/c1\n1:name=systemd:/x\n"
CASES = {
    "no limit": (V2, {"cpu.max": "max 100000", "a/cpu.max": "max 100000", "a/b/cpu.max": "max 100000"}, None),
    "own limit": (V2, {"a/cpu.max": "max 100000", "a/b/cpu.max": "150000 100000"}, 1.5),
    "limit above": (V2, {"cpu.max": "max 100000", "a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 0.5),
    "in a container": ("0::/\n", {"cpu.max": "200000 100000"}, 2.0),
    "path of the host": ("0::/kubepods/pod1/c1\n", {"cpu.max": "300000 100000"}, 3.0),
    "version 1": (
        V1,
        {"cpu,cpuacct/docker/c1/cpu.cfs_quota_us": "250000", "cpu,cpuacct/docker/c1/cpu.cfs_period_us": "100000"},
        2.5,
    ),
    "version 1, linked": (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2.0),
    "version 1, no limit": (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "1000"}, None),
    "both versions": (
        V1 + V2,
        {"a/b/cpu.max": "400000 100000", "cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"},
        1.0,
    ),
    "garbage": (V2 + "nonsense\n:::\n", {"a/b/cpu.max": "many", "a/cpu.max": "", "cpu.max": "1 2 3"}, None),
    "period of nothing": (V1, {"cpu/cpu.cfs_quota_us": "5", "cpu/cpu.cfs_period_us": "0"}, None),
    "no files": (V2, {}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_quotas_of_cgroups(tmp_path: Path, name: str) -> None:
    membership, files, quota = CASES[name]
    (tmp_path / "membership").write_text(membership)
    assert cgroup_quota(tmp_path / "membership", tree(tmp_path, files)) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path / "missing", tmp_path / "nowhere") is None
