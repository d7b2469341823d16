"""Everything that the worker's core knows, and the few verbs that all its parts use.

broker_side   hello, welcome, tasks, cancel, release, stale, close, chunks
children      what children do: ready, outcomes, stops, output, death
placing       which task goes to which slot, and when a child is started
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from netfutures.fetch import Fetch
from netfutures.fields import Dispatched, Payload
from netfutures.limits import WORKER_CREDIT_SECONDS, WORKER_CREDIT_TASKS_MAX
from netfutures.line import Line
from netfutures.outbox import Outbox
from netfutures.ranges import HELD, KEPT
from netfutures.wire import Lost, Message, Started, TakenBack

from .commands import Command, Note, Pulled, Send
from .session import Function, WorkerSession
from .slot import Slot, State
from .work import Holding, Work


class Identity(NamedTuple):
    """Who this worker is."""

    worker: bytes
    token: bytes
    host: str
    pid: int
    versions: dict[str, Any]


class FinishedRun(NamedTuple):
    """Outcomes on their way to the broker."""

    base: int
    offset: int
    outcomes: list[Payload]


class Written(NamedTuple):
    """What a task wrote, on its way to the client."""

    session: bytes
    base: int
    offset: int
    stream: int
    text: bytes
    slot: int


class FunctionArrived(NamedTuple):
    """What waits for a payload to be pulled: a function."""

    function: Function


class TaskArrived(NamedTuple):
    """What waits for a payload to be pulled: one task."""

    session: WorkerSession
    work: Work


class InitializerArrived(NamedTuple):
    """What waits for a payload to be pulled: a session's initializer."""

    session: WorkerSession


Arrival = FunctionArrived | TaskArrived | InitializerArrived
Item = FinishedRun | Written | Started | TakenBack | Lost


class WorkerState:
    """Slots, sessions, what is held and kept, and the commands that this turn has brought so far."""

    def __init__(self, identity: Identity, slots: int, allocate: Callable[[int], Pulled]) -> None:
        self.identity = identity
        self.allocate = allocate
        self.slots = [Slot(number) for number in range(slots)]
        self.sessions: dict[bytes, WorkerSession] = {}
        self.turns: deque[WorkerSession] = deque()
        """Sessions, in the order of their turns."""
        self.holdings: dict[int, Holding] = {}
        self.held_tasks = 0
        self.outbox: Outbox[Item] = Outbox()
        self.fetches: dict[tuple[bytes, int | bytes], tuple[Fetch, Arrival]] = {}
        self.recalls: dict[int, tuple[set[int], list[Dispatched]]] = {}
        """Requests of the broker to take back: slots that have not answered, and what was taken back."""
        self.connection = 0
        self.line: Line | None = None
        self.is_welcome = False
        self.epoch: int | None = None
        self.hello_at: float | None = None
        self.heard_at = 0.0
        self.commands: list[Command] = []

    def drain(self) -> list[Command]:
        """The commands since this was last asked."""
        commands, self.commands = self.commands, []
        return commands

    def note(self, text: str) -> None:
        """A line for the log."""
        self.commands.append(Note(text))

    def send(self, message: Message, *, batch: bool = False) -> None:
        """Sends to the broker; while there is no connection nothing is sent, and the hello tells it all."""
        if self.line is not None and self.is_welcome:
            self.commands.append(Send(self.line.envelope(message, batch=batch)))

    @property
    def credit_tasks(self) -> int:
        """How many tasks this worker wants to hold: one for each slot and one ahead, more when they are tiny."""
        wanted = 0
        slots = len(self.slots)
        for session in self.sessions.values():
            if session.recent_estimate_s is not None:
                ahead = int(WORKER_CREDIT_SECONDS / max(session.recent_estimate_s, 1e-6))
                if ahead > wanted:
                    wanted = ahead
        return slots * (2 + min(wanted, WORKER_CREDIT_TASKS_MAX))

    def children_of(self, session: WorkerSession) -> list[Slot]:
        """The slots whose child serves this session."""
        return [slot for slot in self.slots if slot.session is session and slot.state is not State.EMPTY]

    def keep(self, holding: Holding, offset: int, outcomes: list[Any]) -> None:
        """Tasks are finished."""
        holding.keep(offset, outcomes)
        self.held_tasks -= len(outcomes)

    def end(self, holding: Holding, offset: int, count: int) -> None:
        """Nothing of these tasks is here any more."""
        self.held_tasks -= holding.marks.count(HELD, offset, offset + count)
        holding.end(offset, count)
        if holding.open_count == 0:
            self.holdings.pop(holding.base, None)

    def drop_pulled_tasks(self, session: WorkerSession) -> list[Work]:
        """Tasks whose payloads are under way; these are not waited for any more."""
        works: list[Work] = []
        for key, (_, arrival) in list(self.fetches.items()):
            if isinstance(arrival, TaskArrived) and arrival.session is session:
                del self.fetches[key]
                works.append(arrival.work)
        return works

    def claims(self, mark: int) -> list[Dispatched]:
        """Everything here with this mark, as the hello says it."""
        return [part for holding in self.holdings.values() for part in holding.parts(mark)]

    @property
    def kept_outcomes(self) -> int:
        """How many outcomes wait to be released."""
        return sum(holding.marks.count(KEPT) for holding in self.holdings.values())

    def is_current(self, work: Work) -> bool:
        """Whether all tasks of this stretch are still to be run here."""
        return work.holding.holds(work.offset, work.count)
