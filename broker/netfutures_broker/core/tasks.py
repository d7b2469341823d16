"""What clients and workers say of tasks: submitted, started, finished, printed, called back."""

from netfutures.fields import CHUNKS, NO_TASK, Dispatched, Payload, Reference
from netfutures.wire import Cancel, Finished, Output, Printed, RemoteProtocolError, Running, Submit, TakenBack

from .roster import WorkerRecord
from .run import Dispatch
from .session import ClientSession, Outcomes, Recall
from .state import BrokerState
from .task import Event


def on_submit(state: BrokerState, session: ClientSession, message: Submit) -> None:
    """New tasks, or ones that the client repeats because they were not acknowledged."""
    if not session.is_broken:
        session.submit(message.blobs, message.runs)
        state.resume_turn(session)


def on_finished(state: BrokerState, worker: WorkerRecord, message: Finished) -> None:
    """Outcomes; they count only where the worker's dispatch is the task's current one."""
    worker.credit_tasks = message.credit_tasks
    for base, offset, outcomes in message.runs:
        count = len(outcomes)
        dispatch = worker.dispatches.get(base)
        parts = [] if dispatch is None else dispatch.current_parts(offset, count)
        if dispatch is not None and parts == [(offset, count)]:
            _finish(state, worker, dispatch, offset, outcomes)
            continue
        stale = worker.ended_parts(base, offset, count)
        state.counters.stale_outcomes += sum(length for *_, length in stale)
        worker.stale += stale
        state.releasing[worker.identity] = worker
        for start, length in parts:
            assert dispatch is not None
            _finish(state, worker, dispatch, start, outcomes[start - offset : start - offset + length])


def _finish(state: BrokerState, worker: WorkerRecord, dispatch: Dispatch, offset: int, outcomes: list[Payload]) -> None:
    count = len(outcomes)
    session = state.sessions[dispatch.session]
    if Reference in set(map(type, outcomes)):
        _note_large(session, worker, dispatch.base + offset, outcomes)
    dispatch.advance(offset, count, Event.FINISHED)
    worker.finish(dispatch, offset, count)
    session.forget_attempts(dispatch.first + offset, count)
    state.counters.done_tasks += count
    session.outbox.put(Outcomes(dispatch.first + offset, outcomes, dispatch, offset))
    state.touch(session)


def _note_large(session: ClientSession, worker: WorkerRecord, first: int, outcomes: list[Payload]) -> None:
    """Outcomes that stay at their worker until they are pulled; each is named by its dispatch number."""
    large = [number for number, outcome in enumerate(outcomes, first) if type(outcome) is Reference]
    for number in large:
        outcome = outcomes[number - first]
        if outcome != Reference(CHUNKS, number, outcome[2]):
            raise RemoteProtocolError(f"the outcome of dispatch {number} refers to something else: {outcome!r}")
    session.large.update(dict.fromkeys(large, worker.identity))


def release_acknowledged(state: BrokerState) -> None:
    """Releases at their workers the outcomes that clients have by their own word."""
    sessions, state.acknowledging = state.acknowledging, {}
    for session in sessions.values():
        release_outcomes(state, session)


def release_outcomes(state: BrokerState, session: ClientSession) -> None:
    """The same for one client."""
    for outcomes in session.acknowledged():
        dispatch = outcomes.dispatch
        worker = None if dispatch is None else state.roster.get(dispatch.worker)
        if dispatch is None or worker is None or worker.dispatches.get(dispatch.base) is not dispatch:
            continue
        state.releasing[worker.identity] = worker
        if not session.large:
            worker.release(dispatch, outcomes.offset, len(outcomes.payloads))
            continue
        for at, payload in enumerate(outcomes.payloads):
            # One that stays at its worker until it is pulled is released by the client's last `Need`.
            if type(payload) is not Reference or payload.key not in session.large:
                worker.release(dispatch, outcomes.offset + at, 1)


def on_output(state: BrokerState, worker: WorkerRecord, message: Output) -> None:
    """What tasks printed goes to their client, in order with their outcomes."""
    for identity, base, offset, stream, text in message.records:
        session = state.sessions.get(identity)
        if session is not None:
            dispatch = worker.dispatches.get(base)
            is_known = dispatch is not None and dispatch.session == identity and offset < dispatch.count
            number = dispatch.first + offset if dispatch is not None and is_known else NO_TASK
            session.outbox.put(Printed([(number, stream, text)]))
            state.touch(session)


def on_started(state: BrokerState, worker: WorkerRecord, dispatched: list[Dispatched]) -> None:
    """These tasks really run: their futures will say so."""
    for base, offset, count in dispatched:
        dispatch = worker.dispatches.get(base)
        if dispatch is None:
            continue
        for start, length in dispatch.current_parts(offset, count):
            dispatch.advance(start, length, Event.STARTED)
            session = state.sessions[dispatch.session]
            session.outbox.put(Running([(dispatch.first + start, length)]))
            state.touch(session)


def on_cancel(state: BrokerState, session: ClientSession, request: int) -> None:
    """The client calls back all its tasks that have not started."""
    if request in session.recalls or session.is_broken:
        return
    recall = session.recalls[request] = Recall(state.next_recall)
    state.next_recall += 1
    recall.numbers += session.give_back_backlog()
    for worker in state.roster:
        if worker.held_of.get(session.identity):
            recall.awaited.add(worker.identity)
            state.send(worker, Cancel(recall.number, session.identity))
    answer_recall(state, session, request)


def answer_recall(state: BrokerState, session: ClientSession, request: int) -> None:
    """Answers the client as soon as no worker is awaited any more."""
    if not session.recalls[request].awaited:
        session.finish_recall(request)
        state.touch(session)


def on_taken_back(state: BrokerState, worker: WorkerRecord, message: TakenBack) -> None:
    """These tasks have not started at this worker and never will."""
    for base, offset, count in reversed(message.dispatched):
        dispatch = worker.dispatches.get(base)
        for start, length in [] if dispatch is None else reversed(dispatch.current_parts(offset, count)):
            assert dispatch is not None
            state.take_back(worker, dispatch, start, length)
    for session in state.sessions.values():
        for request, recall in list(session.recalls.items()):
            if recall.number == message.request and worker.identity in recall.awaited:
                no_longer_awaited(state, session, request, worker)


def no_longer_awaited(state: BrokerState, session: ClientSession, request: int, worker: WorkerRecord) -> None:
    """A worker has answered a recall, or cannot any more; what it gave back goes on to the client."""
    recall = session.recalls[request]
    recall.awaited.discard(worker.identity)
    recall.numbers += session.give_back_backlog()
    answer_recall(state, session, request)
