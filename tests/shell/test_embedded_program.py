"""The embedded cluster's program alone: a test plays its client, over the socket that it inherits."""

import marshal
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbox import FUNCTION, VERSION, Inbox
from left_behind import processes_of_this_run, wait_until_gone
from link_stage import LIMIT_S
from netfutures import embedded_main
from netfutures.client.functions import FunctionTable
from netfutures.fields import Payload
from netfutures.payload import dump_call, load_outcome
from netfutures.poller import Poller
from netfutures.stream import StreamLink
from netfutures.wire import (
    Acknowledge,
    ClientHello,
    Envelope,
    Goodbye,
    Message,
    Refused,
    Results,
    Running,
    Submit,
    Welcome,
)
from tasks import double

PROGRAM = Path(embedded_main.__file__)


class ClientPeer(Inbox):
    """A client whose every word a test writes, and its cluster."""

    def __init__(self) -> None:
        super().__init__("client")
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", str(PROGRAM), str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        setup = marshal.dumps({"sys_path": sys.path, "argv": ["played"], "slots": 2, "warnings": []})
        ours.sendall(len(setup).to_bytes(8, "little") + setup)
        ours.settimeout(LIMIT_S)
        assert ours.recv(5) == b"ready"
        self.socket = ours
        self.link = StreamLink(ours, b"broker")
        self._poller = Poller()
        self._poller.watch(ours.fileno(), self.link.mark_readable, edge=True)

    def say(self, message: Message, *, batch: bool = False) -> None:
        """Says something on its present connection."""
        self.link.send(b"", Envelope(*self.conversation.stamp(batch), message))

    def welcome(self) -> Welcome:
        """Opens its session."""
        self.conversation.connection += 1
        self.say(ClientHello(VERSION, self.identity, self.token, {}, 60.0, {}, None))
        answer = self.await_message(Welcome)
        assert isinstance(answer, Welcome)
        return answer

    def submit(self, epoch: int, first: int, *payloads: Payload) -> None:
        """Submits calls of `double`."""
        blob = (FUNCTION, FunctionTable().find(double).payload, True)
        self.say(Submit(epoch, [blob], [(first, FUNCTION, None, list(payloads))]), batch=True)

    def await_message(self, kind: type[Message]) -> Message:
        """The next message of this kind."""
        deadline = time.monotonic() + LIMIT_S
        while not self.has(kind):
            assert time.monotonic() < deadline, f"no {kind.__name__} came, only {self.came}"
            received = self.link.receive()
            if received is not None:
                self.hear(received.envelope)
                if isinstance(received.envelope.message, Results | Running):
                    self.say(Acknowledge())  # Else its window stays shut.
            elif not self.link.is_ready():
                assert not self.link.has_ended, "the cluster has ended the connection"
                self._poller.wait(LIMIT_S)
        return self.take(kind)

    def close(self) -> None:
        self._poller.close()
        self.link.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def client() -> Iterator[ClientPeer]:
    client = ClientPeer()
    yield client
    client.close()


def call(*arguments: object) -> bytes:
    return bytes(dump_call(arguments, {}))


def test_it_runs_calls_and_ends_in_good_order_at_a_goodbye(client: ClientPeer) -> None:
    epoch = client.welcome().epoch
    client.submit(epoch, 1, call(20), call("ab"))
    found: dict[int, object] = {}
    while len(found) < 2:
        message = client.await_message(Results)
        assert isinstance(message, Results)
        for first, outcomes in message.runs:
            for number, outcome in enumerate(outcomes, first):
                found[number] = load_outcome(outcome)[0]  # type: ignore[arg-type]  # they are small
    assert found == {1: 40, 2: "abab"}
    client.say(Goodbye("all is done"))
    client.await_message(Goodbye)
    assert client.process.wait(LIMIT_S) == 0
    assert not _of_session(client.process.pid)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n", b"\0" * 100, b"\1\0\0\0\3\0\0\0abc"], ids=["text", "zeros", "a frame"]
)
def test_garbage_ends_the_session_and_costs_no_time_of_a_core(client: ClientPeer, garbage: bytes) -> None:
    client.welcome()
    client.socket.send(garbage)
    while not client.link.has_ended and not client.has(Refused):
        client._poller.wait(LIMIT_S)
        received = client.link.receive()
        if received is not None:
            client.hear(received.envelope)
    before = _cpu_ticks(client.process.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(0.5)
    assert _cpu_ticks(client.process.pid) - before <= 10
    client.process.terminate()
    assert client.process.wait(LIMIT_S) == 0


def test_an_idle_cluster_sleeps(client: ClientPeer) -> None:
    client.welcome()
    switches = _voluntary_switches(client.process.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        client.process.wait(1.5)
    assert _voluntary_switches(client.process.pid) - switches <= 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_takes_all_its_children_along(client: ClientPeer, number: signal.Signals) -> None:
    epoch = client.welcome().epoch
    client.submit(epoch, 1, call(1))
    client.await_message(Results)
    known = set(processes_of_this_run()) - set(_of_session(client.process.pid))
    client.process.send_signal(number)
    client.process.wait(LIMIT_S)
    assert not wait_until_gone(known, 2.0)


def _of_session(session: int) -> list[int]:
    return [each for each in processes_of_this_run() if _session_of(each) == session]


def _session_of(process: int) -> int:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return 0  # It has just ended.


def _cpu_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _voluntary_switches(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
