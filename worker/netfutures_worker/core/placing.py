"""Which task goes to which slot: packets of measured size, and children started on demand."""

from netfutures.limits import END_GRACE_S, PACKET_BYTES_MAX, PACKET_SECONDS, PACKET_TASKS_MAX, STARTED_AFTER_S

from .commands import EndChild, GiveFunction, GiveTasks, StartChild, TakeBack
from .session import Function, WorkerSession
from .slot import Event, Packet, Slot, State
from .state import WorkerState
from .work import Work

PACKET_HEAD_BYTES = 64
PAYLOAD_HEAD_BYTES = 5
"""What msgpack adds to a packet and to each payload in it, at most."""


def place(state: WorkerState, now: float) -> None:
    """Gives every slot what it can take; sessions take turns."""
    for session in list(state.turns):
        if session.queue and not session.closing and session.is_prepared:
            _place_session(state, session, now)
        if not session.queue:
            _move_stuck(state, session)


def _place_session(state: WorkerState, session: WorkerSession, now: float) -> None:
    children = [slot for slot in state.slots if slot.session is session]
    while session.queue:
        function = session.functions[session.queue[0].digest]
        if not function.is_here:
            return
        slot = _idle(children)
        if slot is None:
            _start_children(state, session, now)
            slot = _ahead(children, function)
        if slot is None:
            return
        _give(state, slot, session, function, len(children), now)


def _idle(children: list[Slot]) -> Slot | None:
    for slot in children:
        if slot.is_idle:
            return slot
    return None


def _ahead(children: list[Slot], function: Function) -> Slot | None:
    best: Slot | None = None
    for slot in children:
        if slot.takes_ahead(function.estimate_s) and (best is None or len(slot.packets) < len(best.packets)):
            best = slot
    return best


def _start_children(state: WorkerState, session: WorkerSession, now: float) -> None:
    """Starts a child for each task that finds no idle one, as far as slots are free."""
    if session.cannot_start:
        return
    starting = sum(1 for slot in state.slots if slot.session is session and slot.state is State.STARTING)
    for slot in state.slots:
        if starting >= session.queued_tasks:
            return
        if slot.state is State.EMPTY:
            slot.session = session
            slot.started_at = now
            slot.allowance = session.tasks_per_child_max
            slot.advance(Event.START)
            state.commands.append(StartChild(slot.number, session.initializer))
            starting += 1
            # The next slot that is free goes to another session, if one waits.
            state.turns.remove(session)
            state.turns.append(session)
        elif _is_free_for(slot, session):
            end_child(state, slot, now)


def _is_free_for(slot: Slot, session: WorkerSession) -> bool:
    """Whether its child serves another session and has nothing to do."""
    other = slot.session
    return other is not None and other is not session and slot.is_idle and not other.queue


def _give(
    state: WorkerState, slot: Slot, session: WorkerSession, function: Function, children: int, now: float
) -> None:
    work = _next_packet(slot, session, function, children)
    if not state.is_current(work):
        return  # The broker has called it stale meanwhile.
    if function.number not in slot.functions:
        slot.functions.add(function.number)
        state.commands.append(GiveFunction(slot.number, function.number, function.payload, function.keep))
    if not slot.packets:
        slot.look_at = now + STARTED_AFTER_S
        slot.is_overdue = False
    packet = Packet(slot.next_index, work)
    slot.next_index += work.count
    if slot.allowance is not None:
        slot.allowance -= work.count
    slot.packets.append(packet)
    slot.last_work = work
    state.commands.append(GiveTasks(slot.number, function.number, packet.first, work.payloads))


def _next_packet(slot: Slot, session: WorkerSession, function: Function, children: int) -> Work:
    """About a millisecond of measured work; one task while its length is unknown; a fair share near the end."""
    estimate_s = function.estimate_s
    count = 1
    if estimate_s is not None and slot.exact:
        count = max(1, min(int(PACKET_SECONDS / max(estimate_s, 1e-7)), PACKET_TASKS_MAX))
        count = min(count, -(-session.queued_tasks // max(children, 1)))
    if slot.allowance is not None:
        count = min(count, slot.allowance)
    if count > 1:
        count = _within_bytes(session.queue[0], count)
    return session.take(count)


def _within_bytes(work: Work, count: int) -> int:
    """As many of these tasks as a packet has room for; one that is larger goes as memory, alone."""
    room_bytes = PACKET_BYTES_MAX - PACKET_HEAD_BYTES - PAYLOAD_HEAD_BYTES * count
    payloads = work.payloads[:count]
    if sum(map(len, payloads)) <= room_bytes:
        return count
    for at, payload in enumerate(payloads):
        room_bytes -= len(payload)
        if room_bytes < 0:
            return max(1, at)
    return count


def _move_stuck(state: WorkerState, session: WorkerSession) -> None:
    """While a slot has nothing to do, what waits behind a task that has run for long is taken back for it."""
    for slot in state.slots:
        if slot.is_overdue and slot.session is session and slot.has_more_behind and _has_free_slot(state, session):
            state.commands.append(TakeBack(slot.number))
            return


def _has_free_slot(state: WorkerState, session: WorkerSession) -> bool:
    return any((slot.is_idle and slot.session is session) or slot.state is State.EMPTY for slot in state.slots)


def end_child(state: WorkerState, slot: Slot, now: float) -> None:
    """Lets the child of this slot end in good order, within its grace."""
    if slot.state is State.READY or slot.state is State.STARTING:
        slot.advance(Event.END)
        slot.kill_at = now + END_GRACE_S
        state.commands.append(EndChild(slot.number))
