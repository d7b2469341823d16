"""The worker's core, by its doors: messages, news of children and the time go in, commands come out.

From the broker: `connect`, `receive`. Of children: `ready`, `failed`, `results`, `stopped`, `revoked`, `looked`,
`output`, `exited`. And `wake`, `flush`, `next_deadline`, `statistics`, as in the other two cores.
"""

from collections.abc import Callable
from typing import Any

from netfutures.conversation import Verdict
from netfutures.limits import SUSPECT_AFTER_S
from netfutures.wire import (
    Acknowledge,
    Beat,
    Cancel,
    Chunk,
    Close,
    Envelope,
    Goodbye,
    Message,
    Need,
    Open,
    Refused,
    Release,
    RemoteProtocolError,
    Stale,
    Tasks,
    Welcome,
    Who,
)

from . import broker_side, children
from .commands import Command, KillChild, Look, Pulled, Refusal, Statistics
from .placing import place
from .slot import Event, State
from .state import Identity, WorkerState


class Supervisor:
    """The worker without its socket, its children's sockets, and its clock."""

    def __init__(self, identity: Identity, slots: int, allocate: Callable[[int], Pulled]) -> None:
        self.state = WorkerState(identity, slots, allocate)

    # The broker.

    def connect(self, now: float) -> list[Command]:
        """There is a connection, or another one: says hello."""
        self.state.heard_at = now
        broker_side.say_hello(self.state, now)
        return self.state.drain()

    def receive(self, envelope: Envelope, now: float) -> list[Command]:
        """A message of the broker.

        Raises `RemoteProtocolError` when the broker broke the protocol.
        """
        state = self.state
        state.heard_at = now
        message = envelope.message
        line = state.line
        if isinstance(message, Refused) and envelope.connection == 0:
            state.commands.append(Refusal(message.reason))
        elif isinstance(message, Who) and envelope.connection == 0:
            if state.is_welcome:
                broker_side.say_hello(state, now)
        elif line is not None:
            verdict = line.conversation.accept(envelope.connection, envelope.sequence, envelope.acknowledged)
            if verdict is Verdict.FRESH:
                children.on_acknowledged(state, state.outbox.acknowledged(line.conversation.acknowledged))
                self._on_message(message, now)
            elif verdict is Verdict.GAP:
                broker_side.say_hello(state, now)
        return state.drain()

    def _on_message(self, message: Message, now: float) -> None:
        state = self.state
        match message:
            case Tasks():
                assert state.line is not None
                state.line.conversation.owe(now)
                broker_side.on_tasks(state, message)
            case Release(dispatched):
                broker_side.on_release(state, dispatched)
            case Beat() | Acknowledge():
                pass  # Their numbers, which were taken above, are all that they bring.
            case Welcome():
                broker_side.on_welcome(state, message)
            case Open():
                broker_side.on_open(state, message)
            case Cancel(request, session):
                children.take_back_for(state, request, state.sessions.get(session))
            case Stale(dispatched):
                broker_side.on_stale(state, dispatched)
            case Close():
                broker_side.on_close(state, message, now)
            case Need():
                broker_side.on_need(state, message)
            case Chunk():
                broker_side.on_chunk(state, message)
            case Goodbye(reason):
                state.commands.append(Refusal(f"the broker has said goodbye: {reason}"))
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} from a broker to a worker")

    # Children.

    def ready(self, slot: int, pid: int, exact: bool, now: float) -> list[Command]:
        """The child in this slot is prepared; `exact` says whether its claims can be trusted to the instant."""
        children.on_ready(self.state, self.state.slots[slot], pid, exact)
        return self.state.drain()

    def failed(self, slot: int, text: str, now: float) -> list[Command]:
        """The initializer raised; the child will exit by itself."""
        self.state.slots[slot].failure = f"its initializer failed:\n{text}"
        return self.state.drain()

    def results(self, slot: int, first: int, outcomes: list[Any], microseconds: int, now: float) -> list[Command]:
        """Outcomes of consecutive tasks from index `first` on; the time of the packet so far, 0 if not measured."""
        children.on_results(self.state, self.state.slots[slot], first, outcomes, microseconds, now)
        return self.state.drain()

    def stopped(self, slot: int, index: int, now: float) -> list[Command]:
        """The child met the limit: this index and the later ones of its packet have not started."""
        children.on_stopped(self.state, self.state.slots[slot], index, now)
        return self.state.drain()

    def revoked(self, slot: int, claim: int, unread: list[int], functions: list[int], now: float) -> list[Command]:
        """The answer to `TakeBack`."""
        children.on_revoked(self.state, self.state.slots[slot], claim, unread, functions, now)
        return self.state.drain()

    def looked(self, slot: int, claim: int, now: float) -> list[Command]:
        """The answer to `Look`."""
        children.on_looked(self.state, self.state.slots[slot], claim, now)
        return self.state.drain()

    def output(self, slot: int, index: int, stream: int, text: bytes, now: float) -> list[Command]:
        """What the task of this index wrote; index 0: outside of any task."""
        children.on_output(self.state, self.state.slots[slot], index, stream, text)
        return self.state.drain()

    def exited(self, slot: int, certificate: dict[str, Any], claim: int, now: float) -> list[Command]:
        """The child is dead, and all that it had finished or written was handed in."""
        children.on_exited(self.state, self.state.slots[slot], certificate, claim, now)
        broker_side.forget_closed(self.state)
        return self.state.drain()

    # Time.

    def wake(self, now: float) -> list[Command]:
        """A deadline has passed."""
        state = self.state
        for slot in state.slots:
            if slot.look_at is not None and now >= slot.look_at:
                slot.look_at = None
                state.commands.append(Look(slot.number))
            if slot.kill_at is not None and now >= slot.kill_at:
                slot.kill_at = None
                state.commands.append(KillChild(slot.number))
        line = state.line
        if line is not None and state.is_welcome:
            if now - state.heard_at >= SUSPECT_AFTER_S:
                state.heard_at = now
                broker_side.say_hello(state, now)
            elif line.is_beat_due(now):
                state.send(Beat(state.credit_tasks))
        elif state.hello_at is not None and now >= state.hello_at:
            broker_side.say_hello(state, now)
        return state.drain()

    def flush(self, now: float) -> list[Command]:
        """The end of a turn: fills slots, sends what has gathered, acknowledges what has to be."""
        state = self.state
        children.replace_used_up(state, now)
        place(state, now)
        if state.outbox.waiting:
            broker_side.send_outbox(state)
        line = state.line
        if line is not None and state.is_welcome and line.conversation.must_acknowledge(now):
            state.send(Acknowledge())
        return state.drain()

    def next_deadline(self) -> float | None:
        """When `wake` or `flush` is due although nothing happens."""
        state = self.state
        deadline = state.line.deadline if state.line is not None and state.is_welcome else state.hello_at
        for slot in state.slots:
            for due_at in (slot.look_at, slot.kill_at):
                if due_at is not None and (deadline is None or due_at < deadline):
                    deadline = due_at
        return deadline

    @property
    def has_children(self) -> bool:
        """Whether any slot has a child."""
        return any(slot.state is not State.EMPTY for slot in self.state.slots)

    def end_all(self, now: float) -> list[Command]:
        """The program ends: every child is killed."""
        for slot in self.state.slots:
            if slot.state is not State.EMPTY:
                slot.advance(Event.END)
                self.state.commands.append(KillChild(slot.number))
        return self.state.drain()

    def statistics(self) -> Statistics:
        """Gauges of this moment."""
        state = self.state
        return Statistics(
            slots=len(state.slots),
            children=sum(1 for slot in state.slots if slot.state is not State.EMPTY),
            sessions=len(state.sessions),
            queued_tasks=sum(session.queued_tasks for session in state.sessions.values()),
            held_tasks=state.held_tasks,
            kept_outcomes=state.kept_outcomes,
        )
