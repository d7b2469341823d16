"""The broker's core, by its doors: messages and the time go in, commands come out.

`receive` a message, `wake` when a deadline has passed, `flush` at the end of a turn, `next_deadline`, `unreachable`
when a route is dead, `refuse` when a peer broke the protocol, `statistics`. What gathers during a turn leaves in
`flush`, so that a burst packs itself and one task alone leaves at once.
"""

from netfutures.limits import LEASE_S, PAUSE_S, RELEASE_EVERY_S
from netfutures.wire import (
    Acknowledge,
    Beat,
    Cancel,
    Chunk,
    ClientHello,
    Envelope,
    Finished,
    Goodbye,
    Lost,
    Message,
    Need,
    Output,
    Refused,
    RemoteProtocolError,
    Started,
    Submit,
    TakenBack,
    WorkerHello,
)

from .commands import Command, Statistics
from .connections import accept, ask_who, notice_pause, on_client_hello, on_worker_hello, put_away
from .handout import hand_out, send_acknowledgements, send_outboxes, send_releases
from .losses import drop_session, on_client_goodbye, on_lost, worker_lost
from .relay import on_chunk, on_need
from .roster import WorkerRecord
from .session import ClientSession
from .state import BrokerState, Party
from .tasks import (
    on_cancel,
    on_finished,
    on_output,
    on_started,
    on_submit,
    on_taken_back,
    release_acknowledged,
)

BATCHES = (Submit, Finished, Output, Started, TakenBack, Lost)
"""Messages that count against their sender's window, which stays shut until they are acknowledged."""


class Scheduler:
    """The broker without its socket and its clock."""

    def __init__(self, epoch: int) -> None:
        self.state = BrokerState(epoch)

    def receive(self, route: bytes, envelope: Envelope, now: float) -> list[Command]:
        """A message came in on a route.

        Raises `RemoteProtocolError` when the peer broke the protocol; the shell then calls `refuse`.
        """
        state = self.state
        notice_pause(state, now)
        message = envelope.message
        party = state.routes.get(route)
        match message:
            case ClientHello():
                on_client_hello(state, route, envelope.connection, message, now)
            case WorkerHello():
                on_worker_hello(state, route, envelope.connection, message, now)
            case _ if party is None:
                ask_who(state, route, now)
            case _ if accept(state, party, route, envelope, now):
                self._on_message(party, message, now)
        return state.drain()

    def _on_message(self, party: Party, message: Message, now: float) -> None:
        state = self.state
        if isinstance(party, ClientSession):
            state.acknowledging[party.identity] = party
            if party.outbox.waiting:
                state.touch(party)  # Its window may be open again.
        if isinstance(message, BATCHES):
            state.owe(party, now)
        match party, message:
            case WorkerRecord(), Finished():
                on_finished(state, party, message)
            case ClientSession(), Submit():
                on_submit(state, party, message)
            case WorkerRecord(), Beat(credit_tasks):
                party.credit_tasks = credit_tasks
            case _, Beat() | Acknowledge():
                pass  # Their numbers, which were taken above, are all that they bring.
            case WorkerRecord(), Output():
                on_output(state, party, message)
            case WorkerRecord(), Started(dispatched):
                on_started(state, party, dispatched)
            case ClientSession(), Cancel(request, _):
                on_cancel(state, party, request)
            case WorkerRecord(), TakenBack():
                on_taken_back(state, party, message)
            case WorkerRecord(), Lost():
                on_lost(state, party, message)
            case _, Need():
                on_need(state, party, message, now)
            case _, Chunk():
                on_chunk(state, party, message)
            case ClientSession(), Goodbye(reason):
                on_client_goodbye(state, party, reason)
            case WorkerRecord(), Goodbye(reason):
                worker_lost(state, party, f"it said goodbye: {reason}", now)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} from a {type(party).__name__}")

    def wake(self, now: float) -> list[Command]:
        """A deadline has passed: beats, leases, parties that stayed away too long."""
        state = self.state
        notice_pause(state, now)
        if state.wake_at is None or now < state.wake_at:
            return state.drain()
        state.wake_at = None
        for worker in list(state.roster):
            if now - worker.heard_at >= LEASE_S:
                worker_lost(state, worker, f"it was silent for {now - worker.heard_at:.1f} s", now)
            elif worker.away_since is not None and now - worker.away_since >= PAUSE_S:
                worker_lost(state, worker, "its connection ended and did not come back", now)
        for session in list(state.sessions.values()):
            if session.away_since is not None and now - session.away_since >= session.reconnect_timeout_s:
                drop_session(state, session)
        for party in state.parties():
            if party.line is not None and party.line.is_beat_due(now):
                state.send(party, Beat(0))
            if party.line is not None:
                state.wake_no_later(party.line.beat_at)
            elif party.away_since is not None:
                patience_s = PAUSE_S if isinstance(party, WorkerRecord) else party.reconnect_timeout_s
                state.wake_no_later(party.away_since + patience_s)
        return state.drain()

    def flush(self, now: float) -> list[Command]:
        """The end of a turn: hands out tasks, sends what has gathered, acknowledges what has to be."""
        state = self.state
        if state.turns:
            hand_out(state, now)
        if state.touched:
            send_outboxes(state)
        if now >= state.release_at and (state.acknowledging or state.releasing):
            release_acknowledged(state)
            if state.releasing:
                send_releases(state)
                state.release_at = now + RELEASE_EVERY_S
        if state.owing:
            send_acknowledgements(state, now)
        return state.drain()

    def next_deadline(self) -> float | None:
        """When `wake` or `flush` is due although nothing happens."""
        state = self.state
        deadline = state.wake_at
        if (state.acknowledging or state.releasing) and (deadline is None or state.release_at < deadline):
            deadline = state.release_at
        for party in state.owing.values():
            owed_at = None if party.line is None else party.line.conversation.acknowledge_at
            if owed_at is not None and (deadline is None or owed_at < deadline):
                deadline = owed_at
        return deadline

    def unreachable(self, route: bytes, now: float) -> list[Command]:
        """A route is dead: its party is away until it says hello again."""
        party = self.state.routes.get(route)
        if party is not None:
            put_away(self.state, party, now)
        return self.state.drain()

    def refuse(self, route: bytes, why: str, now: float) -> list[Command]:
        """A peer broke the protocol: it is told, and its connection is over."""
        state = self.state
        state.counters.refused += 1
        party = state.routes.get(route)
        if party is not None:
            put_away(state, party, now)
        state.answer(route, Refused(why))
        state.note(f"refused a peer: {why}")
        return state.drain()

    def statistics(self) -> Statistics:
        """Gauges and counters of this moment."""
        state = self.state
        counters = state.counters
        return Statistics(
            sessions=len(state.sessions),
            workers=len(state.roster),
            slots=sum(worker.slots for worker in state.roster),
            queued_tasks=sum(session.backlog_tasks for session in state.sessions.values()),
            held_tasks=sum(worker.held_tasks for worker in state.roster),
            done_tasks=counters.done_tasks,
            stale_messages=counters.stale_messages,
            stale_outcomes=counters.stale_outcomes,
            gaps=counters.gaps,
            refused=counters.refused,
        )
