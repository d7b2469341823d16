"""What children do: they get ready, finish, stop at a limit, write, and die."""

from typing import Any

from netfutures.fields import CHUNKS, Dispatched, Payload, Reference
from netfutures.limits import CHUNK_BYTES_MAX, OUTPUT_BYTES_MAX, STARTED_AFTER_S
from netfutures.ranges import HELD, merge, parts_of
from netfutures.wire import Lost, Started, TakenBack

from .commands import Harvest, Mute, TakeBack, Unmute
from .placing import end_child
from .session import WorkerSession
from .slot import Event, Packet, Slot, State
from .state import FinishedRun, Item, WorkerState, Written
from .work import Work


def on_ready(state: WorkerState, slot: Slot, pid: int, exact: bool) -> None:
    """The child is prepared and waits for tasks."""
    slot.pid = pid
    slot.exact = exact
    slot.advance(Event.PREPARED)


def on_results(state: WorkerState, slot: Slot, first: int, outcomes: list[Any], microseconds: int, now: float) -> None:
    """Outcomes of consecutive tasks, as the child finished them."""
    packet = slot.packets[0]
    count = len(outcomes)
    assert packet.first + packet.done == first, "outcomes that do not follow on the last"
    assert packet.done + count <= packet.count, "more outcomes than tasks"
    offset = packet.work.offset + packet.done
    packet.done += count
    if microseconds:
        session = slot.session
        assert session is not None
        session.measure(packet.work.digest, microseconds / 1e6 / (packet.done - packet.measured))
        packet.measured = packet.done
    _finish(state, packet.work, offset, outcomes)
    if packet.done == packet.count and not packet.cut:
        slot.packets.popleft()
    if not slot.is_overdue or first + count > slot.seen_claim:
        _progressed(slot, now)  # Else it is what was done before the task that stands.


def _finish(state: WorkerState, work: Work, offset: int, outcomes: list[Any]) -> None:
    holding = work.holding
    count = len(outcomes)
    if not holding.holds(offset, count):
        # Some were called stale by the broker while they ran: nobody wants these.
        for start, length in parts_of(holding.marks, HELD, offset, offset + count):
            _finish(state, work, start, outcomes[start - offset : start - offset + length])
        return
    state.keep(holding, offset, outcomes)
    sent: list[Payload] = outcomes
    if max(map(len, outcomes)) > CHUNK_BYTES_MAX:
        sent = [
            Reference(CHUNKS, holding.base + offset + at, len(outcome)) if len(outcome) > CHUNK_BYTES_MAX else outcome
            for at, outcome in enumerate(outcomes)
        ]
    state.outbox.put(FinishedRun(holding.base, offset, sent))


def _progressed(slot: Slot, now: float) -> None:
    slot.is_overdue = False
    slot.look_at = now + STARTED_AFTER_S if slot.packets else None


def on_looked(state: WorkerState, slot: Slot, claim: int, now: float) -> None:
    """The child's claim, read because something has stood for a while."""
    packet = slot.packet_of(claim)
    if slot.state is not State.READY or not slot.packets:
        return
    stands = packet is not None and (claim == slot.seen_claim or packet.count == 1)
    slot.seen_claim = claim
    if not stands or packet is None:
        slot.look_at = now + STARTED_AFTER_S
        return
    slot.look_at = None
    slot.is_overdue = True
    offset = packet.work.offset + claim - packet.first
    if packet.work.holding.holds(offset, 1):
        state.outbox.put(Started([(packet.work.holding.base, offset, 1)]))
    if claim > packet.next_index:
        state.commands.append(Harvest(slot.number))


def on_revoked(state: WorkerState, slot: Slot, claim: int, unread: list[int], functions: list[int], now: float) -> None:
    """A take-back: nothing above the claim starts; packets that were read back are gone from the child.

    Without exact claims (no memory barrier) only what was read back is known not to start.
    """
    slot.functions.difference_update(functions)
    back: list[Work] = []
    left: list[Packet] = []
    for packet in slot.packets:
        if packet.first in unread:
            back.append(packet.work.part(packet.done, packet.count))
            continue
        left.append(packet)
        started = max(0, claim + 1 - packet.first)
        if slot.exact and started < packet.count:
            back.append(packet.work.part(started, packet.count))
            packet.count = started
            packet.cut = True
    slot.packets.clear()
    slot.packets.extend(left)
    _queue_again(state, slot, back)
    _answer_recalls(state, slot)


def on_stopped(state: WorkerState, slot: Slot, index: int, now: float) -> None:
    """The child met the limit: this task and the later ones of its packet have not started and never will."""
    packet = slot.packets.popleft()
    assert packet.first <= index <= packet.end, "a stop outside of the packet"
    if index < packet.end:
        _queue_again(state, slot, [packet.work.part(index - packet.first, packet.count)])
    _progressed(slot, now)


