"""The broker's shell: moves envelopes between its links and its core; it decides nothing."""

import logging
from collections.abc import Callable

from netfutures.transport import BadMessage, Link, Received, Unreachable
from netfutures.wire import RemoteProtocolError

from .core.commands import Command, Note, Send, SessionEnded
from .core.scheduler import Scheduler

FRAMES_PER_TURN_MAX = 256
"""Messages taken from one link in one turn, so that no peer keeps the others waiting."""

log = logging.getLogger(__name__)


class BrokerShell:
    """One broker: a link to everybody, and one to each worker that runs in the same loop."""

    def __init__(
        self,
        core: Scheduler,
        router: Link,
        local: dict[bytes, Link],
        clock: Callable[[], float],
        session_ended: Callable[[bytes], None],
    ) -> None:
        self.core = core
        self._router = router
        self._local = local
        self._clock = clock
        self._session_ended = session_ended

    def step(self) -> None:
        """One turn: takes what has come, lets the core's deadlines pass, and sends what the core decides."""
        now = self._clock()
        for link in (self._router, *self._local.values()):
            self._take(link, now)
        deadline = self.core.next_deadline()
        if deadline is not None and now >= deadline:
            self._perform(self.core.wake(now), now)
        self._perform(self.core.flush(now), now)

    def is_ready(self) -> bool:
        """Whether a message is there already; to be asked before each sleep."""
        return self._router.is_ready() or any(link.is_ready() for link in self._local.values())

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
                    try:
                        self._local.get(route, self._router).send(route, envelope)
                    except Unreachable:
                        self._perform(self.core.unreachable(route, now), now)
                case Note(text):
                    log.info("%s", text)
                case SessionEnded(session):
                    self._session_ended(session)
