"""Everything that the broker knows, and the few verbs that all its parts use; what each event does stands beside it.

connections   hello, who, gap, away, and the comparison after a reconnect
tasks         submit, finished, started, output, cancel, taken back
handout       who gets what, and what leaves at the end of a turn
losses        lost children, lost workers, broken and ended sessions
relay         payloads that are pulled through the broker
"""

from collections import deque
from collections.abc import Iterator

from netfutures.limits import BEAT_S
from netfutures.wire import Envelope, Message

from .commands import Command, Counters, Note, Send
from .roster import Roster, WorkerRecord
from .run import Dispatch, Piece
from .session import ClientSession
from .task import Event

Party = ClientSession | WorkerRecord


class BrokerState:
    """Sessions, workers, routes, and the commands that this turn has brought so far."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.sessions: dict[bytes, ClientSession] = {}
        self.roster = Roster()
        self.routes: dict[bytes, Party] = {}
        self.turns: deque[ClientSession] = deque()
        """Sessions with a backlog, in the order of their turns."""
        self.touched: dict[bytes, ClientSession] = {}
        """Sessions whose outbox may have something to send."""
        self.owing: dict[bytes, Party] = {}
        """Parties to which an acknowledgement is owed, by identity."""
        self.acknowledging: dict[bytes, ClientSession] = {}
        """Sessions whose client may have acknowledged outcomes since the last release."""
        self.releasing: dict[bytes, WorkerRecord] = {}
        """Workers that have to be told what to release or drop."""
        self.release_at = 0.0
        """When they are told at the latest: a release can wait for others."""
        self.asked_who: dict[bytes, float] = {}
        self.dropped: dict[bytes, None] = {}
        """The latest sessions whose clients were away for too long; one that comes back has to be told."""
        self.next_base = 1
        self.next_recall = 1
        self.last_turn: float | None = None
        self.wake_at: float | None = None
        self.counters = Counters()
        self.commands: list[Command] = []

    def parties(self) -> Iterator[Party]:
        """Every client and worker."""
        yield from self.sessions.values()
        yield from self.roster

    def drain(self) -> list[Command]:
        """The commands since this was last asked."""
        commands, self.commands = self.commands, []
        return commands

    def note(self, text: str) -> None:
        """A line for the log."""
        self.commands.append(Note(text))

    def send(self, party: Party, message: Message, *, batch: bool = False) -> None:
        """Sends to a party that is connected; to one that is away it is told when it comes back."""
        line = party.line
        if line is not None and line.route is not None:
            self.commands.append(Send(line.route, line.envelope(message, batch=batch)))

    def answer(self, route: bytes, message: Message) -> None:
        """Sends to a route that is no party's, without numbers."""
        self.commands.append(Send(route, Envelope(0, 0, 0, message)))

    def owe(self, party: Party, now: float) -> None:
        """A batch of this party is in the core."""
        assert party.line is not None
        party.line.conversation.owe(now)
        self.owing[party.identity] = party

    def touch(self, session: ClientSession) -> None:
        """The session's outbox may have something to send."""
        self.touched[session.identity] = session

    def wake_no_later(self, at: float) -> None:
        """`wake` has something to do at this time."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def expect_wake(self, now: float) -> None:
        """There is somebody to beat to."""
        self.wake_no_later(now + BEAT_S)

    def resume_turn(self, session: ClientSession) -> None:
        """The session takes turns again if it has a backlog and somebody to answer to."""
        if session.backlog and session.line is not None and session not in self.turns:
            self.turns.append(session)

    def take_back(self, worker: WorkerRecord, dispatch: Dispatch, offset: int, count: int) -> None:
        """These tasks have not started at their worker and never will: they wait again, in front."""
        dispatch.advance(offset, count, Event.TAKEN_BACK)
        worker.let_go(dispatch, offset, count)
        session = self.sessions[dispatch.session]
        session.queue(Piece(dispatch.run, dispatch.offset + offset, count), in_front=True)
        self.resume_turn(session)
