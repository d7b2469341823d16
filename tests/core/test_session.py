"""Stories of the client's core: what it submits, settles, calls back, and how it comes back to its broker."""

from collections.abc import Iterator

import pytest

from fakes import ClientStage
from inbox import EPOCH, FUNCTION, named
from netfutures.client.core.ledger import CallRun
from netfutures.fields import BLOB, CHUNKS, Payload, Reference
from netfutures.limits import ACKNOWLEDGE_AFTER_S, BEAT_S, HELLO_RETRY_S, SUSPECT_AFTER_S
from netfutures.wire import (
    Acknowledge,
    Beat,
    Broken,
    Cancel,
    Cancelled,
    Chunk,
    ClientHello,
    Envelope,
    Goodbye,
    Need,
    Printed,
    Refused,
    Release,
    RemoteProtocolError,
    Results,
    Running,
    Submit,
    Who,
)

MiB = 1 << 20


@pytest.fixture
def stage() -> Iterator[ClientStage]:
    stage = ClientStage()
    stage.welcome()
    yield stage
    stage.leave()


def unnumbered(stage: ClientStage, message: Who | Refused) -> None:
    stage.receive(Envelope(0, 0, 0, message))


def reconnect(stage: ClientStage) -> None:
    stage.connect()
    stage.welcome()


# Submitting.


def test_calls_are_numbered_and_sent_with_their_function(stage: ClientStage) -> None:
    stage.submit(["a", "b"])
    stage.submit(["c"])
    first, second = stage.broker.take_all(Submit)
    assert first == Submit(EPOCH, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b"a", b"b"])])
    assert second.runs == [(3, FUNCTION, None, [b"c"])]


def test_there_is_no_room_before_the_welcome() -> None:
    stage = ClientStage()
    assert stage.core.room == (0, 0)
    stage.connect()
    stage.broker.take(ClientHello)
    assert stage.core.room == (0, 0)


def test_room_is_what_credit_is_left() -> None:
    stage = ClientStage()
    stage.welcome(tasks=5, size_bytes=100)
    assert stage.core.room == (5, 100)
    stage.submit(["a", "b"], [b"x" * 30, b"x" * 30])
    assert stage.core.room == (3, 40)
    stage.say(Results([(1, [b"A"])]), batch=True)
    assert stage.core.room == (4, 70)
    stage.broker.forget()


def test_there_is_no_room_when_either_credit_is_used_up() -> None:
    stage = ClientStage()
    stage.welcome(tasks=2, size_bytes=100)
    stage.submit(["a", "b"])
    assert stage.core.room == (0, 0)
    stage.say(Results([(1, [b"A", b"B"])]), batch=True)
    stage.submit(["c"], [b"x" * 200])
    assert stage.core.room == (0, 0)
    stage.broker.forget()


def test_there_is_no_room_while_two_submits_are_not_acknowledged(stage: ClientStage) -> None:
    stage.submit(["a"])
    assert stage.core.room[0] > 0
    stage.submit(["b"])
    assert stage.core.room == (0, 0)
    stage.say(Acknowledge())
    assert stage.core.room[0] > 0
    stage.broker.forget()


# Outcomes.


def test_an_outcome_settles_its_call(stage: ClientStage) -> None:
    stage.submit(["a", "b", "c"])
    stage.broker.take(Submit)
    stage.say(Results([(2, [b"B", b"C"])]), batch=True)
    assert stage.outcomes == {"b": b"B", "c": b"C"}
    stage.say(Results([(1, [b"A"])]), batch=True)
    assert stage.core.statistics().awaited_tasks == 0


