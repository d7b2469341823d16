"""Finds and ends what dead children's tasks left running; it became this process's by being its subreaper."""

from __future__ import annotations

from collections.abc import Container


def become_subreaper() -> None:
    """Make orphaned descendants this process's own children."""
    raise NotImplementedError


def end_strays(known: Container[int], in_flight: int = 0) -> int:
    """End all direct children but the known pids, with their groups; does nothing while the zygote forks."""
    raise NotImplementedError
