"""A simulated client: the real session core, and users who submit, cancel, and leave when it pleases them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never

from netfutures.client.core import commands
from netfutures.client.core.ledger import CallRun
from netfutures.client.core.session import Session, SessionIdentity
from netfutures.fields import Blob, Payload
from netfutures.limits import BATCH_BYTES_MAX, BATCH_TASKS_MAX, CANCEL_HOLD_S, CANCEL_TIMEOUT_S
from simulation.calls import Call, End
from simulation.child import Store
from simulation.parties import Peer

if TYPE_CHECKING:
    from simulation.world import World

ANSWER_S = 200.0
"""Whatever happens, a recall is answered in this time: when the network is back, and who is lost is given up."""


@dataclass
class Wishes:
    """What a client's user wants of the session."""

    retries: int | None = None
    max_tasks_per_child: int | None = None
    has_initializer: bool = False
    reconnect_timeout_s: float = 60.0
    function_bytes: list[int] = field(default_factory=lambda: [100, 100])
    own_retries: dict[int, int | None] = field(default_factory=dict)
    """Functions whose calls have retries of their own."""


class ClientParty(Peer):
    """A client's core in its shell."""

    def __init__(self, world: World, name: str, number: int, wishes: Wishes) -> None:
        super().__init__(world, name)
        self.number = number
        self.wishes = wishes
        randbytes = self.timeline.random.randbytes
        settings = {"retries": wishes.retries, "max_tasks_per_child": wishes.max_tasks_per_child}
        initializer = b"initializer of %d" % number if wishes.has_initializer else None
        identity = SessionIdentity(
            randbytes(16), randbytes(16), {}, settings, initializer, randbytes(16), wishes.reconnect_timeout_s
        )
        self.core = Session(identity, Store)
        self.calls: list[Call] = []
        self.queue: deque[Call] = deque()
        self.has_ended = False
        self.is_broken = False
        self.is_leaving = False
        self.wants_end = False
        self.certificate: dict[str, Any] = {}
        self._functions = [(randbytes(16), self._function(place)) for place in range(len(wishes.function_bytes))]
        self._sent_functions: set[int] = set()
        self._asked: dict[Call, float] = {}
        """Calls whose cancelling waits for an answer, and when it stops to."""
        self._request: int | None = None
        self._requested_at = 0.0
        self._wants_request = False
        self._hold_until = 0.0
        self._wakes_at: float | None = None
        now = self.timeline.now
        self._perform(self.core.connect(now))
        self.plan_turn(now)

    @property
    def session(self) -> bytes:
        return self.core.identity.session

    def _function(self, place: int) -> bytes:
        return (b"F%d.%d;" % (self.number, place)).ljust(self.wishes.function_bytes[place], b"f")

    # What users do.

    def submit(self, calls: list[Call]) -> None:
        """The user submits; after the end of the pool that raises, and the calls have never been."""
        if not self.is_alive or self.has_ended or self.wants_end:
            return
        self.calls += calls
        self.queue += calls
        self.world.auditor.submitted(calls)
        self.plan_turn(self.timeline.now + 5e-6)

    def cancel(self, call: Call) -> None:
        """The user cancels a call: here if it is here, else the broker is asked."""
        if not self.is_alive or self.has_ended or call.end is not None or call in self._asked:
            return
        self._hold_until = self.timeline.now + CANCEL_HOLD_S
        if not call.is_handed_over:
            self.queue.remove(call)
            self.world.auditor.ended(call, End.CANCELLED)
        elif not call.is_marked_running:
            self._asked[call] = self.timeline.now + CANCEL_TIMEOUT_S
            self._wants_request = True
            self.plan_turn(self.timeline.now + 5e-6)

    def leave(self, *, at_once: bool) -> None:
        """The user ends the session: when all has ended, or although something is pending."""
        if not self.is_alive or self.has_ended:
            return
        self.wants_end = True
        if at_once and not self.is_leaving:
            self.is_leaving = True
            for call in (*self.core.ledger.drop_all(), *self.queue):
                self.world.auditor.ended(call, End.BROKEN)
            self.queue.clear()
            self._asked.clear()
            self._perform(self.core.goodbye("the user does not want it any more", self.timeline.now))
        self.plan_turn(self.timeline.now + 5e-6)

    # Turns.

    def turn(self, now: float) -> None:
        if self.has_ended:
            return
        for _, envelope in self.messages():
            self._perform(self.core.receive(envelope, now))
        for call in [call for call, until in self._asked.items() if now > until]:
            del self._asked[call]  # Its user was told False, so it must run.
        if self._wants_request and self._request is None:
            self._wants_request = False
            self._request, recall = self.core.recall(now)
            self._requested_at = now
            self._perform(recall)
        if self._request is not None and now > self._requested_at + ANSWER_S:
            self.world.auditor.fault(f"{self.name} has called its tasks back and gets no answer")
        while self.queue and now >= self._hold_until and self.core.room[0] > 0:
            self._send_some(now)
        deadline = self.core.next_deadline()
        if deadline is not None and now >= deadline:
            self._perform(self.core.wake(now))
        self._perform(self.core.flush(now))
        self._may_leave(now)

    def next_deadline(self) -> float | None:
        if self.has_ended:
            return None
        deadline = self.core.next_deadline()
        if self.queue and self._hold_until > self.timeline.now:
            return self._hold_until if deadline is None else min(deadline, self._hold_until)
        return deadline

    def _may_leave(self, now: float) -> None:
        if self.wants_end and not self.is_leaving and not self.queue and not self.core.ledger.awaited:
            self.is_leaving = True
            self._perform(self.core.goodbye("all tasks have ended", now))

    def _send_some(self, now: float) -> None:
        tasks, size_bytes = self.core.room
        calls: list[Call] = []
        taken_bytes = 0
        while self.queue and len(calls) < min(tasks, BATCH_TASKS_MAX):
            taken_bytes += len(self.queue[0].payload)
            if calls and taken_bytes > min(size_bytes, BATCH_BYTES_MAX):
                break
            calls.append(self.queue.popleft())
        blobs: list[Blob] = []
        runs: list[CallRun] = []
        for place, group in itertools.groupby(calls, lambda call: call.function):
            members = list(group)
            digest, payload = self._functions[place]
            if place not in self._sent_functions:
                self._sent_functions.add(place)
                blobs.append((digest, payload, True))
            own = self.wishes.own_retries
            options = {"retries": own[place]} if place in own else None
            runs.append(CallRun(digest, options, members, [call.payload for call in members]))
        for call in calls:
            call.is_handed_over = True
        self._perform(self.core.submit(blobs, runs, now))
        self._perform(self.core.flush(now))

    # What the core decides.

    def _perform(self, decided: list[commands.Command]) -> None:
        auditor = self.world.auditor
        for command in decided:
            match command:
                case commands.Send(envelope):
                    self.send(envelope)
                case commands.Settle(_, calls, outcomes):
                    self._settle(calls, outcomes)
                case commands.MarkRunning(calls):
                    for call in calls:
                        call.is_marked_running = True
                        auditor.marked_running(call)
                case commands.Print(number, _, text):
                    auditor.printed(self, number, text)
                case commands.GiveBack(request, calls, is_last):
                    self._given_back(request, calls, is_last)
                case commands.Break(certificate, calls):
                    self._break(certificate, calls)
                case commands.Ended():
                    self._end()
                case commands.Connected():
                    self.timeline.trace(self.name, "is welcome")
                case _:
                    assert_never(command)

    def _settle(self, calls: Sequence[Call], outcomes: Sequence[Payload]) -> None:
        for call, outcome in zip(calls, outcomes, strict=True):
            self._asked.pop(call, None)
            assert isinstance(outcome, bytes | bytearray)
            self.world.auditor.settled(self, call, bytes(outcome))

    def _given_back(self, request: int, calls: Sequence[Call], is_last: bool) -> None:
        again = []
        for call in calls:
            self.world.auditor.given_back(call)
            call.is_handed_over = False
            if self._asked.pop(call, None) is not None:
                self.world.auditor.ended(call, End.CANCELLED)
            else:
                again.append(call)
        self.queue.extendleft(reversed(again))
        self._hold_until = self.timeline.now + CANCEL_HOLD_S
        if is_last and request == self._request:
            self._request = None

    def _break(self, certificate: dict[str, Any], calls: Sequence[Call]) -> None:
        self.is_broken = True
        self.certificate = certificate
        self.world.auditor.broken(self, certificate)
        for call in (*calls, *self.queue):
            self.world.auditor.ended(call, End.BROKEN)
        self.queue.clear()
        self._end()

    def _end(self) -> None:
        """The program has no use for its connection any more."""
        self.has_ended = True
        self.timeline.trace(self.name, f"ended: {self.certificate or 'in good order'}")
        self._asked.clear()
        self.disappear(0.001)
