"""The worker's shell alone, with real children, towards a broker that a test plays over ZeroMQ."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from inbox import EPOCH, VERSION, named
from left_behind import processes_of_this_run
from netfutures.client.functions import Function, FunctionTable
from netfutures.conversation import Conversation
from netfutures.fields import Blob, Payload
from netfutures.limits import CREDIT_BYTES, CREDIT_TASKS, LEASE_S
from netfutures.payload import dump_call, load_outcome
from netfutures.transport import RouterLink
from netfutures.wire import (
    Acknowledge,
    Beat,
    Close,
    Envelope,
    Finished,
    Lost,
    Open,
    Refused,
    Release,
    Started,
    Submit,
    Tasks,
    Welcome,
    Who,
    WorkerHello,
)
from shell_stage import LIMIT_S, Loop, Peer, worker
from tasks import double, end_process, pid

SESSION = named("session")
DOUBLE = FunctionTable().find(double)
PID = FunctionTable().find(pid)


class BrokerPeer(Peer):
    """A broker whose every word a test writes, for one worker."""

    next_base = 1
    acknowledges = True

    def welcome(self) -> WorkerHello:
        """Waits for a hello and answers it."""
        hello = self.await_message(WorkerHello)
        self.say(Welcome(VERSION, EPOCH, CREDIT_TASKS, CREDIT_BYTES, LEASE_S))
        return hello

    def hear(self, envelope: Envelope) -> None:
        """A hello begins another connection, whose number is the worker's choice; batches are acknowledged."""
        message = envelope.message
        if isinstance(message, WorkerHello):
            self.conversation = Conversation(envelope.connection)
        elif self.conversation.connection == 0:
            self.came.append(message)
            return
        super().hear(envelope)
        if self.acknowledges and isinstance(message, (Started, Finished, Lost)):
            self.say(Acknowledge())

    def hand(self, function: Function, *arguments: object, session: bytes = SESSION) -> int:
        """Hands out tasks."""
        base, self.next_base = self.next_base, self.next_base + len(arguments)
        blobs: list[Blob] = [(function.digest, function.payload, function.cacheable)]
        payloads: list[Payload] = [dump_call((each,), {}) for each in arguments]
        self.say(Tasks(session, blobs, [(base, function.digest, None, payloads)]), batch=True)
        return base

    def values(self, count: int) -> list[object]:
        """What the next so many outcomes hold."""
        found: list[object] = []
        while len(found) < count:
            message = self.await_message(Finished)
            for base, offset, outcomes in message.runs:
                self.say(Release([(base, offset, len(outcomes))]))
                found += [load_outcome(outcome)[0] for outcome in outcomes]  # type: ignore[arg-type]  # all are small
        return found


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="nf") as folder:
        yield Path(folder)


@pytest.fixture
def peer(loop: Loop, folder: Path) -> Iterator[BrokerPeer]:
    peer = BrokerPeer(loop, "broker", RouterLink(f"ipc://{folder}/s"))
    yield peer
    peer.vanish()


@pytest.fixture
def process(peer: BrokerPeer, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker that is welcome, with a session that is open."""
    with worker(f"ipc://{folder}/s", 2) as process:
        hello = peer.welcome()
        assert (hello.slots, hello.pid) == (2, process.pid)
        peer.say(Open(SESSION, {}, None))
        yield process


def test_tasks_are_run_and_told(peer: BrokerPeer, process: subprocess.Popen[str]) -> None:
    peer.hand(DOUBLE, 1, 2, 3)
    assert sorted(peer.values(3), key=str) == [2, 4, 6]
    peer.hand(DOUBLE, "a" * 20_000)
    assert peer.values(1) == ["a" * 40_000]


def test_garbage_of_the_broker_is_dropped_and_said(peer: BrokerPeer, process: subprocess.Popen[str]) -> None:
    peer.link._socket.send_multipart([peer.route, b"garbage"])  # type: ignore[attr-defined]  # below the protocol
    peer.hand(DOUBLE, 4)
    assert peer.values(1) == [8]
    assert "dropped what the broker sent" in _log_of(process)


def test_a_broker_that_breaks_the_protocol_hears_another_hello(
    peer: BrokerPeer, process: subprocess.Popen[str]
) -> None:
    base = peer.hand(DOUBLE, 4)
    peer.await_message(Finished)
    peer.say(Submit(EPOCH, [], []))
    hello = peer.welcome()
    assert peer.conversation.connection == 2
    assert hello.finished == [(base, 0, 1)]
    peer.hand(DOUBLE, 5)
    assert peer.values(1) == [10]
    assert "broke the protocol: Submit" in _log_of(process)


def test_a_broker_that_lost_its_memory_asks_and_is_told_what_is_held(
    peer: BrokerPeer, process: subprocess.Popen[str]
) -> None:
    peer.acknowledges = False
    base = peer.hand(DOUBLE, 5)
    peer.await_message(Finished)
    peer.conversation = Conversation(0)
    peer.say(Who())
    hello = peer.welcome()
    assert (hello.sessions, hello.finished) == ([SESSION], [(base, 0, 1)])
    assert peer.values(1) == [10]


def test_a_worker_finds_a_broker_that_was_started_again(
    loop: Loop, peer: BrokerPeer, process: subprocess.Popen[str], folder: Path
) -> None:
    peer.vanish()
    again = BrokerPeer(loop, "broker", RouterLink(f"ipc://{folder}/s"))
    again.await_message(Beat)
    again.say(Who())
    assert again.welcome().sessions == [SESSION]
    again.hand(DOUBLE, 6)
    assert again.values(1) == [12]
    again.vanish()


def test_a_dead_child_is_told_with_its_certificate(peer: BrokerPeer, process: subprocess.Popen[str]) -> None:
    base = peer.hand(FunctionTable().find(end_process), 17)
    lost = peer.await_message(Lost)
    assert (lost.session, lost.dispatched) == (SESSION, [(base, 0, 1)])
    assert lost.certificate["exit_code"] == 17
    peer.hand(DOUBLE, 1)
    assert peer.values(1) == [2]


def test_a_closed_session_s_children_make_room_for_another_session(
    peer: BrokerPeer, process: subprocess.Popen[str]
) -> None:
    peer.hand(PID, 1, 2, 3)
    before = set(peer.values(3))
    peer.say(Close(SESSION, True))
    other = named("other")
    peer.say(Open(other, {}, None))
    peer.hand(PID, 1, 2, 3, session=other)
    assert before.isdisjoint(peer.values(3))
    assert before.isdisjoint(processes_of_this_run())


def test_a_refused_worker_ends_with_the_reason(peer: BrokerPeer, folder: Path) -> None:
    with worker(f"ipc://{folder}/s") as process:
        peer.await_message(WorkerHello)
        peer.conversation = Conversation(0)
        peer.say(Refused("another protocol: install the same netfutures on both sides"))
        assert process.wait(LIMIT_S) == 1
        assert "install the same netfutures" in _log_of(process)


def _log_of(process: subprocess.Popen[str]) -> str:
    """All that it has logged, once it has ended, as it is told to."""
    return process.communicate(timeout=LIMIT_S)[1]
