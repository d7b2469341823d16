"""What the broker says, and what is said to it: hello, tasks, cancel, release, stale, close, chunks."""

from typing import Any

from netfutures.fetch import Fetch, abort, chunks
from netfutures.fields import Dispatched, Reference
from netfutures.limits import HELLO_RETRY_S, PROTOCOL_MAJOR, PROTOCOL_MINOR
from netfutures.line import Line
from netfutures.ranges import HELD, KEPT
from netfutures.wire import Chunk, Close, Finished, Lost, Need, Open, Output, Tasks, Welcome, WorkerHello

from .commands import KillChild, Send, TakeBack
from .placing import end_child
from .session import WorkerSession
from .slot import Event, Packet, Slot, State
from .state import (
    Arrival,
    FinishedRun,
    FunctionArrived,
    InitializerArrived,
    Item,
    TaskArrived,
    WorkerState,
    Written,
)
from .work import Holding, Work


def say_hello(state: WorkerState, now: float) -> None:
    """Registers, or comes back with a new connection number, and says what is held and kept."""
    state.connection += 1
    state.is_welcome = False
    state.hello_at = now + HELLO_RETRY_S
    state.outbox.repeat_sent()
    line = state.line = Line(None, state.connection, now)
    who = state.identity
    # A loss that the broker may not have heard of is still claimed, else its tasks would be taken for never arrived.
    losses = [part for item in state.outbox.waiting if isinstance(item, Lost) for part in item.dispatched]
    hello = WorkerHello(
        protocol=(PROTOCOL_MAJOR, PROTOCOL_MINOR),
        worker=who.worker,
        token=who.token,
        versions=who.versions,
        host=who.host,
        pid=who.pid,
        slots=len(state.slots),
        credit_tasks=state.credit_tasks,
        sessions=list(state.sessions),
        held=[*state.claims(HELD), *losses],
        finished=state.claims(KEPT),
    )
    state.commands.append(Send(line.envelope(hello)))


def on_welcome(state: WorkerState, welcome: Welcome) -> None:
    """The broker has taken the hello."""
    state.is_welcome = True
    state.hello_at = None
    state.epoch = welcome.epoch
    for fetch, _ in state.fetches.values():
        fetch.restart()
        _ask(state, fetch)


def on_open(state: WorkerState, message: Open) -> None:
    """A session whose tasks will come."""
    if message.session in state.sessions:
        return
    session = WorkerSession(message.session, message.settings, message.initializer)
    state.sessions[message.session] = session
    state.turns.append(session)
    if type(message.initializer) is Reference:
        _pull(state, session, message.initializer, InitializerArrived(session))


def on_tasks(state: WorkerState, message: Tasks) -> None:
    """Tasks to run; those whose payload is not in the message wait until it has been pulled."""
    session = state.sessions.get(message.session)
    if session is None or session.closing:
        return  # Closed meanwhile: the broker has forgotten these dispatches.
    for digest, payload, keep in message.blobs:
        is_new = digest not in session.functions
        function = session.learn(digest, payload, keep)
        if is_new and type(payload) is Reference:
            _pull(state, session, payload, FunctionArrived(function))
    for base, digest, options, payloads in message.runs:
        holding = state.holdings[base] = Holding(base, len(payloads), session.identity)
        state.held_tasks += len(payloads)
        if Reference not in set(map(type, payloads)):
            session.put(Work(holding, 0, digest, options, list(payloads)))
            continue
        for offset, payload in enumerate(payloads):
            work = Work(holding, offset, digest, options, [payload])
            if type(payload) is Reference:
                reference = Reference(payload.kind, base + offset, payload.size_bytes)
                _pull(state, session, reference, TaskArrived(session, work))
            else:
                session.put(work)


def _pull(state: WorkerState, session: WorkerSession, reference: Reference, arrival: Arrival) -> None:
    fetch = Fetch(session.identity, reference, state.allocate(reference.size_bytes))
    state.fetches[session.identity, reference.key] = (fetch, arrival)
    _ask(state, fetch)


def _ask(state: WorkerState, fetch: Fetch) -> None:
    need = fetch.need()
    if need is not None:
        state.send(need)


def on_chunk(state: WorkerState, chunk: Chunk) -> None:
    """Bytes of a payload that was asked for."""
    found = state.fetches.get((chunk.session, chunk.key))
    if found is None:
        return
    fetch, arrival = found
    if chunk.abort:
        state.note(f"a payload of session {chunk.session.hex()} cannot be had any more")
        del state.fetches[chunk.session, chunk.key]
        return
    if not fetch.take(chunk):
        _ask(state, fetch)
        return
    del state.fetches[chunk.session, chunk.key]
    store: Any = fetch.store
    store.seal()
    match arrival:
        case FunctionArrived(function):
            function.payload = store
        case InitializerArrived(session):
            session.initializer = store
        case TaskArrived(session, work):
            work.payloads[0] = store
            if state.is_current(work):
                session.put(work)