def test_outcomes_are_acknowledged_alone_when_nothing_goes_back(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.broker.take(Submit)
    stage.say(Results([(1, [b"A"])]), batch=True)
    assert not stage.broker.has(Acknowledge)
    stage.advance(ACKNOWLEDGE_AFTER_S)
    stage.broker.take(Acknowledge)


def test_an_outcome_that_comes_twice_settles_once_and_is_counted(stage: ClientStage) -> None:
    stage.submit(["a", "b"])
    stage.broker.take(Submit)
    stage.say(Results([(1, [b"A"])]), batch=True)
    stage.say(Results([(1, [b"again", b"B"])]), batch=True)
    assert stage.outcomes == {"a": b"A", "b": b"B"}
    stage.say(Results([(1, [b"again"])]), batch=True)
    stage.say(Results([(77, [b"of nobody"])]), batch=True)
    assert stage.core.statistics().stale_outcomes == 3


def test_running_and_printed_are_passed_on(stage: ClientStage) -> None:
    stage.submit(["a", "b", "c"])
    stage.broker.take(Submit)
    stage.say(Running([(2, 1), (77, 1)]), batch=True)
    stage.say(Printed([(2, 1, b"hello"), (0, 2, b"?")]), batch=True)
    assert stage.running == ["b"]
    assert stage.printed == [(2, 1, b"hello"), (0, 2, b"?")]


@pytest.mark.parametrize("message", [Running([(1, 1)]), Printed([(1, 1, b"x")]), Cancelled(9, [], True)])
def test_whatever_fills_the_broker_s_window_is_acknowledged_at_once(
    stage: ClientStage, message: Running | Printed | Cancelled
) -> None:
    for _ in range(2):
        stage.say(message, batch=True)
    assert stage.broker.conversation.is_open


# Calling back.


def test_what_is_called_back_waits_in_the_client_again(stage: ClientStage) -> None:
    stage.submit(["a", "b", "c"])
    stage.broker.take(Submit)
    request = stage.recall()
    assert stage.broker.take(Cancel) == Cancel(request, stage.core.identity.session)
    stage.say(Cancelled(request, [(2, 2)], True), batch=True)
    assert stage.given_back == {request: ["b", "c"]}
    assert stage.answered == [request]
    assert stage.core.statistics().awaited_tasks == 1
    stage.say(Results([(1, [b"A"])]), batch=True)


def test_an_answer_in_several_messages_is_complete_with_the_last(stage: ClientStage) -> None:
    stage.submit(["a", "b", "c"])
    stage.broker.take(Submit)
    request = stage.recall()
    stage.broker.take(Cancel)
    stage.say(Cancelled(request, [(1, 1)], False), batch=True)
    assert stage.answered == []
    stage.say(Cancelled(request, [(2, 1)], True), batch=True)
    assert stage.given_back == {request: ["a", "b"]}
    assert stage.answered == [request]


def test_a_recall_is_repeated_until_it_is_answered(stage: ClientStage) -> None:
    request = stage.recall()
    stage.broker.take(Cancel)
    reconnect(stage)
    assert stage.broker.take(Cancel).request == request
    stage.say(Cancelled(request, [], True), batch=True)
    reconnect(stage)
    assert not stage.broker.has(Cancel)


def test_a_recall_without_a_connection_is_sent_with_the_next() -> None:
    stage = ClientStage()
    request = stage.recall()
    assert not stage.broker.came
    stage.welcome()
    assert stage.broker.take(Cancel).request == request


def test_what_was_given_back_may_be_submitted_again_under_another_number(stage: ClientStage) -> None:
    stage.submit(["a"])
    request = stage.recall()
    stage.say(Cancelled(request, [(1, 1)], True), batch=True)
    stage.submit(["a"])
    assert [message.runs[0][0] for message in stage.broker.take_all(Submit)] == [1, 2]
    stage.say(Results([(1, [b"of the past"])]), batch=True)
    stage.say(Results([(2, [b"A"])]), batch=True)
    assert stage.outcomes == {"a": b"A"}
    stage.broker.take(Cancel)


# Coming back.


def test_what_was_not_acknowledged_is_submitted_again_as_it_was(stage: ClientStage) -> None:
    stage.submit(["a", "b"])
    first = stage.broker.take(Submit)
    reconnect(stage)
    assert stage.broker.take(Submit) == first
    stage.say(Acknowledge())
    reconnect(stage)
    assert not stage.broker.has(Submit)


def test_a_gap_brings_a_hello_with_the_next_connection_number(stage: ClientStage) -> None:
    stage.lose(Results([(1, [b"A"])]))
    stage.say(Beat(0))
    assert stage.core.statistics().connection == 2
    assert stage.core.statistics().gaps == 1
    stage.welcome()


def test_who_brings_a_hello_unless_one_is_under_way(stage: ClientStage) -> None:
    unnumbered(stage, Who())
    stage.broker.take(ClientHello)
    unnumbered(stage, Who())
    assert not stage.broker.has(ClientHello)


def test_a_hello_that_nobody_answers_is_said_again() -> None:
    stage = ClientStage()
    stage.connect()
    stage.broker.take(ClientHello)
    stage.advance(HELLO_RETRY_S)
    stage.broker.take(ClientHello)
    stage.advance(HELLO_RETRY_S / 2)
    stage.leave()


def test_messages_of_an_old_connection_are_dropped(stage: ClientStage) -> None:
    stage.submit(["a"])
    old = stage.broker.conversation
    reconnect(stage)
    stage.receive(Envelope(*old.stamp(), Results([(1, [b"A"])])))
    assert not stage.outcomes
    stage.broker.forget()


def test_a_broker_that_is_silent_for_ten_seconds_is_greeted_again(stage: ClientStage) -> None:
    stage.advance(SUSPECT_AFTER_S - BEAT_S)
    assert not stage.broker.has(ClientHello)
    stage.advance(2 * BEAT_S)
    stage.broker.take(ClientHello)


def test_the_client_s_own_pause_is_not_the_broker_s_silence(stage: ClientStage) -> None:
    stage.advance(3 * BEAT_S)
    stage.say(Beat(0))
    stage.clock.now += 500.0
    stage.turn()
    assert not stage.broker.has(ClientHello)


def test_a_beat_goes_each_second(stage: ClientStage) -> None:
    stage.advance(3 * BEAT_S + 0.1)
    assert len(stage.broker.take_all(Beat)) == 3


def test_a_restarted_broker_breaks_the_session(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.broker.forget()
    stage.connect()
    stage.welcome(epoch=EPOCH + 1)
    assert stage.certificate is not None
    assert "started again" in stage.certificate["note"]
    assert stage.broken_calls == ["a"]


# The end.


def test_a_broken_session_fails_all_calls_and_names_those_that_ran(stage: ClientStage) -> None:
    stage.submit(["a", "b", "c"])
    stage.broker.take(Submit)
    stage.say(Results([(1, [b"A"])]), batch=True)
    stage.say(Broken({"signal": 9, "tasks": [1, 3]}), batch=True)
    assert stage.certificate == {"signal": 9, "tasks": [1, 3], "calls": ["c"]}
    assert stage.broken_calls == ["b", "c"]
    assert stage.core.next_deadline() is None
    stage.say(Results([(2, [b"B"])]), batch=True)
    assert stage.outcomes == {"a": b"A"}


def test_a_refusal_breaks_the_session_with_its_reason(stage: ClientStage) -> None:
    unnumbered(stage, Refused("this broker speaks protocol 1.0, you speak protocol 2.0"))
    assert stage.certificate is not None
    assert "you speak protocol 2.0" in stage.certificate["note"]


def test_the_shell_may_give_up(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.broker.take(Submit)
    stage.perform(stage.core.give_up({"note": "the embedded process died"}))
    assert stage.broken_calls == ["a"]
    stage.perform(stage.core.give_up({"note": "once more"}))


def test_goodbye_ends_the_session_when_the_broker_has_answered(stage: ClientStage) -> None:
    stage.goodbye()
    assert stage.broker.take(Goodbye)
    assert not stage.has_ended
    stage.say(Goodbye("the session is over"))
    assert stage.has_ended
    assert stage.core.next_deadline() is None


def test_a_goodbye_that_was_lost_is_said_again(stage: ClientStage) -> None:
    stage.goodbye()
    stage.broker.take(Goodbye)
    reconnect(stage)
    stage.broker.take(Goodbye)


def test_a_broker_that_says_goodbye_first_breaks_the_session(stage: ClientStage) -> None:
    stage.say(Goodbye("closing time"))
    assert stage.certificate == {"note": "the broker has said goodbye: closing time", "calls": []}


def test_what_a_broker_must_not_say_is_refused(stage: ClientStage) -> None:
    with pytest.raises(RemoteProtocolError, match="Release from a broker to a client"):
        stage.say(Release([]))


# Large payloads.


def test_a_large_argument_is_referred_to_and_sent_when_it_is_needed(stage: ClientStage) -> None:
    content = bytes(range(256)) * (3 * MiB // 256)
    stage.submit(["small", "large"], [b"x", content])
    assert stage.broker.take(Submit).runs[0][3] == [b"x", Reference(CHUNKS, 2, len(content))]
    session = stage.core.identity.session
    stage.say(Need(session, 2, MiB, 3 * MiB))
    chunks = stage.broker.take_all(Chunk)
    assert b"".join(chunk.content for chunk in chunks) == content[MiB:]  # type: ignore[misc]  # all are bytes
    stage.say(Results([(2, [b"done"])]), batch=True)
    stage.say(Need(session, 2, 0, 3 * MiB))
    assert stage.broker.take(Chunk).abort


def test_a_large_function_is_referred_to_and_kept_for_whoever_needs_it(stage: ClientStage) -> None:
    code = b"f" * 2 * MiB
    run = CallRun(FUNCTION, None, ["a"], [b"a"])
    stage.perform(stage.core.submit([(FUNCTION, code, True)], [run], stage.clock.now))
    stage.flush()
    assert stage.broker.take(Submit).blobs == [(FUNCTION, Reference(BLOB, FUNCTION, len(code)), True)]
    stage.say(Results([(1, [b"A"])]), batch=True)
    stage.say(Need(stage.core.identity.session, FUNCTION, 0, len(code)))
    assert sum(len(chunk.content) for chunk in stage.broker.take_all(Chunk)) == len(code)


def test_a_large_initializer_is_referred_to_in_the_hello() -> None:
    stage = ClientStage(b"i" * 2 * MiB)
    hello = stage.welcome()
    digest = named("initializer client")
    assert hello.initializer == Reference(BLOB, digest, 2 * MiB)
    stage.say(Need(stage.core.identity.session, digest, 0, 2 * MiB))
    assert len(stage.broker.take_all(Chunk)) == 2


def give(stage: ClientStage, key: int, content: bytes) -> None:
    """Answers every `Need` for this outcome; the last one, which asks for nothing, is claimed too."""
    session = stage.core.identity.session
    while stage.broker.has(Need):
        need = stage.broker.take(Need)
        for offset in range(need.offset, need.limit, MiB):
            stage.say(Chunk(session, key, offset, content[offset : min(offset + MiB, need.limit)], False))


def test_a_large_outcome_is_pulled_before_its_call_is_settled(stage: ClientStage) -> None:
    stage.submit(["a", "b"])
    stage.broker.take(Submit)
    content = bytes(range(256)) * (9 * MiB // 256)
    outcomes: list[Payload] = [Reference(CHUNKS, 55, len(content)), b"B"]
    stage.say(Results([(1, outcomes)]), batch=True)
    assert stage.outcomes == {"b": b"B"}
    give(stage, 55, content)
    assert stage.outcomes == {"a": content, "b": b"B"}


def test_that_an_outcome_was_pulled_is_repeated_until_the_broker_has_it(stage: ClientStage) -> None:
    # Else its worker would keep it for ever.
    stage.submit(["a"])
    stage.broker.take(Submit)
    stage.say(Acknowledge())
    stage.say(Results([(1, [Reference(CHUNKS, 55, 2 * MiB)])]), batch=True)
    give(stage, 55, bytes(2 * MiB))
    stage.connect()
    stage.welcome()
    assert stage.broker.take(Need) == Need(stage.core.identity.session, 55, 2 * MiB, 2 * MiB)
    stage.say(Acknowledge())
    stage.connect()
    stage.welcome()
    assert not stage.broker.has(Need)


def test_after_a_reconnect_it_asks_again_from_where_it_stands(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.say(Results([(1, [Reference(CHUNKS, 55, 3 * MiB)])]), batch=True)
    stage.say(Chunk(stage.core.identity.session, 55, 0, bytes(MiB), False))
    stage.broker.forget()
    reconnect(stage)
    assert stage.broker.take(Need).offset == MiB
    stage.broker.forget()


def test_an_outcome_that_was_lost_with_its_worker_is_waited_for(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.broker.take(Submit)
    session = stage.core.identity.session
    stage.say(Results([(1, [Reference(CHUNKS, 55, 2 * MiB)])]), batch=True)
    stage.broker.take(Need)
    stage.say(Chunk(session, 55, 0, b"", True))
    assert stage.certificate is None
    stage.say(Results([(1, [b"made again"])]), batch=True)
    assert stage.outcomes == {"a": b"made again"}


def test_of_two_outcomes_of_a_task_that_ran_again_the_first_to_be_here_counts(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.broker.take(Submit)
    stage.say(Results([(1, [Reference(CHUNKS, 55, 2 * MiB)])]), batch=True)
    stage.broker.take(Need)
    stage.say(Results([(1, [b"made again"])]), batch=True)
    stage.say(Chunk(stage.core.identity.session, 55, 0, bytes(MiB), False))
    assert stage.outcomes == {"a": b"made again"}


def test_a_broker_that_is_not_heard_for_the_reconnect_timeout_is_given_up(stage: ClientStage) -> None:
    stage.submit(["a"])
    stage.advance(stage.core.identity.reconnect_timeout_s + BEAT_S)
    assert stage.certificate is not None
    assert "nothing was heard of the broker for" in stage.certificate["note"]
    assert stage.broken_calls == ["a"]
    stage.turn()
    stage.broker.forget()


def test_what_comes_back_of_calls_that_have_ended_is_nothing(stage: ClientStage) -> None:
    stage.submit(["a", "b"])
    request = stage.recall()
    stage.say(Results([(1, [b"A"])]), batch=True)
    stage.say(Cancelled(request, [(1, 1), (1, 2), (77, 1)], True), batch=True)
    assert stage.given_back == {request: []}
    stage.say(Results([(2, [b"B"])]), batch=True)
    assert stage.outcomes == {"a": b"A", "b": b"B"}
    stage.broker.forget()
