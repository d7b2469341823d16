"""The broker's shell: moves envelopes between its links and its core; it decides nothing."""

import logging
from collections.abc import Callable

from netfutures.link import BadMessage, Link, Received, Unreachable
from netfutures.wire import Envelope, RemoteProtocolError

from .core.commands import Command, Note, Send, SessionEnded
from .core.scheduler import Scheduler

FRAMES_PER_TURN_MAX = 256
"""Messages taken from one link in one turn, so that no peer keeps the others waiting."""

log = logging.getLogger(__name__)


class BrokerShell:
    """One broker: links that each lead to one party, by route, and a router for all others where there is a network."""

    def __init__(
        self,
        core: Scheduler,
        links: dict[bytes, Link],
        clock: Callable[[], float],
        session_ended: Callable[[bytes], None],
        router: Link | None = None,
    ) -> None:
        self.core = core
        self._links = links
        self._router = router
        self._all_links = [*links.values()] if router is None else [*links.values(), router]
        self._clock = clock
        self._session_ended = session_ended
        self._deadline: float | None = None

    def step(self) -> None:
        """One turn: takes what has come, lets the core's deadlines pass, and sends what the core decides."""
        now = self._clock()
        for link in self._all_links:
            self._take(link, now)
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._perform(self.core.wake(now), now)
        self._perform(self.core.flush(now), now)

    def deadline(self) -> float | None:
        """When the next turn is due although nothing comes; to be asked before each sleep."""
        self._deadline = self.core.next_deadline()
        return self._deadline

    def is_ready(self) -> bool:
        """Whether something has come for the next turn; to be asked before each sleep."""
        for link in self._all_links:  # noqa: SIM110  # A generator would cost more than the rest of this.
            if link.is_ready():
                return True
        return False

    def _take(self, link: Link, now: float) -> None:
        for _ in range(FRAMES_PER_TURN_MAX):
            try:
                received = link.receive()
            except BadMessage as error:
                self._perform(self.core.refuse(error.route, error.why, now), now)
                continue
            if received is None:
                return
            self._receive(received, now)

    def _receive(self, received: Received, now: float) -> None:
        try:
            commands = self.core.receive(received.route, received.envelope, now)
        except RemoteProtocolError as error:
            commands = self.core.refuse(received.route, str(error), now)
        self._perform(commands, now)

    def _perform(self, commands: list[Command], now: float) -> None:
        for command in commands:
            match command:
                case Send(route, envelope):
                    self._send(route, envelope, now)
                case Note(text):
                    log.info("%s", text)
                case SessionEnded(session):
                    self._session_ended(session)

    def _send(self, route: bytes, envelope: Envelope, now: float) -> None:
        link = self._links.get(route, self._router)
        try:
            if link is not None:
                link.send(route, envelope)
        except Unreachable:
            self._perform(self.core.unreachable(route, now), now)
