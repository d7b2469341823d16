"""Every exception of the project: each says what happened, to whom, why, and what to do."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_RUNNING_SHOWN_MAX = 3


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signals.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_RUNNING_SHOWN_MAX])
    more = len(names) - _RUNNING_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


@dataclass(frozen=True, slots=True)
class DeathCertificate:
    """What is known about the end of a child or of a whole worker; `str()` makes one sentence of it, without a stop."""

    host: str | None = None
    worker: str | None = None
    pid: int | None = None
    slot: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    running: list[str] = field(default_factory=list)
    attempt: int | None = None
    seconds_since_beat: float | None = None
    stderr_tail: str = ""
    note: str = ""

    def __str__(self) -> str:
        parts = [self._who(), self._how()]
        if self.running:
            attempt = f" (attempt {self.attempt})" if self.attempt is not None and self.attempt > 1 else ""
            parts.append(f"while it ran {_listed(self.running)}{attempt}")
        sentence = " ".join(parts)
        return f"{sentence}: {self.note}" if self.note else sentence

    def _who(self) -> str:
        worker = f"worker {self.worker}" if self.worker else "a worker"
        place = f"{worker} on host {self.host}" if self.host else worker
        if self.slot is None and self.pid is None:
            return place
        if self.slot is None:
            return f"{place} (pid {self.pid})"
        pid = f" with pid {self.pid}" if self.pid is not None else ""
        return f"the child{pid} in slot {self.slot} of {place}"

    def _how(self) -> str:
        if self.signal is not None:
            return f"died of {_signal_name(self.signal)}"
        if self.exit_code is not None:
            return f"ended with exit code {self.exit_code}"
        if self.seconds_since_beat is not None:
            return f"was lost: nothing was heard of it for {self.seconds_since_beat:.1f} s"
        return "was lost"

    def to_map(self) -> dict[str, Any]:
        """The fields that are known, as a map of plain values for the wire."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", [])}

    @classmethod
    def from_map(cls, known: Mapping[str, Any]) -> DeathCertificate:
        """Reads what `to_map` wrote; keys that this version does not know are ignored."""
        return cls(**{each.name: known[each.name] for each in fields(cls) if each.name in known})


def _rebuild(cls: type[NetfuturesError], args: tuple[Any, ...], state: dict[str, Any]) -> NetfuturesError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class NetfuturesError(Exception):
    """Base of all errors of netfutures."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps message and fields as they are: the constructors compose the message and cannot be called again."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _with_cause(message: str, certificate: DeathCertificate | None) -> str:
    if certificate is None:
        return message
    text = f"{message}: {certificate}."
    if certificate.stderr_tail:
        text += f" The last lines that it wrote to stderr:\n{certificate.stderr_tail.rstrip()}"
    return text


class BrokenWorkerPool(NetfuturesError, BrokenProcessPool):
    """The pool is broken: it lost a worker or child, or its broker, and runs no more tasks."""

    def __init__(self, message: str = "The pool is broken", certificate: DeathCertificate | None = None) -> None:
        super().__init__(_with_cause(message, certificate))
        self.certificate = certificate


class TransferError(NetfuturesError, BrokenProcessPool):
    """A call or a result was sent but could not be rebuilt on the other side; the pool goes on."""

    def __init__(self, what: str, why: str = "") -> None:
        reason = f": {why}" if why else ""
        super().__init__(
            f"{what} could not be rebuilt from its pickle{reason}. "
            "Check that both sides have the same modules and that the object's pickle can be loaded again."
        )
        self.what = what
        self.why = why


class RemoteError(NetfuturesError):
    """Stands for an exception of a task that could not be pickled; names its type and keeps its message."""

    def __init__(self, type_name: str, message: str, why: str) -> None:
        super().__init__(f"{type_name}: {message} (the exception itself could not be pickled: {why})")
        self.type_name = type_name
        self.message = message
        self.why = why


class WorkerLost(NetfuturesError, RuntimeError):
    """The worker or child that ran, or may have run, this task is lost."""

    def __init__(self, certificate: DeathCertificate, task: str = "the task", attempts: int = 1) -> None:
        times = "" if attempts == 1 else f" in the last of {attempts} attempts"
        super().__init__(
            _with_cause(f"{task} was lost{times}", certificate)
            + ("\n" if certificate.stderr_tail else " ")
            + "A larger `retries` runs such tasks again."
        )
        self.certificate = certificate
        self.task = task
        self.attempts = attempts


class TaskKilled(NetfuturesError, RuntimeError):
    """The task was running and was stopped by `future.kill()` or by the end of its executor."""

    def __init__(self, task: str = "the task", why: str = "future.kill() was called") -> None:
        super().__init__(f"{task} was stopped while it ran: {why}.")
        self.task = task
        self.why = why


class TaskTimeout(NetfuturesError, TimeoutError):
    """The task ran longer than its `timeout` and was stopped."""

    def __init__(self, task: str = "the task", timeout_s: float = 0.0) -> None:
        super().__init__(f"{task} ran longer than its timeout of {timeout_s:g} s and was stopped. Allow it more.")
        self.task = task
        self.timeout_s = timeout_s


class BrokerUnreachable(NetfuturesError, ConnectionError):
    """No broker answers at the address."""

    def __init__(self, address: str, waited_s: float = 0.0, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        super().__init__(
            f"no broker answered at {address} within {waited_s:g} s{reason}. "
            "Check that it runs there (`netfutures status` asks it) and that its port can be reached from here."
        )
        self.address = address
        self.waited_s = waited_s
        self.why = why


class Refused(NetfuturesError, ConnectionError):
    """The other side answered, and refused this connection with a reason."""

    def __init__(self, by: str, reason: str) -> None:
        super().__init__(f"{by} refused the connection: {reason}")
        self.by = by
        self.reason = reason


class PayloadTooLarge(NetfuturesError, ValueError):
    """A function, a call or a result is larger than what may be sent."""

    def __init__(self, what: str, payload_bytes: int, bytes_max: int) -> None:
        super().__init__(
            f"{what} is {payload_bytes:,} bytes when pickled, and at most {bytes_max:,} may be sent. "
            "Pass a path or a smaller piece, or raise the limit."
        )
        self.what = what
        self.payload_bytes = payload_bytes
        self.bytes_max = bytes_max


class NoCompatibleWorker(NetfuturesError, RuntimeError):
    """No worker runs the Python version that this client's pickles need."""

    def __init__(self, wanted: str, found: Sequence[str] = ()) -> None:
        there = f"those there run {_listed(list(found))}" if found else "there is none at all"
        super().__init__(
            f"no worker runs Python {wanted}, which is this client's: {there}. "
            f"Start a worker with Python {wanted}, or run the client with the workers' version."
        )
        self.wanted = wanted
        self.found = list(found)
