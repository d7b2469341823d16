"""Stories of the broker's core: gaps, hellos, parties that are away, leases, and its own pauses."""

from collections.abc import Iterator

import pytest

from broker_stage import BrokerStage, ClientPeer
from inbox import FUNCTION
from netfutures.limits import BEAT_S, LEASE_S, PAUSE_S, PROTOCOL_MAJOR, RECONNECT_TIMEOUT_MAX_S, WHO_INTERVAL_S
from netfutures.wire import (
    Acknowledge,
    Beat,
    Broken,
    Cancel,
    Cancelled,
    ClientHello,
    Close,
    Envelope,
    Goodbye,
    Open,
    Output,
    Printed,
    Refused,
    Results,
    Stale,
    Submit,
    Tasks,
    Welcome,
    Who,
    WorkerHello,
)
from netfutures_broker.core.connections import ASKED_ROUTES_MAX


@pytest.fixture
def stage() -> Iterator[BrokerStage]:
    stage = BrokerStage()
    yield stage
    stage.leave()


# Hello.


def test_an_unknown_peer_is_asked_who_it_is_at_most_once_a_second(stage: BrokerStage) -> None:
    stranger = stage.stranger()
    stranger.say(Beat(1))
    stranger.say(Acknowledge())
    assert len(stranger.take_all(Who)) == 1
    stage.advance(WHO_INTERVAL_S)
    stranger.say(Beat(1))
    stranger.take(Who)


def test_an_unknown_peer_cannot_submit(stage: BrokerStage) -> None:
    stranger = stage.stranger()
    stranger.say(Submit(7, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b"x"])]))
    stranger.take(Who)
    assert stage.core.statistics().queued_tasks == 0


@pytest.mark.parametrize("role", ["client", "worker"])
def test_another_major_protocol_is_refused_with_a_sentence_that_names_both(stage: BrokerStage, role: str) -> None:
    stranger = stage.stranger()
    stranger.new_connection()
    theirs, versions = (PROTOCOL_MAJOR + 1, 3), {"netfutures": "9.9"}
    if role == "client":
        stranger.say(ClientHello(theirs, b"s" * 16, b"t" * 16, versions, 60.0, {}, None))
    else:
        stranger.say(WorkerHello(theirs, b"w" * 16, b"t" * 16, versions, "host", 1, 1, 1, [], [], []))
    reason = stranger.take(Refused).reason
    assert f"this broker speaks protocol {PROTOCOL_MAJOR}." in reason
    assert f"you speak protocol {PROTOCOL_MAJOR + 1}.3 (netfutures 9.9)" in reason
    assert "install the same netfutures" in reason
    assert stage.core.statistics().refused == 1


def test_another_minor_protocol_is_welcome(stage: BrokerStage) -> None:
    stranger = stage.stranger()
    stranger.new_connection()
    stranger.say(WorkerHello((PROTOCOL_MAJOR, 99), b"w" * 16, b"t" * 16, {}, "host", 1, 1, 1, [], [], []))
    stranger.take(Welcome)


def test_a_hello_of_an_older_connection_is_dropped(stage: BrokerStage) -> None:
    client = stage.client()
    client.hello()
    newest = client.conversation
    client.conversation = type(newest)(newest.connection - 1)
    with pytest.raises(AssertionError, match="no Welcome"):
        client.hello()
    client.conversation = newest
    assert stage.core.statistics().stale_messages == 1


def test_somebody_else_cannot_take_a_session_over(stage: BrokerStage) -> None:
    client = stage.client()
    thief = ClientPeer(stage, "client")
    thief.route, thief.token = b"route of the thief", b"another token..."
    thief.conversation = type(client.conversation)(5)
    stage.peers[thief.route] = thief
    with pytest.raises(AssertionError, match="no Welcome"):
        thief.hello()
    client.submit(b"x")
    assert stage.core.statistics().queued_tasks == 1


# Gaps.


def test_a_gap_ends_the_connection_and_the_next_hello_repairs_it(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10)
    lost = client.submission(b"a")
    client.lose(lost, batch=True)
    client.say(Beat(0))
    client.take(Who)
    assert stage.core.statistics().gaps == 1
    client.hello()
    client.say(lost, batch=True)
    worker.take(Open)
    assert worker.payloads() == [b"a"]


