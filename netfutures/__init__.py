"""concurrent.futures over the network: an executor for every core of one machine, or of many."""

from typing import TYPE_CHECKING, Any

from netfutures.version import __version__

if TYPE_CHECKING:
    from netfutures.client.executor import Executor
    from netfutures.client.future import Future
    from netfutures.errors import (
        BrokenWorkerPool,
        BrokerUnreachable,
        DeathCertificate,
        NetfuturesError,
        NoCompatibleWorker,
        PayloadTooLarge,
        Refused,
        RemoteError,
        TaskKilled,
        TaskTimeout,
        TransferError,
        WorkerLost,
    )

__all__ = [
    "BrokenWorkerPool",
    "BrokerUnreachable",
    "DeathCertificate",
    "Executor",
    "Future",
    "NetfuturesError",
    "NoCompatibleWorker",
    "PayloadTooLarge",
    "Refused",
    "RemoteError",
    "TaskKilled",
    "TaskTimeout",
    "TransferError",
    "WorkerLost",
    "__version__",
]

_HOMES = {"Executor": "netfutures.client.executor", "Future": "netfutures.client.future"}
"""Where a name lives that is not an error; resolved when asked for, since brokers and children import this too."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES.get(name, "netfutures.errors")), name)
    globals()[name] = value
    return value