def on_need(state: WorkerState, need: Need) -> None:
    """The client pulls an outcome that was too large for a message."""
    outcome = _outcome_of(state, need)
    for chunk in [abort(need)] if outcome is None else chunks(need, outcome):
        state.send(chunk)


def _outcome_of(state: WorkerState, need: Need) -> Any:
    key = need.key
    for holding in state.holdings.values():
        if type(key) is int and holding.session == need.session and holding.base <= key < holding.base + holding.count:
            return holding.outcomes[key - holding.base]
    return None


def on_release(state: WorkerState, dispatched: list[Dispatched]) -> None:
    """The client has these outcomes."""
    for base, offset, count in dispatched:
        holding = state.holdings.get(base)
        if holding is not None and offset + count <= holding.count:
            state.end(holding, offset, count)


def on_stale(state: WorkerState, dispatched: list[Dispatched]) -> None:
    """These dispatches are over: what waits is dropped, what runs is ended with its child, outcomes are forgotten."""
    for base, offset, count in dispatched:
        holding = state.holdings.get(base)
        if holding is None or offset + count > holding.count:
            continue
        state.end(holding, offset, count)
        for key in [(holding.session, base + at) for at in range(offset, offset + count)]:
            state.fetches.pop(key, None)
        for session in state.sessions.values():
            session.put_back([part for work in session.drop_queue() for part in work.current_parts()])
        for slot in state.slots:
            unwanted = [packet for packet in slot.packets if packet.work.holding is holding and _is_unwanted(packet)]
            _end_unwanted(state, slot, unwanted)


def _is_unwanted(packet: Packet) -> bool:
    """Whether its child still has tasks of it to run, and nobody wants any of them."""
    return packet.done < packet.count and not packet.work.part(packet.done, packet.count).current_parts()


def _end_unwanted(state: WorkerState, slot: Slot, unwanted: list[Packet]) -> None:
    """What runs is ended with its child; what waits behind a task that is wanted is taken back."""
    running = next((packet for packet in slot.packets if packet.done < packet.count), None)
    if running in unwanted:
        _kill(state, slot)
    elif unwanted and slot.state is State.READY:
        state.commands.append(TakeBack(slot.number))


def _kill(state: WorkerState, slot: Slot) -> None:
    if slot.state is not State.EMPTY:
        slot.advance(Event.END)
        state.commands.append(KillChild(slot.number))


def on_close(state: WorkerState, message: Close, now: float) -> None:
    """A session is over: nothing of it stays, its children end."""
    session = state.sessions.get(message.session)
    if session is None:
        return
    session.closing = True
    session.drop_queue()
    for holding in [each for each in state.holdings.values() if each.session == session.identity]:
        state.end(holding, 0, holding.count)
    for key in [key for key in state.fetches if key[0] == session.identity]:
        del state.fetches[key]
    for slot in state.children_of(session):
        if message.at_once or slot.packets or slot.state is State.STARTING:
            _kill(state, slot)
        else:
            end_child(state, slot, now)
    forget_closed(state)


def forget_closed(state: WorkerState) -> None:
    """Forgets closed sessions whose last child is gone."""
    for session in [each for each in state.sessions.values() if each.closing]:
        if not state.children_of(session):
            del state.sessions[session.identity]
            state.turns.remove(session)


def _sizes(item: Item) -> tuple[int, int]:
    match item:
        case FinishedRun(_, _, outcomes):
            return len(outcomes), sum(map(len, outcomes))
        case Written():
            return 1, len(item.text)
    return 0, 0


def send_outbox(state: WorkerState) -> None:
    """Sends the broker what has gathered, as far as the window is open."""
    line, outbox = state.line, state.outbox
    while state.is_welcome and line is not None and outbox.waiting and line.conversation.is_open:
        items = outbox.take_batch(line.conversation.sent + 1, _sizes)
        first = items[0]
        match first:
            case FinishedRun():
                runs: Any = items  # A batch is of one class, and this class is what the message has.
                state.send(Finished(state.credit_tasks, runs), batch=True)
            case Written():
                written = [each for each in items if isinstance(each, Written)]
                state.send(Output([each[:5] for each in written]), batch=True)
            case message:
                state.send(message, batch=True)
