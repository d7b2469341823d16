"""Outcomes that the broker wrote become errors that name task, function, attempts and cause."""

from netfutures.client.lost import is_loss, lost_error
from netfutures.loss import lost_outcome
from netfutures.payload import dump_value


def test_the_brokers_word_of_a_loss_is_an_error_with_the_certificate() -> None:
    outcome = lost_outcome({"pid": 4711, "signal": 9, "tasks": [7], "attempt": 3})
    assert is_loss(outcome)
    error = lost_error(outcome, "score")
    assert (error.certificate.pid, error.certificate.signal, error.attempts) == (4711, 9, 3)
    assert "task 7 (score)" in str(error)
    assert "SIGKILL" in str(error)


def test_what_children_write_is_no_loss() -> None:
    for value in (None, 1, "L", b"L" * 10):
        assert not is_loss(dump_value(value))
    assert not is_loss(b"")
