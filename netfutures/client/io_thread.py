"""The client's one I/O thread: owns the link, the clock and the session, and settles futures; all others post to it."""

import copy
import itertools
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from netfutures.errors import BrokenWorkerPool, DeathCertificate
from netfutures.fields import Blob
from netfutures.limits import BATCH_BYTES_MAX, BATCH_TASKS_MAX, CANCEL_TIMEOUT_S
from netfutures.link import BadMessage
from netfutures.poller import Poller
from netfutures.stream import StreamLink
from netfutures.wire import RemoteProtocolError

from .core.commands import Break, Command, Connected, Ended, GiveBack, MarkRunning, Print, Send, Settle
from .core.ledger import CallRun
from .core.session import Session
from .delivery import Delivery
from .doors import cancel_returned, fail, mark_running, settle, take_for_sending
from .embedded import Embedded, StartFailed
from .functions import Function, FunctionTable
from .future import Future, release_waiters
from .glance import NAP_S, Glance
from .lost import is_loss, lost_error
from .recalls import Asked, Recalls

log = logging.getLogger(__name__)

_function_of = attrgetter("_function")
BROKEN = "the pool is broken, and runs no more tasks"
TASKS_NAMED_MAX = 100
"""A certificate names at most so many of the tasks that ran."""
FRAMES_PER_TURN_MAX = 64
"""Messages taken from the broker in one turn, so that submitting goes on meanwhile."""


clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds that go on while the machine sleeps, as every party counts them."""


class Mapped:
    """Where a large outcome gathers; arrays that are built on it are writable."""

    def __init__(self, size_bytes: int) -> None:
        self.content = bytearray(size_bytes)

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Puts bytes at an offset."""
        self.content[offset : offset + len(content)] = content


