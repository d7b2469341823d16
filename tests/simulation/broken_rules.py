"""Rules of the real cores, each broken on purpose by replacing one small function: the simulation must find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from netfutures.conversation import Conversation, Verdict
from netfutures.fields import Payload, SubmittedRun
from netfutures.outbox import Outbox
from netfutures.wire import WorkerHello
from netfutures_broker.core import connections, scheduler, tasks
from netfutures_broker.core.roster import WorkerRecord
from netfutures_broker.core.run import Dispatch
from netfutures_broker.core.session import ClientSession
from netfutures_broker.core.state import BrokerState
from netfutures_worker.core import children
from netfutures_worker.core.slot import Slot
from netfutures_worker.core.state import WorkerState

Part = tuple[int, int]
Broken = AbstractContextManager[None]


@contextmanager
def replaced(owner: object, name: str, by: object) -> Iterator[None]:
    """While this is entered, the owner has another function, or another property, of this name."""
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


def no_dispatch_check() -> Broken:
    """Outcomes count whether or not the dispatch that they come from is the current one."""
    on_finished = tasks.on_finished

    def everything(dispatch: Dispatch, offset: int, count: int) -> list[Part]:
        return [(offset, count)]

    def unfenced(*arguments: Any) -> None:
        with replaced(Dispatch, "current_parts", everything):
            on_finished(*arguments)

    return replaced(scheduler, "on_finished", unfenced)


def resent_submit_is_new() -> Broken:
    """What a client repeats after a reconnect is taken as new tasks."""

    def all_of_it(session: ClientSession, run: SubmittedRun) -> SubmittedRun | None:
        return run

    return replaced(ClientSession, "unknown_part", all_of_it)


def released_before_client_has_it() -> Broken:
    """A worker may forget an outcome as soon as the broker has it."""
    finish = tasks._finish

    def finish_and_release(
        state: BrokerState, worker: WorkerRecord, dispatch: Dispatch, offset: int, outcomes: list[Payload]
    ) -> None:
        finish(state, worker, dispatch, offset, outcomes)
        worker.release(dispatch, offset, len(outcomes))
        state.releasing[worker.identity] = worker

    return replaced(tasks, "_finish", finish_and_release)


def no_connection_check() -> Broken:
    """Messages of an older connection are taken, however late they come."""
    accept = Conversation.accept

    def of_any_connection(self: Conversation, connection: int, sequence: int, acknowledged: int) -> Verdict:
        if connection < self.connection:
            return Verdict.FRESH
        return accept(self, connection, sequence, acknowledged)

    return replaced(Conversation, "accept", of_any_connection)


def no_gap_check() -> Broken:
    """A message is taken although those before it were lost."""
    accept = Conversation.accept

    def past_gaps(self: Conversation, connection: int, sequence: int, acknowledged: int) -> Verdict:
        if connection == self.connection and sequence > self.received:
            self.received = sequence - 1
        return accept(self, connection, sequence, acknowledged)

    return replaced(Conversation, "accept", past_gaps)


def no_repeat_check() -> Broken:
    """A message that was received before is taken again."""
    accept = Conversation.accept

    def again(self: Conversation, connection: int, sequence: int, acknowledged: int) -> Verdict:
        if connection == self.connection and sequence <= self.received:
            return Verdict.FRESH
        return accept(self, connection, sequence, acknowledged)

    return replaced(Conversation, "accept", again)


def claims_are_not_read() -> Broken:
    """What a dead child had claimed is taken for not started."""
    on_exited = children.on_exited

    def claimless(state: WorkerState, slot: Slot, certificate: dict[str, Any], claim: int, now: float) -> None:
        on_exited(state, slot, certificate, 0, now)

    return replaced(children, "on_exited", claimless)


def claimed_is_taken_back() -> Broken:
    """The task that a child has just claimed is taken back too."""
    on_revoked = children.on_revoked

    def one_too_many(state: WorkerState, slot: Slot, claim: int, *rest: Any) -> None:
        on_revoked(state, slot, max(0, claim - 1), *rest)

    return replaced(children, "on_revoked", one_too_many)


def hello_claims_nothing() -> Broken:
    """A worker that comes back is taken to have nothing of what it was given."""
    reconcile = connections._reconcile

    def blank(state: BrokerState, worker: WorkerRecord, hello: WorkerHello) -> None:
        for dispatch in reversed(list(worker.dispatches.values())):
            connections._take_back_unclaimed(state, worker, dispatch, [])
        reconcile(state, worker, hello)

    return replaced(connections, "_reconcile", blank)


def retries_are_not_counted() -> Broken:
    """A lost task is run again as often as it is lost."""

    def always(session: ClientSession, number: int, retries: int) -> bool:
        return retries > 0

    return replaced(ClientSession, "attempt_failed", always)


def nothing_is_repeated() -> Broken:
    """What was not acknowledged is forgotten when the connection is another one."""

    def forget(self: Outbox[Any]) -> None:
        self.sent.clear()

    return replaced(Outbox, "repeat_sent", forget)


def credit_is_ignored() -> Broken:
    """A worker is given more than it wants."""
    return replaced(WorkerRecord, "room_tasks", property(lambda self: 1000))


BROKEN_RULES: dict[str, Callable[[], Broken]] = {
    rule.__name__: rule
    for rule in (
        no_dispatch_check,
        resent_submit_is_new,
        released_before_client_has_it,
        no_connection_check,
        no_gap_check,
        no_repeat_check,
        claims_are_not_read,
        claimed_is_taken_back,
        hello_claims_nothing,
        retries_are_not_counted,
        nothing_is_repeated,
        credit_is_ignored,
    )
}
