"""Hundreds of seeded worlds, each with faults of its own: in all of them every call ends once, and as promised."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulation.world import World

CHECKOUT = Path(__file__).resolve().parents[2]
BLOCK = 10
SEEDS_QUICK = 60
SEEDS = 400
SEEDS_LONG = 2000


def run_block(first: int, count: int) -> None:
    for seed in range(first, first + count):
        World(seed).run()


@pytest.mark.parametrize(
    "first",
    [
        first if first < SEEDS_QUICK else pytest.param(first, marks=pytest.mark.medium)
        for first in range(0, SEEDS, BLOCK)
    ],
)
def test_every_call_ends_once_whatever_happens(first: int) -> None:
    run_block(first, BLOCK)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(SEEDS, SEEDS + SEEDS_LONG, 10 * BLOCK))
def test_every_call_ends_once_in_many_more_worlds(first: int) -> None:
    run_block(first, 10 * BLOCK)


def test_the_same_seed_is_the_same_run() -> None:
    worlds = [World(7), World(7), World(8)]
    for world in worlds:
        world.run()
    one, same, other = (world.timeline.trace_hash for world in worlds)
    assert one == same
    assert one != other


def test_a_run_can_be_repeated_in_another_process() -> None:
    hashes = set()
    for hash_seed in "12":
        told = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7"],
            cwd=CHECKOUT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr
        hashes.add(told.stdout.split("trace hash ")[1].split()[0])
    assert len(hashes) == 1


@pytest.mark.medium
def test_all_kinds_of_faults_and_ends_happen() -> None:
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(10**6, 10**6 + 40):
        world = World(seed)
        world.run()
        counts.update(world.counts())
        kinds.update(world.nemesis.happened)
    for what in ("breaks", "drops", "repeats", "late", "result", "lost", "broken", "cancelled"):
        assert counts[what], f"nothing was ever {what}"
    told = " ".join(kinds)
    for what in ("breaks", "half breaks", "cut off", "is killed", "is stopped", "strangers speak", "another worker"):
        assert what in told, f"it never happened that something {what}"
