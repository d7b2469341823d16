"""The broker's shell alone, among peers that a test plays over ZeroMQ: who is served, refused, dropped, told."""

from collections.abc import Callable

import pytest
import zmq

from inbox import FUNCTION, VERSION, named
from netfutures.link import LocalLink
from netfutures.wire import (
    Acknowledge,
    Beat,
    Broken,
    ClientHello,
    Envelope,
    Finished,
    Goodbye,
    Message,
    Open,
    Refused,
    Results,
    Submit,
    Tasks,
    Welcome,
    Who,
    WorkerHello,
)
from netfutures_broker.core.scheduler import Scheduler
from netfutures_broker.shell import FRAMES_PER_TURN_MAX, BrokerShell
from shell_stage import Broker, Loop, Peer, clock

MakePeer = Callable[[str], Peer]


def client_hello(peer: Peer, reconnect_timeout_s: float = 60.0) -> ClientHello:
    return ClientHello(VERSION, peer.identity, peer.token, {}, reconnect_timeout_s, {"retries": None}, None)


def worker_hello(peer: Peer) -> WorkerHello:
    return WorkerHello(VERSION, peer.identity, peer.token, {}, "here", 1, 2, 4, [], [], [])


def welcome(peer: Peer, hello: Message) -> Welcome:
    peer.open(hello)
    return peer.await_message(Welcome)


def test_a_task_goes_to_a_worker_and_its_outcome_comes_back(make_peer: MakePeer) -> None:
    client, worker = make_peer("client"), make_peer("worker")
    epoch = welcome(client, client_hello(client)).epoch
    assert welcome(worker, worker_hello(worker)).epoch == epoch
    argument, outcome = b"a" * 20_000, b"o" * 200_000
    client.say(Submit(epoch, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [argument])]), batch=True)
    assert worker.await_message(Open).session == client.identity
    [(base, digest, _, payloads)] = worker.await_message(Tasks).runs
    assert (digest, payloads) == (FUNCTION, [argument])
    worker.say(Finished(4, [(base, 0, [outcome])]), batch=True)
    assert client.await_message(Results).runs == [(1, [outcome])]
    client.say(Goodbye("done"))
    client.await_message(Goodbye)


def test_a_party_that_sends_garbage_is_refused_and_may_come_back(
    loop: Loop, broker: Broker, make_peer: MakePeer
) -> None:
    client, worker = make_peer("client"), make_peer("worker")
    epoch = welcome(client, client_hello(client)).epoch
    welcome(worker, worker_hello(worker))
    worker.link._socket.send(b"garbage")  # type: ignore[attr-defined]  # below the protocol
    assert "not a message" in worker.await_message(Refused).reason
    client.say(Submit(epoch, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b""])]), batch=True)
    client.await_message(Acknowledge)
    assert not worker.has(Tasks)
    welcome(worker, worker_hello(worker))
    worker.await_message(Tasks)
    assert broker.core.statistics().refused == 1


def test_who_says_what_is_not_its_to_say_is_refused(broker: Broker, make_peer: MakePeer) -> None:
    worker, client = make_peer("worker"), make_peer("client")
    epoch = welcome(worker, worker_hello(worker)).epoch
    welcome(client, client_hello(client))
    worker.say(Submit(epoch, [], [(1, FUNCTION, None, [b""])]), batch=True)
    assert "Submit from a Worker" in worker.await_message(Refused).reason
    client.say(Beat(0))
    client.say(Submit(epoch, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b""])]), batch=True)
    client.await_message(Acknowledge)


def test_another_major_protocol_is_told_both_sides_versions(make_peer: MakePeer) -> None:
    peer = make_peer("client")
    hello = client_hello(peer)
    hello.protocol = (99, 3)
    peer.open(hello)
    reason = peer.await_message(Refused).reason
    assert "99.3" in reason
    assert f"{VERSION[0]}.{VERSION[1]}" in reason


def test_a_stranger_is_asked_who_it_is(make_peer: MakePeer) -> None:
    stranger = make_peer("stranger")
    stranger.say(Beat(0))
    stranger.await_message(Who)


def test_a_client_that_is_gone_is_noticed_when_it_is_sent_something(
    loop: Loop, broker: Broker, make_peer: MakePeer
) -> None:
    client, other = make_peer("client"), make_peer("other")
    welcome(client, client_hello(client, reconnect_timeout_s=0.0))
    welcome(other, client_hello(other))
    client.vanish()
    loop.run_until(lambda: broker.ended == [client.identity])
    other.say(Beat(0))
    other.await_message(Beat)


def test_a_client_that_comes_back_in_time_finds_its_tasks(loop: Loop, broker: Broker, make_peer: MakePeer) -> None:
    client, worker = make_peer("client"), make_peer("worker")
    epoch = welcome(client, client_hello(client)).epoch
    client.say(Submit(epoch, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b"one"])]), batch=True)
    client.await_message(Acknowledge)
    client.vanish()
    welcome(worker, worker_hello(worker))
    [(base, *_)] = worker.await_message(Tasks).runs
    worker.say(Finished(4, [(base, 0, [b"outcome"])]), batch=True)
    again = make_peer("client")
    again.conversation.connection = 1
    welcome(again, client_hello(again))
    assert again.await_message(Results).runs == [(1, [b"outcome"])]


@pytest.mark.medium
def test_a_worker_that_is_gone_breaks_who_is_tied_to_it(loop: Loop, make_peer: MakePeer) -> None:
    client, worker = make_peer("client"), make_peer("worker")
    epoch = welcome(client, client_hello(client)).epoch
    welcome(worker, worker_hello(worker))
    client.say(Submit(epoch, [(FUNCTION, b"code", True)], [(1, FUNCTION, None, [b"one"])]), batch=True)
    worker.await_message(Tasks)
    worker.vanish()
    certificate = client.await_message(Broken).certificate
    assert certificate["host"] == "here"
    assert "did not come back" in certificate["note"]


def test_no_link_keeps_the_others_waiting() -> None:
    """A turn takes so many messages from one link, then looks at the next."""
    loud, quiet = LocalLink.pair(b"loud"), LocalLink.pair(b"quiet")
    shell = BrokerShell(Scheduler(7), {b"loud": loud[0], b"quiet": quiet[0]}, clock, lambda _: None)
    for _ in range(3 * FRAMES_PER_TURN_MAX):
        loud[1].send(b"", Envelope(0, 0, 0, Beat(0)))
    session = named("session")
    quiet[1].send(b"", Envelope(1, 1, 0, ClientHello(VERSION, session, session, {}, 60.0, {}, None)))
    assert shell.is_ready()
    shell.step()
    answer = quiet[1].receive()
    assert answer is not None
    assert isinstance(answer.envelope.message, Welcome)
    assert shell.is_ready()


def test_only_what_was_asked_for_wakes_an_idle_broker(loop: Loop, broker: Broker, make_peer: MakePeer) -> None:
    assert broker.deadline() is None
    peer = make_peer("client")
    welcome(peer, client_hello(peer))
    deadline = broker.deadline()
    assert deadline is not None
    assert 0 < deadline - clock() <= 1.1


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.PUB])
def test_other_kinds_of_sockets_disturb_nobody(broker: Broker, make_peer: MakePeer, kind: int) -> None:
    with zmq.Context() as context, context.socket(kind) as stranger:
        stranger.connect(broker.endpoint)
        stranger.send(b"hello")
        peer = make_peer("client")
        welcome(peer, client_hello(peer))
        stranger.close(linger=0)
