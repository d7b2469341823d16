"""Each error keeps its message and its fields when it is pickled and copied, and is what the contract says it is."""

import copy
import pickle
from concurrent.futures.process import BrokenProcessPool

import pytest

from netfutures import errors
from netfutures.errors import DeathCertificate

CERTIFICATE = DeathCertificate(
    host="h", worker="w1", pid=4711, slot=1, signal=1, running=["task 3 (score)"], stderr_tail="oh no\n", note="hangup"
)
ALL = [
    errors.NetfuturesError("a message"),
    errors.BrokenWorkerPool("The pool is broken", CERTIFICATE),
    errors.BrokenWorkerPool("The pool is broken"),
    errors.TransferError("the result of task 3 (score)", "ValueError: no"),
    errors.RemoteError("pkg.Odd", "its message", "TypeError: cannot pickle '_thread.lock' object"),
    errors.WorkerLost(CERTIFICATE, "task 3 (score)", 2),
    errors.TaskKilled("task 3 (score)"),
    errors.TaskTimeout("task 3 (score)", 1.5),
    errors.BrokerUnreachable("tcp://host:5555", 10, "connection refused"),
    errors.Refused("the broker at tcp://host:5555", "protocol 9 is spoken there, 1 here: update the client"),
    errors.PayloadTooLarge("the call of score", 2_000_000, 1_000_000),
    errors.NoCompatibleWorker("3.13", ["3.11", "3.12"]),
]


def test_the_list_is_whole() -> None:
    declared = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert {type(error) for error in ALL} == declared - {BrokenProcessPool}
    assert all(issubclass(each, errors.NetfuturesError) for each in declared - {BrokenProcessPool})
    assert all(each.__doc__ for each in declared)


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_pickles_and_copies_with_its_fields(error: errors.NetfuturesError) -> None:
    error.add_note("seen in a test")
    for twin in (*(pickle.loads(pickle.dumps(error, p)) for p in range(2, 6)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
        assert twin.args == error.args


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (errors.BrokenWorkerPool, BrokenProcessPool),
        (errors.TransferError, BrokenProcessPool),
        (errors.WorkerLost, RuntimeError),
        (errors.TaskKilled, RuntimeError),
        (errors.TaskTimeout, TimeoutError),
        (errors.BrokerUnreachable, ConnectionError),
        (errors.Refused, ConnectionError),
        (errors.PayloadTooLarge, ValueError),
        (errors.NoCompatibleWorker, RuntimeError),
    ],
)
def test_is_also_the_standard_librarys(error: type[Exception], bases: type[Exception]) -> None:
    assert issubclass(error, bases)


def test_a_certificate_is_one_sentence() -> None:
    assert str(CERTIFICATE) == (
        "the child with pid 4711 in slot 1 of worker w1 on host h died of signal 1 (SIGHUP) "
        "while it ran task 3 (score): hangup"
    )
    lost = DeathCertificate(host="h", worker="w1", seconds_since_beat=31, running=["1", "2", "3", "4", "5"], attempt=2)
    assert str(lost) == (
        "worker w1 on host h was lost: nothing was heard of it for 31.0 s while it ran 1, 2, 3 and 2 more (attempt 2)"
    )
    assert str(DeathCertificate(slot=0, exit_code=3)) == "the child in slot 0 of a worker ended with exit code 3"
    assert str(DeathCertificate()) == "a worker was lost"
    assert "signal 99" in str(DeathCertificate(pid=1, signal=99))


def test_a_certificate_travels_as_a_map() -> None:
    known = CERTIFICATE.to_map()
    assert "exit_code" not in known
    assert DeathCertificate.from_map({**known, "colour": "red"}) == CERTIFICATE
    assert DeathCertificate.from_map({}) == DeathCertificate()
    zero = DeathCertificate(slot=0, exit_code=0)
    assert DeathCertificate.from_map(zero.to_map()) == zero
    assert pickle.loads(pickle.dumps(CERTIFICATE)) == CERTIFICATE


def test_messages_carry_cause_and_stderr() -> None:
    text = str(errors.BrokenWorkerPool("The pool is broken", CERTIFICATE))
    assert "pid 4711" in text
    assert "oh no" in text
    assert "retries" in str(errors.WorkerLost(CERTIFICATE))