def _queue_again(state: WorkerState, slot: Slot, works: list[Work]) -> None:
    session = slot.session
    assert session is not None
    if slot.allowance is not None:
        slot.allowance += sum(work.count for work in works)
    session.put_back([part for work in works for part in work.current_parts()])


def take_back_for(state: WorkerState, request: int, session: WorkerSession | None) -> None:
    """The broker calls back what has not started: the queue at once, what children have as they answer."""
    slots = [] if session is None else [slot for slot in state.children_of(session) if slot.packets]
    awaited = {slot.number for slot in slots}
    back: list[Dispatched] = []
    state.recalls[request] = (awaited, back)
    if session is not None:
        _collect(state, session, back)
    for number in awaited:
        state.commands.append(TakeBack(number))
    _finish_recall(state, request)


def _collect(state: WorkerState, session: WorkerSession, back: list[Dispatched]) -> None:
    for work in session.drop_queue() + state.drop_pulled_tasks(session):
        for part in work.current_parts():
            back.append((part.holding.base, part.offset, part.count))
            state.end(part.holding, part.offset, part.count)


def _answer_recalls(state: WorkerState, slot: Slot) -> None:
    for request, (awaited, back) in list(state.recalls.items()):
        if slot.number in awaited:
            awaited.discard(slot.number)
            if slot.session is not None:
                _collect(state, slot.session, back)
            _finish_recall(state, request)


def _finish_recall(state: WorkerState, request: int) -> None:
    awaited, back = state.recalls[request]
    if not awaited:
        del state.recalls[request]
        state.outbox.put(TakenBack(request, merge(back)))


def on_output(state: WorkerState, slot: Slot, index: int, stream: int, text: bytes) -> None:
    """What a task wrote, or the child outside of any task."""
    session = slot.session
    if session is None:
        return
    packet = slot.packet_of(index)
    work = packet.work if packet is not None else slot.last_work
    if packet is not None:
        base, offset = packet.work.holding.base, packet.work.offset + index - packet.first
    else:
        base, offset = (work.holding.base, work.offset) if work is not None else (0, 0)
    state.outbox.put(Written(session.identity, base, offset, stream, text, slot.number))
    slot.output_bytes += len(text)
    if slot.output_bytes > OUTPUT_BYTES_MAX and not slot.is_muted:
        slot.is_muted = True
        state.commands.append(Mute(slot.number))


def on_acknowledged(state: WorkerState, items: list[Item]) -> None:
    """The broker has these: a child that waits because of its output may go on."""
    for written in items:
        if not isinstance(written, Written):
            continue
        slot = state.slots[written.slot]
        slot.output_bytes -= len(written.text)
        if slot.is_muted and slot.output_bytes <= OUTPUT_BYTES_MAX // 2:
            slot.is_muted = False
            state.commands.append(Unmute(slot.number))


def on_exited(state: WorkerState, slot: Slot, certificate: dict[str, Any], claim: int, now: float) -> None:
    """The child is dead; what it had finished was handed in before.

    Nothing above its claim has started. A death that nobody asked for is a loss for its session.
    """
    session = slot.session
    assert session is not None
    was_expected = slot.state is State.STOPPING or session.closing
    was_starting = slot.state is State.STARTING
    failure = slot.failure
    lost: list[Dispatched] = []
    back: list[Work] = []
    for packet in slot.packets:
        started = min(max(packet.done, claim + 1 - packet.first), packet.count)
        for part in packet.work.part(packet.done, started).current_parts():
            lost.append((part.holding.base, part.offset, part.count))
        back.append(packet.work.part(started, packet.count))
    _queue_again(state, slot, back)
    _answer_recalls(state, slot)
    slot.advance(Event.EXITED)
    slot.clear()
    if was_expected and not lost:
        return
    if was_starting:
        # A child that dies before its first task would die again: that breaks the pool whatever `retries` says.
        session.cannot_start = True
        certificate = {**certificate, "initializer_failed": True}
    if failure is not None:
        certificate = {**certificate, "note": failure}
    for base, offset, count in lost:
        holding = state.holdings.get(base)
        if holding is not None:
            state.end(holding, offset, count)
    if not session.closing:
        state.outbox.put(Lost(session.identity, certificate, lost))


def replace_used_up(state: WorkerState, now: float) -> None:
    """Ends the children that have run as many tasks as they may."""
    for slot in state.slots:
        if slot.allowance == 0 and slot.may_end:
            end_child(state, slot, now)
