"""The thread that writes what tasks print and runs users' callbacks, so that these never hold up the I/O thread.

The I/O thread puts things in; one daemon thread, made when it is first needed, takes them out in the order of arrival.
A future whose task has printed is settled here, behind its output; so is one that has callbacks, since they run here.
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Set
from queue import SimpleQueue
from typing import Any

from netfutures.client.doors import Outcome, settle_one
from netfutures.client.future import Future, take_callbacks
from netfutures.client.watch import call, release_waiters

logger = logging.getLogger(__name__)

_DECODERS_MAX = 1000
OUTPUT_BYTES_MAX = 8 * 1024 * 1024
"""As much output may wait to be written; what comes beyond it is dropped, counted, and that is said."""
STDOUT, STDERR = 1, 2


class _Output:
    __slots__ = ("content", "number", "stream")

    def __init__(self, number: int, stream: int, content: bytes) -> None:
        self.number = number
        self.stream = stream
        self.content = content


class _Settle:
    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[Future[Any], Outcome]]) -> None:
        self.pairs = pairs


class _Callbacks:
    __slots__ = ("futures",)

    def __init__(self, futures: list[Future[Any]]) -> None:
        self.futures = futures


class _Dropped:
    __slots__ = ()


class _Stop:
    __slots__ = ()


class Delivery:
    """Where the I/O thread puts output, and futures that stand behind output or have callbacks."""

    def __init__(self, name: str = "netfutures-delivery") -> None:
        self._name = name
        self._pid = os.getpid()
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._life_lock = threading.Lock()
        self._ending = False
        # Each of these is written by one thread only, so they need no lock.
        self._put_count = self._put_bytes = self._dropped_bytes = 0  # by the I/O thread
        self._written_count = self._written_bytes = self._said_bytes = 0  # by the delivery thread
        self._dropping = False
        self._last: dict[int, int] = {}  # task number: which output record was its last
        self._decoders: dict[tuple[int, int], codecs.IncrementalDecoder] = {}  # of tasks that wrote half a character
        self._unflushed: list[Any] = []

    # -- called by the I/O thread

    def put_output(self, number: int, stream: int, content: bytes) -> None:
        """Write this to the client's stdout (1) or stderr (2); `number` is that of the task that printed it, or 0."""
        waiting_bytes = self._put_bytes - self._written_bytes
        if waiting_bytes and waiting_bytes + len(content) > OUTPUT_BYTES_MAX:
            self._drop(len(content))
            return
        if self._last and self._written_count == self._put_count:
            self._last.clear()
        self._put_bytes += len(content)
        self._put_count += 1
        self._last[number] = self._put_count
        self._put(_Output(number, stream, content))

    @property
    def pending_output(self) -> Mapping[int, int]:
        """The numbers of the tasks that have output which may not be written yet; empty, and cheap, when none has."""
        if self._last and self._written_count == self._put_count:
            self._last.clear()
        return self._last

    def put_settle(self, pairs: Iterable[tuple[Future[Any], Outcome]]) -> None:
        """Settle these (future, outcome or exception) behind all output so far, and run their callbacks."""
        self._put(_Settle(list(pairs)))

    def put_callbacks(self, futures: Iterable[Future[Any]]) -> None:
        """Run the callbacks of futures that are done."""
        self._put(_Callbacks(list(futures)))

    # -- called by anybody

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all that was put in before is delivered; False if that took longer than `timeout` seconds."""
        if self._thread is None or self._is_foreign():
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what is there and end the thread; what is put in later makes a new one."""
        with self._life_lock:
            thread = self._thread
            if thread is None or self._is_foreign():
                return True
            self._ending = True
            self._queue.put(_Stop())
        thread.join(timeout)
        return not thread.is_alive()

    def _is_foreign(self) -> bool:
        """In a forked copy of the client there is no thread; in the thread itself (a callback) it cannot be awaited."""
        return os.getpid() != self._pid or threading.current_thread() is self._thread

    # -- inside

    def _put(self, item: Any) -> None:
        self._queue.put(item)
        if self._thread is None or self._ending:
            self._start()

    def _start(self) -> None:
        with self._life_lock:
            if self._thread is not None:
                return
            self._ending = False
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # too late in the life of the interpreter for a new thread
                self._thread = None
        while not self._queue.empty():
            self._deliver_safely(self._queue.get())

    def _drop(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes
        if not self._dropping:
            self._dropping = True
            self._put(_Dropped())

    def _run(self) -> None:
        queue, ending = self._queue, False
        while True:
            item = queue.get()
            ending = ending or type(item) is _Stop
            self._deliver_safely(item)
            item = None  # else the last future would live until the next comes
            if self._unflushed and queue.empty():
                self._flush()
            if ending and self._has_ended():
                return

    def _has_ended(self) -> bool:
        with self._life_lock:
            if not self._queue.empty():
                return False
            self._thread = None
            return True

    def _deliver_safely(self, item: Any) -> None:
        try:
            self._deliver(item)
        except BaseException:  # whatever users' streams do, what comes later must be delivered
            logger.exception("delivery of %s failed", type(item).__name__)

    def _deliver(self, item: Any) -> None:
        kind = type(item)
        if kind is _Output:
            self._write(item)
        elif kind is _Settle:
            self._settle(item.pairs)
        elif kind is _Callbacks:
            for future in item.futures:
                _call_all(future)
        elif kind is _Dropped:
            self._say_dropped()
        elif kind is threading.Event:
            self._flush()
            item.set()

    def _settle(self, pairs: list[tuple[Future[Any], Outcome]]) -> None:
        if self._decoders:
            self._finish_decoders({future._number for future, _ in pairs})
        self._flush()
        for future, outcome in pairs:
            try:
                settle_one(future, outcome)
            except Exception as error:  # A waiter of the user's that raises: its future must end all the same.
                settle_one(future, error)
        release_waiters()
        pairs.reverse()
        while pairs:
            _call_all(pairs.pop()[0])

    def _write(self, item: _Output) -> None:
        try:
            key = item.number, item.stream
            decoder = self._decoders.pop(key, None) or codecs.getincrementaldecoder("utf-8")("replace")
            text = decoder.decode(item.content)
            if decoder.getstate()[0]:
                if len(self._decoders) >= _DECODERS_MAX:
                    self._finish_decoders({number for number, _ in self._decoders})
                self._decoders[key] = decoder
            self._write_text(item.stream, text)
        finally:
            self._written_bytes += len(item.content)
            self._written_count += 1

    def _finish_decoders(self, numbers: Set[int | None]) -> None:
        for key in [key for key in self._decoders if key[0] in numbers]:
            self._write_text(key[1], self._decoders.pop(key).decode(b"", final=True))

    def _say_dropped(self) -> None:
        self._dropping = False  # before the look, so that what is dropped from here on is said later
        dropped = self._dropped_bytes - self._said_bytes
        self._said_bytes += dropped
        self._write_text(
            STDERR,
            f"\n[netfutures: {dropped} bytes of output were dropped, since tasks print faster than this client writes: "
            "print less, or to a file]\n",
        )

    def _write_text(self, stream: int, text: str) -> None:
        """Write to the client's stdout or stderr as it is now; one that is closed, broken or None loses the text."""
        file = sys.stderr if stream == STDERR else sys.stdout
        if file is None or not text:
            return
        try:
            try:
                file.write(text)
            except UnicodeEncodeError:
                encoding = getattr(file, "encoding", None) or "ascii"
                file.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except Exception as error:
            logger.debug("output of a task could not be written: %r", error)
        else:
            if file not in self._unflushed:
                self._unflushed.append(file)

    def _flush(self) -> None:
        while self._unflushed:
            file = self._unflushed.pop()
            try:
                file.flush()
            except Exception as error:
                logger.debug("output of a task could not be flushed: %r", error)


def _call_all(future: Future[Any]) -> None:
    for callback in take_callbacks(future):
        try:
            call(callback, future)
        except BaseException:  # SystemExit and the like: they would end this thread
            logger.exception("a callback of %r tried to end the thread that runs callbacks", future)
