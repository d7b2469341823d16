"""Every error of the project comes back from pickle and copy as it was, and is what the documentation says it is."""

import copy
import inspect
import pickle
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, get_args, get_type_hints

import pytest

from netfutures import errors
from netfutures.errors import DeathCertificate, NetfuturesError
from source_files import refuse

DOCUMENTED: dict[str, tuple[type[BaseException], ...]] = {
    "NetfuturesError": (),
    "BrokenWorkerPool": (BrokenProcessPool,),
    "TransferError": (BrokenProcessPool,),
    "RemoteError": (),
    "WorkerLost": (RuntimeError,),
    "TaskKilled": (RuntimeError,),
    "TaskTimeout": (TimeoutError,),
    "BrokerUnreachable": (ConnectionError,),
    "Refused": (ConnectionError,),
    "PayloadTooLarge": (ValueError,),
    "NoCompatibleWorker": (RuntimeError,),
}
CERTIFICATE = DeathCertificate(
    host="h", worker="w1", pid=4711, slot=1, exit_code=3, running=["task 3 (score)"], stderr_tail="gone\n", note="why"
)
EXAMPLES: dict[Any, Any] = {str: "a text", int: 17, float: 2.5, Sequence[str]: ["3.11"], DeathCertificate: CERTIFICATE}


def error_classes() -> list[type[BaseException]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BaseException)]
    return [each for each in found if each.__module__ == errors.__name__]


def example(error: type[BaseException]) -> BaseException:
    """One with a telling value in every field that its constructor takes."""
    if error.__init__ in (NetfuturesError.__init__, Exception.__init__):
        return error("something happened")
    hints = get_type_hints(error.__init__)
    return error(*(value_of(hints[name]) for name in list(inspect.signature(error).parameters)))


def value_of(hint: Any) -> Any:
    return next(EXAMPLES[each] for each in (hint, *get_args(hint)) if each in EXAMPLES)


def copies(error: BaseException) -> dict[str, Any]:
    pickled = {f"pickle {n}": pickle.loads(pickle.dumps(error, n)) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)}
    return pickled | {"copy": copy.copy(error), "deepcopy": copy.deepcopy(error)}


def copy_faults(error: BaseException) -> list[str]:
    name = type(error).__name__
    faults = []
    for how, twin in copies(error).items():
        for what, before, after in (
            ("type", type(error), type(twin)),
            ("text", str(error), str(twin)),
            ("fields", vars(error), vars(twin)),
        ):
            if before != after:
                faults.append(f"{name} by {how}: its {what} was {before!r} and is {after!r}")
    return faults


def kind_faults(error: type[BaseException]) -> list[str]:
    name = error.__name__
    if name not in DOCUMENTED:
        return [f"{name} is not documented: say in the design what it is, then here"]
    bases: list[type[BaseException]] = [NetfuturesError, *DOCUMENTED[name]]
    if error is NetfuturesError:
        bases = [Exception]
    faults = [f"{name} is no {base.__name__}" for base in bases if not issubclass(error, base)]
    if not (error.__doc__ or "").rstrip().endswith("."):
        faults.append(f"{name} has no sentence that says what it means")
    return faults


def test_every_error_survives_pickle_and_copy() -> None:
    refuse(fault for error in error_classes() for fault in copy_faults(example(error)))


def test_a_note_and_a_field_that_a_user_adds_survive_too() -> None:
    error = example(errors.TaskKilled)
    error.add_note("seen at night")
    error.colour = "red"  # type: ignore[attr-defined]  # any exception takes attributes
    refuse(copy_faults(error))


def test_every_error_is_of_its_documented_kind() -> None:
    assert {each.__name__ for each in error_classes()} == DOCUMENTED.keys()
    refuse(fault for error in error_classes() for fault in kind_faults(error))


def test_a_death_certificate_travels_as_a_plain_map() -> None:
    assert DeathCertificate.from_map(CERTIFICATE.to_map() | {"of a later version": 1}) == CERTIFICATE
    assert pickle.loads(pickle.dumps(CERTIFICATE)) == CERTIFICATE


class ForgetsItsField(NetfuturesError):
    """Loses a field, as a class without care does."""

    def __init__(self, message: str = "m", field: str = "") -> None:
        super().__init__(message)
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class Undocumented(Exception):
    """Stands nowhere."""


class Refused(Exception):
    __doc__ = None


@pytest.mark.parametrize("error", [ForgetsItsField("m", "f")])
def test_the_rule_finds_a_lost_field(error: BaseException) -> None:
    assert len(copy_faults(error)) == len(copies(error))


def test_the_rule_finds_a_wrong_kind() -> None:
    assert "not documented" in " ".join(kind_faults(Undocumented))
    assert kind_faults(Refused) == [
        "Refused is no NetfuturesError",
        "Refused is no ConnectionError",
        "Refused has no sentence that says what it means",
    ]
