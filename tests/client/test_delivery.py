"""What tasks print reaches the client's streams before their futures are done; callbacks run in order."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from netfutures.client import delivery as module
from netfutures.client.delivery import STDERR, STDOUT, Delivery
from netfutures.client.future import Future
from netfutures.payload import dump_value

LIMIT_S = 20


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery()
    yield made
    assert made.close(LIMIT_S)


@contextlib.contextmanager
def streams() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        yield out, err


class Gate(io.StringIO):
    """A stream whose first write waits until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.open = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.open.wait(LIMIT_S)
        return super().write(text)


def test_no_thread_until_it_is_needed(delivery: Delivery) -> None:
    before = threading.active_count()
    assert not delivery.pending_output
    assert delivery.drain(0)
    assert threading.active_count() == before


def test_output_is_written_before_the_future_is_done(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(sys, "stdout", gate)
    future: Future[int] = Future()
    delivery.put_output(7, STDOUT, b"hello\n")
    assert gate.reached.wait(LIMIT_S)
    assert 7 in delivery.pending_output
    assert 8 not in delivery.pending_output
    delivery.put_settle([(future, dump_value(5))])
    assert not future.done()
    gate.open.set()
    assert future.result(LIMIT_S) == 5
    assert gate.getvalue() == "hello\n"
    assert delivery.drain(LIMIT_S)
    assert not delivery.pending_output


def test_streams_are_those_of_the_moment_and_text_is_whole(delivery: Delivery) -> None:
    euro = "€".encode()
    with streams() as (out, err):
        delivery.put_output(1, STDOUT, b"a" + euro[:1])
        delivery.put_output(2, STDERR, b"err\n")
        delivery.put_output(2, STDOUT, "b€".encode())
        delivery.put_output(1, STDOUT, euro[1:] + b"c\xff\n")
        assert delivery.drain(LIMIT_S)
    with streams() as (other, _):
        delivery.put_output(0, STDOUT, b"elsewhere")
        assert delivery.drain(LIMIT_S)
    assert out.getvalue() == "ab€€c\ufffd\n"
    assert err.getvalue() == "err\n"
    assert other.getvalue() == "elsewhere"


def test_half_a_character_is_shown_when_its_task_ends(delivery: Delivery) -> None:
    future: Future[None] = Future()
    future._number = 4
    with streams() as (out, _):
        delivery.put_output(4, STDOUT, b"end\xe2")
        delivery.put_settle([(future, dump_value(None))])
        future.result(LIMIT_S)
    assert out.getvalue() == "end\ufffd"


def test_callbacks_run_in_order_and_survive_each_other(delivery: Delivery, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[Any] = []

    def leave(future: Any) -> None:
        raise SystemExit(3)

    def fail(future: Any) -> None:
        raise ValueError("a bad callback")

    futures = [Future[int]() for _ in range(5)]
    for future in futures:
        future.add_done_callback(leave)
        future.add_done_callback(fail)
        future.add_done_callback(lambda f: ran.append((f.result(), threading.current_thread().name)))
    with caplog.at_level(logging.ERROR):
        delivery.put_settle([(future, dump_value(n)) for n, future in enumerate(futures)])
        assert delivery.drain(LIMIT_S)
    assert ran == [(n, "netfutures-delivery") for n in range(5)]
    assert sum(record.name == "concurrent.futures" for record in caplog.records) == 5


def test_a_callback_may_drain_and_close(delivery: Delivery) -> None:
    seen: list[bool] = []
    future: Future[int] = Future()
    future.add_done_callback(lambda f: seen.extend([delivery.drain(), delivery.close()]))
    delivery.put_settle([(future, dump_value(1))])
    assert delivery.drain(LIMIT_S)
    assert seen == [True, True]


def test_what_is_put_after_the_close_is_delivered(delivery: Delivery) -> None:
    for n in range(200):
        future: Future[int] = Future()
        delivery.put_settle([(future, dump_value(n))])
        closer = threading.Thread(target=delivery.close)
        closer.start()
        late: Future[int] = Future()
        delivery.put_settle([(late, dump_value(n))])
        assert future.result(LIMIT_S) == late.result(LIMIT_S) == n
        closer.join(LIMIT_S)
        assert not closer.is_alive()


class Raises(io.StringIO):
    """A stream that ends whoever writes to it."""

    def write(self, text: str) -> int:
        raise SystemExit(1)


@pytest.mark.parametrize("kind", ["closed", "none", "pipe", "raises", "ascii"])
def test_a_broken_stdout_loses_text_only(delivery: Delivery, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    raw: Any = io.BytesIO()
    stdout: Any = {"raises": Raises(), "ascii": io.TextIOWrapper(raw, "ascii"), "closed": io.StringIO()}.get(kind)
    if kind == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
        raw = io.FileIO(writing, "w")
        stdout = io.TextIOWrapper(raw, "utf-8", write_through=True)
    if kind == "closed":
        stdout.close()
    monkeypatch.setattr(sys, "stdout", stdout)
    future: Future[int] = Future()
    delivery.put_output(1, STDOUT, "text €\n".encode())
    delivery.put_settle([(future, dump_value(5))])
    assert future.result(LIMIT_S) == 5
    monkeypatch.undo()
    if kind == "ascii":
        assert raw.getvalue() == b"text \\u20ac\n"
    if kind == "pipe":
        with contextlib.suppress(BrokenPipeError):
            stdout.close()


def test_too_much_output_is_dropped_and_said(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, err = Gate(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", gate)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(module, "OUTPUT_BYTES_MAX", 100)
    delivery.put_output(1, STDOUT, b"x" * 500)  # alone it may be as large as it likes
    assert gate.reached.wait(LIMIT_S)
    for _ in range(10):
        delivery.put_output(1, STDOUT, b"y" * 50)
    assert err.getvalue() == ""
    gate.open.set()
    assert delivery.drain(LIMIT_S)
    assert gate.getvalue() == "x" * 500
    assert "[netfutures: 500 bytes of output were dropped" in err.getvalue()
    delivery.put_output(1, STDOUT, b"z")
    assert delivery.drain(LIMIT_S)
    assert gate.getvalue().endswith("xz")
    assert err.getvalue().count("dropped") == 1


def test_a_delivered_future_is_not_kept(delivery: Delivery) -> None:
    future: Future[int] = Future()
    future.add_done_callback(lambda f: None)
    delivery.put_settle([(future, dump_value(5))])
    assert delivery.drain(LIMIT_S)
    seen = weakref.ref(future)
    del future
    assert seen() is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # which is what is tested
def test_a_forked_copy_does_nothing(delivery: Delivery) -> None:
    delivery.put_output(1, STDOUT, b"x")
    assert delivery.drain(LIMIT_S)
    process = multiprocessing.get_context("fork").Process(target=_use, args=(delivery,))
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode == 0


def _use(delivery: Delivery) -> None:
    assert delivery.drain()
    assert delivery.close()


def test_it_works_while_the_interpreter_ends() -> None:
    script = """
import atexit, threading
from netfutures.client.delivery import Delivery
from netfutures.client.future import Future
from netfutures.payload import dump_value
def last():
    future = Future()
    delivery = Delivery()
    delivery.put_output(1, 1, b"at the end\\n")
    delivery.put_settle([(future, dump_value(5))])
    print(future.result(10), delivery.close(10), flush=True)
atexit.register(last)
threading._register_atexit(lambda: None)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=LIMIT_S)
    assert done.stdout == b"at the end\n5 True\n"
    assert done.stderr == b""
