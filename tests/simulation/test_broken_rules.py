"""The simulation itself is tested: each rule that is broken on purpose is found by it, within a few seeds."""

import pytest

from simulation.auditor import Fault
from simulation.broken_rules import BROKEN_RULES
from simulation.world import World

SEEDS_MAX = 150
"""The rarest of them is found by about one seed in twenty."""


FOUND_SOON = ("no_dispatch_check", "resent_submit_is_new", "released_before_client_has_it")


@pytest.mark.parametrize(
    "name", [name if name in FOUND_SOON else pytest.param(name, marks=pytest.mark.medium) for name in BROKEN_RULES]
)
def test_a_broken_rule_is_found(name: str) -> None:
    with BROKEN_RULES[name]():
        for seed in range(SEEDS_MAX):
            try:
                World(seed).run()
            except Fault:
                return
    pytest.fail(f"{SEEDS_MAX} seeds have not noticed that {BROKEN_RULES[name].__doc__}")
