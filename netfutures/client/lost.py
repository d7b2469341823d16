"""Outcomes that the broker wrote, since no child lived to write one: the task was lost."""

from netfutures.errors import DeathCertificate, WorkerLost
from netfutures.fields import Payload
from netfutures.loss import LOST_TAG, certificate_of


def is_loss(outcome: Payload) -> bool:
    """Whether this outcome says that the task was lost; looks at the first byte only."""
    return bytes(outcome[:1]) == LOST_TAG


def lost_error(outcome: bytes, function_name: str) -> WorkerLost:
    """The error of a task that was lost."""
    known = certificate_of(outcome)
    tasks = known.get("tasks") or ["of an unknown number"]
    return WorkerLost(DeathCertificate.from_map(known), f"task {tasks[0]} ({function_name})", known.get("attempt", 1))
