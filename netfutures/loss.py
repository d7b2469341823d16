"""The outcome that a broker writes by itself: that a task was lost, with the death certificate; pure."""

from typing import Any, Final

import msgpack

LOST_TAG: Final = b"L"
"""First byte of such an outcome; those that children write start otherwise (see `netfutures.payload`)."""


def lost_outcome(certificate: dict[str, Any]) -> bytes:
    """The outcome of a task that was lost for good."""
    return LOST_TAG + bytes(msgpack.packb(certificate))


def certificate_of(outcome: bytes) -> dict[str, Any]:
    """The certificate in an outcome that starts with `LOST_TAG`."""
    certificate = msgpack.unpackb(memoryview(outcome)[1:])
    return certificate if isinstance(certificate, dict) else {}
