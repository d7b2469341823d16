"""The client's I/O thread alone, towards a process that a test plays at the place of the embedded cluster."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from netfutures import BrokenWorkerPool, Executor
from netfutures.client import embedded
from netfutures.client.embedded import Embedded

PRELUDE = """
import marshal, os, select, signal, socket, struct, sys
channel = socket.socket(fileno=int(sys.argv[1]))
size = int.from_bytes(channel.recv(8, socket.MSG_WAITALL), "little")
sys.path[:] = marshal.loads(channel.recv(size, socket.MSG_WAITALL))["sys_path"]
"""
SERVING = (
    PRELUDE
    + """
from netfutures.conversation import Conversation
from netfutures.payload import dump_value
from netfutures.stream import StreamLink
from netfutures.wire import *
channel.send(b"ready")
link = StreamLink(channel, b"client")
conversation = Conversation(1)

def hear(kind):
    while True:
        received = link.receive()
        if received is None:
            select.select([channel], [], [])
            link.mark_readable()
        else:
            envelope = received.envelope
            conversation.accept(*envelope[:3])
            if isinstance(envelope.message, kind):
                return envelope.message

def say(message, connection=None):
    numbers = conversation.stamp() if connection is None else (connection, 0, 0)
    link.send(b"", Envelope(*numbers, message))

hello = hear(ClientHello)
"""
)
WELCOME = SERVING + "say(Welcome((1, 0), 7, 100, 1 << 20, 30.0))\nsubmitted = hear(Submit)\n"
STAY = "\nhear(type(None))\n"
LIMIT_S = 30.0

Play = Callable[[str], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Puts a program at the place of the embedded cluster."""

    def put(text: str) -> None:
        program = tmp_path / "played.py"
        program.write_text(text)
        monkeypatch.setattr(embedded, "PROGRAM", program)

    return put


def open_files() -> dict[str, str]:
    """The descriptors of this process, and what each leads to, once what is unused is freed."""
    gc.collect()
    folder = Path("/proc/self/fd")
    return {fd.name: os.readlink(fd) for fd in folder.iterdir() if fd.is_symlink()}


def error_of_a_call() -> BrokenWorkerPool:
    """What a user gets for a call, the executor's later calls, and how long the end takes."""
    executor = Executor(1)
    future = executor.submit(len, "abc")
    error = future.exception(LIMIT_S)
    assert isinstance(error, BrokenWorkerPool)
    with pytest.raises(BrokenWorkerPool):
        executor.submit(len, "abc").result(LIMIT_S)
    begin = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - begin < 5
    return error


ENDS = {
    "ends before it was told anything": ("", ["embedded cluster"]),
    "fails before it is ready": (PRELUDE + "sys.exit(4)", ["ended before it was ready"]),
    "is killed before it is ready": (PRELUDE + "os.kill(os.getpid(), signal.SIGKILL)", ["was ready"]),
    "says something else": (PRELUDE + "channel.send(b'hello'); signal.pause()", ["was ready"]),
    "ends at once": (SERVING + "sys.exit(5)", ["exit code 5", "all its children ended with it"]),
    "is killed": (WELCOME + "os.kill(os.getpid(), signal.SIGKILL)", ["SIGKILL", "embedded cluster died"]),
    "closes its end": (WELCOME + "channel.shutdown(socket.SHUT_RDWR); signal.pause()", ["ended the connection"]),
    "closes its end behind a message": (
        WELCOME + "say(Beat(0)); channel.shutdown(socket.SHUT_RDWR); signal.pause()",
        ["ended the connection"],
    ),
    "sends a head that makes no sense": (
        WELCOME + "channel.send(b'GET / HTTP/1.1\\r\\n')" + STAY,
        ["broke the protocol: a message of"],
    ),
    "sends a frame that makes no sense": (
        WELCOME + "channel.send(struct.pack('<II', 1, 3) + b'abc')" + STAY,
        ["broke the protocol: not a message"],
    ),
    "breaks the protocol": (WELCOME + "say(Drain(1.0))" + STAY, ["broke the protocol", "Drain"]),
    "refuses": (SERVING + "say(Refused('another version'), 0)" + STAY, ["another version"]),
    "breaks the session": (WELCOME + "say(Broken({'note': 'as it says'}))" + STAY, ["as it says"]),
    "says goodbye unasked": (WELCOME + "say(Goodbye('tired'))" + STAY, ["tired"]),
}


@pytest.mark.parametrize("what", ENDS)
def test_the_pool_is_broken_with_the_cause_when_the_cluster(play: Play, what: str) -> None:
    program, says = ENDS[what]
    play(program)
    text = str(error_of_a_call())
    for words in says:
        assert words in text


def test_a_cluster_that_does_not_get_ready_is_given_up(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "EMBEDDED_START_TIMEOUT_S", 0.3)
    play(PRELUDE + "signal.pause()")
    assert "timed out" in str(error_of_a_call())


def test_what_is_not_awaited_is_ignored(play: Play) -> None:
    play(
        WELCOME
        + """
say(Results([(1000, [dump_value("nobody asked")])]))
say(Printed([(1000, 1, b"printed by nobody\\n")]))
say(Cancelled(99, [(1000, 3)], True))
say(Running([(1, 1), (1000, 2)]))
say(Chunk(hello.session, 5, 0, b"bytes", False))
say(Results([(1, [dump_value(True)]), (1, [dump_value(False)])]))
hear(Goodbye)
say(Goodbye("yes"))
"""
    )
    with Executor(1) as executor:
        assert executor.submit(len, "abc").result(LIMIT_S) is True


def test_a_process_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    before = open_files()
    text = str(error_of_a_call())
    assert "could not be started" in text
    assert "/nowhere/python" in text
    assert open_files() == before


def test_an_unstarted_cluster_ends_without_a_trace() -> None:
    Embedded(1).end(at_once=True)