class _Wakeup:
    """An eventfd that lives as long as anybody may write to it: its number must not become another file's."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self.fd)


class IOThread:
    """The thread, and what others post to it: futures in `queue`, cancels, and the wish to end."""

    def __init__(self, embedded: Embedded, session: Session) -> None:
        self.queue: deque[Future[Any]] = deque()
        self.functions = FunctionTable(self)
        self.is_asleep = False
        self.refusal: BrokenWorkerPool | None = None
        """Why nothing can be submitted any more."""
        self.has_ended = False
        self._embedded = embedded
        self._session = session
        self._link: StreamLink | None = None
        self._poller = Poller()
        self._glance: Glance | None = None
        self._wakeup = _Wakeup()
        self._asked: deque[Asked] = deque()
        self._recalls = Recalls(self.queue)
        self._delivery = Delivery()
        self._sent_blobs: set[bytes] = set()
        self._wants_end = False
        self._wants_end_at_once = False
        self._wants_cancel_all = False
        self._is_leaving = False
        self._broker_is_silent = False
        """A cancel was not answered in time: no other waits until the broker is heard."""
        self._thread = threading.Thread(target=self._run, name="netfutures-io", daemon=True)

    # What other threads call.

    def start(self) -> None:
        """Starts the thread, which starts the cluster."""
        self._thread.start()

    def post(self, future: Future[Any]) -> None:
        """A future to submit; whoever posts after the end fails it, so that none is forgotten."""
        self.queue.append(future)
        if self.is_asleep:
            self.wake()
        if self.has_ended:
            self._fail_queue()

    def glance(self, future: Future[Any], timeout_s: float | None) -> float | None:
        """Whoever waits for the only task looks at the link for a moment; returns how long they may still wait."""
        glance = self._glance
        if glance is None or self._delivery.pending_output:
            return timeout_s
        if len(self.queue) + self._session.ledger.awaited - glance.unread > 1:
            return timeout_s
        if timeout_s is None:
            glance.wait(future, None)
            return None
        end = time.monotonic() + timeout_s
        glance.wait(future, timeout_s)
        return max(0.0, end - time.monotonic())

    def wake(self) -> None:
        """Wakes the thread; cleared by the waker, so that a burst wakes it once."""
        self.is_asleep = False
        os.eventfd_write(self._wakeup.fd, 1)

    def recall(self, future: Future[Any]) -> bool:
        """Cancels a task that was handed out, if it has not started; waits at most a second for the answer."""
        if self.has_ended or self._broker_is_silent:
            return False
        asked = Asked(future, waits=threading.current_thread() not in (self._thread, self._delivery._thread))
        self._asked.append(asked)
        self.wake()
        if not asked.waits:
            return False  # Our own threads never wait; it is cancelled when the answer comes, if it can be.
        if not asked.lock.acquire(timeout=CANCEL_TIMEOUT_S):
            asked.is_abandoned = True
            self._broker_is_silent = True
            return False
        return asked.answer

    def cancel_later(self, futures: list[Future[Any]]) -> None:
        """Cancels what can be, without waiting; for finalizers and dropped iterators."""
        for future in futures:
            if future._number is None:
                future.cancel()
            elif not future.done():
                self._asked.append(Asked(future))
        if self._asked and not self.has_ended:
            self.wake()

    def request_end(self, *, cancel_futures: bool = False, at_once: bool = False) -> None:
        """Ends the session when all that was submitted has ended.

        cancel_futures: what waits is cancelled. at_once: what runs is ended too.
        """
        self._wants_end = True
        self._wants_end_at_once = self._wants_end_at_once or at_once
        self._wants_cancel_all = self._wants_cancel_all or cancel_futures
        if not self.has_ended:
            self.wake()

    def new_refusal(self) -> BrokenWorkerPool:
        """Why nothing can be submitted any more, as an exception of its own."""
        assert self.refusal is not None
        return copy.copy(self.refusal)

    def disown(self) -> None:
        """In a forked copy of the client: there is no thread, and nothing can be submitted through this."""
        self.refusal = BrokenWorkerPool("this process was forked from the one that the executor belongs to")
        self.has_ended = True

    def join(self) -> None:
        """Waits for the end that was requested."""
        if threading.current_thread() not in (self._thread, self._delivery._thread):
            self._thread.join()

    # The thread.

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        cause: dict[str, Any] = {"note": "the executor was shut down"}
        try:
            self._start_cluster()
            self._serve()
        except StartFailed as error:
            cause = {"note": str(error)}
        except Exception as error:
            log.exception("the I/O thread failed")
            cause = {"note": f"the I/O thread of the client failed: {type(error).__name__}: {error}"}
        finally:
            self._end(cause)

    def _start_cluster(self) -> None:
        embedded = self._embedded
        embedded.launch()
        self._link = StreamLink(embedded.await_ready(), b"broker")
        self._poller.watch(self._link.fd, self._link.mark_readable, edge=True)
        self._glance = Glance(self._link, self.wake)
        self._poller.watch(self._wakeup.fd, _nothing, edge=True)
        self._poller.watch(embedded.pidfd, self._on_embedded_death)
        now = clock()
        self._perform(self._session.connect(now), now)

    def _serve(self) -> None:
        """Turns, until the session is over."""
        link, queue = self._link, self.queue
        assert link is not None
        while not self.has_ended:
            self.step()
            if self.has_ended:
                return
            self._poller.watch_room(link.fd, link.wants_room)
            timeout_s = self._timeout_s()
            self.is_asleep = True
            if (queue and self._may_send()) or self._asked or link.is_ready():
                self.is_asleep = False
                release_waiters()
                continue
            if queue and not self._wants_end:
                self.is_asleep = False  # It waits for room: submits need not wake us.
            release_waiters()
            self._sleep(timeout_s)
            self.is_asleep = False

    def _sleep(self, timeout_s: float | None) -> None:
        """Until something comes; naps while somebody else looks at the link."""
        link, glance = self._link, self._glance
        assert link is not None
        assert glance is not None
        glance.unread = 0
        naps = glance.is_on
        self._poller.mute(link.fd, naps)
        if not naps:
            self._poller.wait(timeout_s)
            return
        glance.naps += 1
        self._poller.wait(NAP_S if timeout_s is None else min(timeout_s, NAP_S))
        glance.naps += 1
        link.mark_readable()

    def step(self) -> None:
        """One turn: takes what has come, answers who asked, sends what waits."""
        link, session, now = self._link, self._session, clock()
        assert link is not None
        if self.queue and not self._recalls.hold_until:
            self._send_some(now)  # First, as somebody may wait for it; what has come can wait.
        self._take_messages(now)
        if link.has_ended and not self._is_leaving and not self.has_ended:
            self._on_embedded_death()
        if self.has_ended:
            return
        if self._asked or self._recalls.wants_request or self._wants_cancel_all:
            self._take_cancels(now)
        if self.queue and now >= self._recalls.hold_until:
            while self.queue and self._send_some(now):
                pass
        deadline = session.next_deadline()
        if deadline is not None and now >= deadline:
            self._perform(session.wake(now), now)
        self._perform(session.flush(now), now)
        if self._wants_end_at_once:
            self._perform(session.give_up({"note": "it was interrupted (Ctrl-C), which ends what runs"}), now)
        elif self._wants_end and not self._is_leaving and not self.queue and not session.ledger.awaited:
            self._is_leaving = True
            self._perform(session.goodbye("all tasks have ended", now), now)

    def _may_send(self) -> bool:
        return self._session.room[0] > 0 and clock() >= self._recalls.hold_until

    def _timeout_s(self) -> float | None:
        deadline = self._session.next_deadline()
        if self.queue and self._recalls.hold_until:
            hold_until = self._recalls.hold_until
            now = clock()
            if hold_until > now:
                deadline = hold_until if deadline is None else min(deadline, hold_until)
        return None if deadline is None else max(0.0, deadline - clock())

    # Sending.

    def _send_some(self, now: float) -> bool:
        """One message of tasks: futures of the queue, in runs of one function each; False if there is no room."""
        session = self._session
        tasks, size_bytes = session.room
        if not tasks:
            return False
        futures = take_for_sending(
            self.queue, min(tasks, BATCH_TASKS_MAX), min(size_bytes, BATCH_BYTES_MAX), session.ledger.next_number
        )
        blobs: list[Blob] = []
        runs: list[CallRun] = []
        for function, group in itertools.groupby(futures, _function_of):
            calls = list(group)
            runs.append(CallRun(self._digest_of(function, blobs), None, calls, [call._payload for call in calls]))
        if runs:
            session.submit(blobs, runs, now)
            self._perform(session.flush(now), now)
        return True

    def _digest_of(self, function: Function, blobs: list[Blob]) -> bytes:
        digest = function.digest
        if digest not in self._sent_blobs:
            self._sent_blobs.add(digest)
            blobs.append((digest, function.payload, function.cacheable))
        return digest

    # Cancelling.

    def _take_cancels(self, now: float) -> None:
        recalls = self._recalls
        if self._wants_cancel_all and not recalls.cancels_all:
            recalls.cancels_all = True
            self._cancel_queue()
            if self._session.ledger.awaited:
                self._request_recall(now)
        while self._asked:
            self._deliver_callbacks(recalls.add(self._asked.popleft(), now))
        if recalls.wants_request:
            self._request_recall(now)

    def _cancel_queue(self) -> None:
        cancelled = [self.queue.popleft() for _ in range(len(self.queue))]
        self._deliver_callbacks([future for future in cancelled if cancel_returned(future)])

    def _request_recall(self, now: float) -> None:
        request, commands = self._session.recall(now)
        self._recalls.sent(request)
        self._perform(commands, now)

    # What the core decides.

    def _perform(self, commands: list[Command], now: float) -> None:
        for command in commands:
            match command:
                case Send(envelope):
                    assert self._link is not None
                    self._link.send(b"", envelope)
                case Settle(first, calls, outcomes):
                    self._settle(first, calls, outcomes)
                case MarkRunning(calls):
                    mark_running(calls)
                case Print(number, stream, text):
                    self._delivery.put_output(number, stream, text)
                case GiveBack(_, calls, is_last):
                    self._deliver_callbacks(self._recalls.returned(calls, is_last, now))
                case Break(certificate, calls):
                    self._break(certificate, calls)
                case Connected():
                    pass  # What waits in the queue goes in this turn.
                case Ended():
                    self.has_ended = True

    def _deliver_callbacks(self, futures: list[Future[Any]]) -> None:
        """Users' callbacks never run on this thread."""
        if futures:
            self._delivery.put_callbacks(futures)

    def _settle(self, first: int, calls: Any, outcomes: Any) -> None:
        if len(calls) == 1 and is_loss(outcomes[0]):
            # Only here is the function's name known.
            self._delivery.put_settle([(calls[0], lost_error(bytes(outcomes[0]), calls[0]._function.name))])
            return
        pending_output = self._delivery.pending_output
        if pending_output and not pending_output.keys().isdisjoint(range(first, first + len(calls))):
            behind = [place for place in range(len(calls)) if first + place in pending_output]
            self._delivery.put_settle([(calls[place], outcomes[place]) for place in behind])
            stay = sorted(set(range(len(calls))).difference(behind))
            calls, outcomes = [calls[place] for place in stay], [outcomes[place] for place in stay]
        with_callbacks = settle(calls, outcomes)
        if with_callbacks:
            self._delivery.put_settle(with_callbacks)

    def _break(self, certificate: dict[str, Any], calls: Sequence[Any]) -> None:
        """Everything that is awaited or waits fails with this cause."""
        running = [f"task {call._number} ({call._function.name})" for call in certificate.pop("calls", ())]
        cause = DeathCertificate.from_map({**certificate, "running": running})
        if cause == DeathCertificate(note=cause.note):  # Nobody died; it was something else.
            self.refusal = BrokenWorkerPool(f"{BROKEN}: {cause.note}")
        else:
            self.refusal = BrokenWorkerPool(BROKEN, cause)
        self.has_ended = True
        self._deliver_failed(fail(calls, self._failure))

    def _failure(self, future: Future[Any]) -> BaseException:
        if self.refusal is None:
            return BrokenWorkerPool("the executor was shut down before this task could be submitted")
        return self.new_refusal()

    def _deliver_failed(self, with_callbacks: list[tuple[Future[Any], Any]]) -> None:
        if with_callbacks:
            self._delivery.put_settle(with_callbacks)

    def _fail_queue(self) -> None:
        futures: list[Future[Any]] = []
        while True:
            try:
                futures.append(self.queue.popleft())
            except IndexError:
                break
        self._deliver_failed(fail(futures, self._failure))
        release_waiters()

    def _take_messages(self, now: float) -> None:
        link, session = self._link, self._session
        assert link is not None
        for _ in range(FRAMES_PER_TURN_MAX):
            try:
                received = link.receive()
                if received is None:
                    return
                self._broker_is_silent = False
                self._perform(session.receive(received.envelope, now), now)
            except (BadMessage, RemoteProtocolError) as error:
                self._perform(session.give_up({"note": f"the broker broke the protocol: {error}"}), now)

    def _on_embedded_death(self) -> None:
        """The embedded process is dead, or has closed its end; what it sent last is taken first."""
        self._poller.unwatch(self._embedded.pidfd)
        if self._is_leaving:
            self.has_ended = True
            return
        now = clock()
        self._take_messages(now)
        certificate = self._embedded.await_death()
        if certificate is None:
            certificate = {"note": "the embedded cluster ended the connection to its client"}
        else:
            certificate["note"] = "the process of the embedded cluster died; all its children ended with it"
            certificate["tasks"] = self._running_tasks()
        self._perform(self._session.give_up(certificate), now)

    def _running_tasks(self) -> list[int]:
        """The numbers of the tasks that are known to run, for a certificate."""
        calls = itertools.chain.from_iterable(segment.calls for segment in self._session.ledger)
        return [call._number for call in calls if call.running()][:TASKS_NAMED_MAX]

    # The end.

    def _end(self, cause: dict[str, Any]) -> None:
        """Nothing is left: no future pending, no process, no file, no thread of ours."""
        is_orderly = self._is_leaving and self.refusal is None
        if not is_orderly and self.refusal is None:
            self._break({**cause, "calls": []}, [])
        self._deliver_failed(fail(self._session.ledger.drop_all(), self._failure))
        self.has_ended = True
        self._fail_queue()
        while self._asked:
            self._deliver_callbacks(self._recalls.add(self._asked.popleft(), clock()))
        self._recalls.give_up()
        release_waiters()
        if self._link is not None:
            self._link.close()
        self._embedded.end(at_once=not is_orderly)
        self._delivery.close(None)
        self._poller.close()


def _nothing() -> None:
    """Being woken is all that was wanted."""
