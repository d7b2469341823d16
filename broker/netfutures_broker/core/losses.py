"""Lost children, lost workers, broken sessions, and sessions that end."""

from typing import Any

from netfutures.loss import lost_outcome
from netfutures.wire import Chunk, Close, Goodbye, Lost

from .commands import SessionEnded
from .roster import WorkerRecord
from .run import Dispatch, Piece, Run
from .session import ClientSession, Outcomes
from .state import BrokerState
from .task import Event
from .tasks import no_longer_awaited

TASKS_NAMED_MAX = 100
"""A certificate names at most so many of the tasks that were lost."""
DROPPED_SESSIONS_MAX = 10_000
"""So many dropped sessions are remembered."""
LostPart = tuple[Dispatch, int, int]
"""Dispatch, offset, count."""


def on_lost(state: BrokerState, worker: WorkerRecord, message: Lost) -> None:
    """A child of a session died; what it may have been running is named, all else its worker still has."""
    session = state.sessions.get(message.session)
    if session is None or session.is_broken:
        return
    lost: list[LostPart] = []
    for base, offset, count in message.dispatched:
        dispatch = worker.dispatches.get(base)
        if dispatch is not None and dispatch.session == session.identity:
            lost += [(dispatch, *part) for part in dispatch.current_parts(offset, count)]
    numbers = [dispatch.first + at for dispatch, start, count in lost for at in range(start, start + count)]
    _lose(state, session, worker, lost, {**message.certificate, "tasks": numbers[:TASKS_NAMED_MAX]})


def worker_lost(state: BrokerState, worker: WorkerRecord, why: str, now: float) -> None:
    """A whole worker is lost: all that was handed to it counts as started."""
    certificate: dict[str, Any] = {
        "host": worker.host,
        "worker": worker.identity.hex(),
        "pid": worker.pid,
        "note": why,
        "seconds_since_beat": now - worker.heard_at,
    }
    state.note(f"lost worker {worker.identity.hex()} on {worker.host} (pid {worker.pid}): {why}")
    by_session: dict[bytes, list[LostPart]] = {}
    for dispatch in worker.dispatches.values():
        parts = [(dispatch, *part) for part in dispatch.current_parts(0, dispatch.count)]
        by_session.setdefault(dispatch.session, []).extend(parts)
    for session in list(state.sessions.values()):
        lost = by_session.get(session.identity, []) + _lost_outcomes(state, session, worker)
        if not session.is_broken and (lost or worker.identity in session.opened):
            _lose(state, session, worker, lost, certificate)
    _remove_worker(state, worker)


def _lost_outcomes(state: BrokerState, session: ClientSession, worker: WorkerRecord) -> list[LostPart]:
    """The outcomes that only this worker had: whoever pulls one is told that it will not come."""
    lost: list[LostPart] = []
    for key in [key for key, identity in session.large.items() if identity == worker.identity]:
        del session.large[key]
        session.pulled.pop(key, None)
        state.send(session, Chunk(session.identity, key, 0, b"", True))
        dispatch = worker.dispatch_of(key)
        if dispatch is not None:
            lost.append((dispatch, key - dispatch.base, 1))
    return lost


def _remove_worker(state: BrokerState, worker: WorkerRecord) -> None:
    if worker.line is not None and worker.line.route is not None:
        state.routes.pop(worker.line.route, None)
    state.roster.remove(worker)
    state.owing.pop(worker.identity, None)
    state.releasing.pop(worker.identity, None)
    for session in state.sessions.values():
        session.opened.discard(worker.identity)
        for request, recall in list(session.recalls.items()):
            if worker.identity in recall.awaited:
                no_longer_awaited(state, session, request, worker)


def _retries(session: ClientSession, run: Run) -> int | None:
    """What the run's own options say, else the session's."""
    if run.options is not None and "retries" in run.options:
        return run.retries
    return session.settings.get("retries")


def _lose(
    state: BrokerState,
    session: ClientSession,
    worker: WorkerRecord,
    lost: list[LostPart],
    certificate: dict[str, Any],
) -> None:
    policies = [_retries(session, dispatch.run) for dispatch, *_ in lost] or [session.settings.get("retries")]
    if certificate.get("initializer_failed") or None in policies:
        break_session(state, session, certificate)
        return
    for dispatch, offset, count in lost:
        for at in range(offset, offset + count):
            _lose_task(state, session, worker, dispatch, at, certificate)


def _lose_task(
    state: BrokerState,
    session: ClientSession,
    worker: WorkerRecord,
    dispatch: Dispatch,
    offset: int,
    certificate: dict[str, Any],
) -> None:
    number = dispatch.first + offset
    retries = _retries(session, dispatch.run)
    assert retries is not None
    may_run_again = session.attempt_failed(number, retries)
    dispatch.advance(offset, 1, Event.RUN_AGAIN if may_run_again else Event.LOST)
    worker.let_go(dispatch, offset, 1)
    if may_run_again:
        session.queue(Piece(dispatch.run, dispatch.offset + offset, 1), in_front=True)
        state.resume_turn(session)
    else:
        certificate = {**certificate, "tasks": [number], "attempt": session.attempts[number] - 1}
        session.forget_attempts(number, 1)
        session.outbox.put(Outcomes(number, [lost_outcome(certificate)], None, 0))
        state.touch(session)


def break_session(state: BrokerState, session: ClientSession, certificate: dict[str, Any]) -> None:
    """The session is broken: its children everywhere are ended, its queue is dropped, its client is told."""
    session.break_with(certificate)
    _leave_workers(state, session, at_once=True)
    _leave_turns(state, session)
    state.touch(session)
    state.note(f"session {session.identity.hex()} is broken: {certificate}")


def _leave_turns(state: BrokerState, session: ClientSession) -> None:
    if session in state.turns:
        state.turns.remove(session)


def _leave_workers(state: BrokerState, session: ClientSession, *, at_once: bool) -> None:
    for worker in state.roster:
        worker.forget_session(session.identity)
        if worker.identity in session.opened:
            state.send(worker, Close(session.identity, at_once))
    session.opened.clear()


def on_client_goodbye(state: BrokerState, session: ClientSession, reason: str) -> None:
    """The client leaves; what is still queued or runs is not wanted any more."""
    has_work = session.backlog_tasks > 0 or any(session.identity in worker.held_of for worker in state.roster)
    state.send(session, Goodbye("the session is over"))
    end_session(state, session, at_once=has_work, why=reason)


def drop_session(state: BrokerState, session: ClientSession) -> None:
    """Its client was away for too long; if it comes back, what it waits for is not here."""
    end_session(state, session, at_once=True, why="its client did not come back")
    if len(state.dropped) >= DROPPED_SESSIONS_MAX:
        del state.dropped[next(iter(state.dropped))]
    state.dropped[session.identity] = None


def end_session(state: BrokerState, session: ClientSession, *, at_once: bool, why: str) -> None:
    """Nothing of the session stays here."""
    session.drop_backlog()
    _leave_workers(state, session, at_once=at_once)
    _leave_turns(state, session)
    if session.line is not None and session.line.route is not None:
        state.routes.pop(session.line.route, None)
    state.touched.pop(session.identity, None)
    state.acknowledging.pop(session.identity, None)
    state.owing.pop(session.identity, None)
    del state.sessions[session.identity]
    state.commands.append(SessionEnded(session.identity))
    state.note(f"session {session.identity.hex()} ended: {why}")