def test_after_a_gap_everything_of_the_old_connection_is_dropped(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=10)
    old = client.conversation
    client.hello()
    stage.receive(client.route, Envelope(old.connection, 2, 1, client.submission(b"stale")))
    assert not worker.has(Tasks)
    assert stage.core.statistics().stale_messages == 1


def test_outcomes_that_were_not_acknowledged_are_sent_again(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    worker.finish(1, b"A")
    assert client.results() == {1: b"A"}
    client.hello()
    assert client.results() == {1: b"A"}
    client.acknowledge()
    client.hello()
    assert not client.has(Results)
    worker.forget()


def test_output_and_outcomes_are_repeated_in_their_old_order(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.say(Output([(client.identity, 1, 0, 1, b"text")]), batch=True)
    worker.finish(1, b"A")
    client.forget()
    client.hello()
    assert [type(message) for message in client.came] == [Printed, Results]
    client.forget()


def test_a_message_of_tasks_that_was_lost_is_handed_out_again_without_an_attempt_spent(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    worker.hello(sessions=[client.identity])
    assert [run[0] for run in worker.handed()] == [3]
    worker.finish(3, b"A", b"B")
    assert client.results() == {1: b"A", 2: b"B"}


def test_only_what_the_worker_does_not_claim_is_handed_out_again(stage: BrokerStage) -> None:
    client, worker = stage.client(retries=0), stage.worker(credit=10)
    client.submit(*[b"%d" % number for number in range(6)])
    worker.forget()
    worker.hello(sessions=[client.identity], held=[(1, 1, 2)], finished=[(1, 4, 1)])
    assert [(run[0], run[3]) for run in worker.handed()] == [(7, [b"0"]), (8, [b"3"]), (9, [b"5"])]
    worker.finish(1, b"4", offset=4)
    assert client.results() == {5: b"4"}


def test_a_worker_that_claims_more_than_it_was_handed_is_told_what_is_stale(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.hello(sessions=[client.identity], held=[(1, 0, 1), (50, 0, 2)], finished=[(60, 1, 1)])
    assert worker.take(Stale).dispatched == [(50, 0, 2), (60, 1, 1)]
    assert not worker.has(Tasks)


def test_a_worker_that_comes_back_is_told_which_of_its_sessions_are_over(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    worker.hello(sessions=[client.identity, b"of the past....."])
    assert worker.take(Close) == Close(b"of the past.....", True)
    client.submit(b"a")
    assert not worker.has(Open)
    assert worker.payloads() == [b"a"]


def test_a_recall_that_was_lost_on_the_way_to_a_worker_is_sent_again(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    client.say(Cancel(1, client.identity))
    request = worker.take(Cancel).request
    worker.hello(sessions=[client.identity], held=[(1, 0, 1)])
    assert worker.take(Cancel).request == request
    worker.take_back(request, (1, 0, 1))
    assert client.take(Cancelled).numbers == [(1, 1)]


def test_two_parties_on_one_route_are_told_apart(stage: BrokerStage) -> None:
    # A process that opens a second session on its connection leaves no trace of the first one's route.
    one = stage.client("one")
    other = ClientPeer(stage, "other")
    other.route = one.route
    stage.peers[one.route] = other
    other.hello()
    stage.advance(3 * BEAT_S)
    assert stage.core.state.sessions[one.identity].line is None


# Away, and lost.


def test_a_worker_that_comes_back_within_two_seconds_has_lost_nothing(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    stage.perform(stage.core.unreachable(worker.route, stage.clock.now))
    stage.advance(PAUSE_S * 0.9)
    worker.hello(sessions=[client.identity], held=[(1, 0, 1)])
    stage.advance(PAUSE_S)
    worker.finish(1, b"A")
    assert client.results() == {1: b"A"}


def test_a_worker_whose_connection_ended_is_lost_after_two_seconds(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    stage.perform(stage.core.unreachable(worker.route, stage.clock.now))
    stage.advance(PAUSE_S)
    certificate = client.take(Broken).certificate
    assert certificate["host"] == "host of worker"
    assert certificate["note"] == "its connection ended and did not come back"


def test_a_silent_worker_is_lost_when_its_lease_is_over(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    stage.advance(LEASE_S - BEAT_S)
    assert not client.has(Broken)
    stage.advance(2 * BEAT_S)
    certificate = client.take(Broken).certificate
    assert certificate["seconds_since_beat"] >= LEASE_S
    assert "it was silent for" in certificate["note"]
    worker.take(Close)


def test_a_worker_that_beats_is_never_lost(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    for _ in range(3 * int(LEASE_S)):
        stage.advance(BEAT_S)
        worker.say(Beat(4))
    assert not client.has(Broken)


def test_the_broker_s_own_pause_is_nobody_else_s_silence(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    stage.advance(BEAT_S)
    stage.advance(10 * LEASE_S, sleeping=True)
    assert not client.has(Broken)
    worker.say(Beat(4))
    worker.finish(1, b"A")
    assert client.results() == {1: b"A"}


def test_a_pause_also_extends_the_patience_with_who_is_away(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    stage.perform(stage.core.unreachable(worker.route, stage.clock.now))
    stage.advance(100.0, sleeping=True)
    worker.hello(sessions=[client.identity], held=[(1, 0, 1)])
    assert not client.has(Broken)


def test_nothing_new_starts_for_a_client_that_is_away(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker(credit=1)
    client.submit(b"a", b"b")
    worker.forget()
    stage.perform(stage.core.unreachable(client.route, stage.clock.now))
    worker.finish(1, b"A")
    assert not worker.has(Tasks)
    client.hello()
    assert worker.payloads() == [b"b"]
    assert client.results() == {1: b"A"}


def test_a_client_that_does_not_come_back_is_dropped_and_its_tasks_ended(stage: BrokerStage) -> None:
    client, worker = stage.client(reconnect_timeout_s=20.0), stage.worker(credit=1)
    client.submit(b"a", b"b")
    worker.forget()
    stage.perform(stage.core.unreachable(client.route, stage.clock.now))
    for _ in range(19):
        stage.advance(1.0)
        worker.say(Beat(1))
    assert not stage.ended
    stage.advance(2.0)
    assert stage.ended == [client.identity]
    assert worker.take(Close) == Close(client.identity, True)


def test_a_client_may_not_ask_for_endless_patience(stage: BrokerStage) -> None:
    client = stage.client(reconnect_timeout_s=1e6)
    stage.perform(stage.core.unreachable(client.route, stage.clock.now))
    stage.advance(RECONNECT_TIMEOUT_MAX_S + 1)
    assert stage.ended == [client.identity]


def test_a_client_that_comes_back_after_it_was_dropped_is_told(stage: BrokerStage) -> None:
    client = stage.client(reconnect_timeout_s=1.0)
    stage.perform(stage.core.unreachable(client.route, stage.clock.now))
    stage.advance(2.0)
    with pytest.raises(AssertionError, match="no Welcome"):
        client.hello()
    assert "your session and its tasks were dropped" in client.take(Refused).reason


def test_a_broker_that_nobody_talks_to_sleeps_for_ever(stage: BrokerStage) -> None:
    assert stage.core.next_deadline() is None


def test_everybody_who_is_connected_hears_a_beat_each_second(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    stage.advance(10 * BEAT_S + 0.1)
    assert len(client.take_all(Beat)) == len(worker.take_all(Beat)) == 10


def test_many_strangers_are_not_remembered_for_ever(stage: BrokerStage) -> None:
    for number in range(ASKED_ROUTES_MAX + 10):
        stage.receive(b"stranger %d" % number, Envelope(1, 1, 0, Beat(0)))
    assert len(stage.core.state.asked_who) <= ASKED_ROUTES_MAX


def test_a_worker_s_hello_of_an_older_connection_is_dropped(stage: BrokerStage) -> None:
    worker = stage.worker()
    worker.hello()
    newest = worker.conversation
    worker.conversation = type(newest)(newest.connection - 1)
    with pytest.raises(AssertionError, match="no Welcome"):
        worker.hello()
    worker.conversation = newest
    assert stage.core.statistics().stale_messages == 1


def test_a_worker_that_says_goodbye_is_gone(stage: BrokerStage) -> None:
    worker = stage.worker()
    worker.say(Goodbye("stopped"))
    assert stage.core.statistics().workers == 0
    worker.say(Beat(1))
    worker.take(Who)
