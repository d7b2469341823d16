"""The worker's shell: moves envelopes and packets between the broker, the children and the core; it decides nothing."""

import logging
import mmap
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from netfutures.limits import CHUNK_BYTES_MAX
from netfutures.link import BadMessage, Link
from netfutures.poller import FIRST, Poller
from netfutures.wire import RemoteProtocolError

from .channel import EXIT_REASONS, STDERR, STDOUT, Failed, HungUp, Output, Ready, Record, Results, Stopped
from .child_process import ChildProcess
from .core.commands import (
    Command,
    EndChild,
    GiveFunction,
    GiveTasks,
    Harvest,
    KillChild,
    Look,
    Mute,
    Note,
    Refusal,
    Send,
    StartChild,
    TakeBack,
    Unmute,
)
from .core.supervisor import Supervisor
from .memory import Memory
from .reaper import end_strays
from .zygote import ChildNotStarted, Zygote

FRAMES_PER_TURN_MAX = 256
"""Messages taken from the broker in one turn, so that children are heard too."""
STDERR_TAIL_BYTES_MAX = 2048
"""What a death certificate quotes of the child's last words."""

log = logging.getLogger(__name__)


class Refused(Exception):
    """The broker has refused this worker, finally."""


class WorkerShell:
    """One worker: a link to the broker, a zygote, and a child process in each slot that has one."""

    def __init__(
        self, core: Supervisor, link: Link, zygote: Zygote, poller: Poller, clock: Callable[[], float]
    ) -> None:
        self.core = core
        self._link = link
        self._zygote = zygote
        self._poller = poller
        self._clock = clock
        self._host = socket.gethostname()
        self._children: dict[int, ChildProcess] = {}
        self._requested: deque[tuple[ChildProcess, Any]] = deque()
        """Children that the zygote was asked for, in that order, with their initializers."""
        self._stderr_tails: dict[int, bytes] = {}
        self._has_strays = False
        self._commands: deque[Command] = deque()
        self._deadline: float | None = None
        self._has_news = True
        """The core was told something since the last turn."""
        poller.watch(zygote.fileno(), self._on_zygote)

    def connect(self) -> None:
        """Says hello to the broker."""
        now = self._clock()
        self._perform(self.core.connect(now), now)

    def step(self) -> None:
        """One turn: takes what the broker has sent, lets the core's deadlines pass, does what the core decides."""
        now = self._clock()
        for _ in range(FRAMES_PER_TURN_MAX):
            try:
                received = self._link.receive()
            except BadMessage as error:
                log.warning("dropped what the broker sent: %s", error.why)
                continue
            if received is None:
                break
            try:
                self._perform(self.core.receive(received.envelope, now), now)
            except RemoteProtocolError as error:
                log.warning("the broker broke the protocol: %s", error)
                self._perform(self.core.connect(now), now)
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._perform(self.core.wake(now), now)
        self._perform(self.core.flush(now), now)
        self._has_news = False

    def deadline(self) -> float | None:
        """When the next turn is due although nothing comes; to be asked before each sleep."""
        self._deadline = self.core.next_deadline()
        return self._deadline

    def is_ready(self) -> bool:
        """Whether something has come for the next turn; to be asked before each sleep."""
        return self._has_news or self._link.is_ready()

    def end_children(self) -> None:
        """The program ends: kills every child."""
        now = self._clock()
        self._perform(self.core.end_all(now), now)

    # Commands of the core.

    def _perform(self, commands: list[Command], now: float) -> None:
        """Does what the core decides; what it decides upon the answers is done after that."""
        self._has_news = True
        self._commands.extend(commands)
        while self._commands:
            self._perform_one(self._commands.popleft(), now)

    def _perform_one(self, command: Command, now: float) -> None:
        children = self._children
        match command:
            case Send(envelope):
                self._link.send(b"", envelope)
            case GiveTasks(slot, number, first, payloads):
                children[slot].give_tasks(number, first, payloads)  # type: ignore[arg-type]  # pulled ones are Memory
            case GiveFunction(slot, number, payload, keep):
                children[slot].give_function(number, payload, keep)  # type: ignore[arg-type]  # as above
            case Look(slot):
                self._commands.extend(self.core.looked(slot, children[slot].claim(), now))
            case TakeBack(slot):
                self._take_back(slot, now)
            case Harvest(slot):
                self._hear(children[slot], children[slot].harvest(), now)
            case StartChild(slot, initializer):
                self._start_child(slot, initializer)
            case EndChild(slot):
                children[slot].end()
            case KillChild(slot):
                children[slot].kill()
            case Mute(slot) | Unmute(slot):
                self._watch_output(children[slot], isinstance(command, Unmute))
            case Note(text):
                log.info("%s", text)
            case Refusal(reason):
                raise Refused(reason)

    def _take_back(self, slot: int, now: float) -> None:
        child = self._children[slot]
        revoked = child.revoke()
        self._commands.extend(self.core.revoked(slot, revoked.claim, revoked.unread, revoked.functions, now))
        self._hear(child, child.harvest(), now)

    def _start_child(self, slot: int, initializer: Any) -> None:
        self._stderr_tails[slot] = b""
        try:
            child = ChildProcess.request(self._zygote, slot)
        except ChildNotStarted as error:
            self._tell_death(slot, {"note": str(error)}, 0, self._clock())
            return
        self._children[slot] = child
        self._requested.append((child, initializer))

    # What children do.

    def _on_zygote(self) -> None:
        """The zygote has answered: a child lives, or could not be started."""
        now = self._clock()
        while self._requested:
            child, initializer = self._requested[0]
            try:
                pid = self._zygote.receive()
                if pid is None:
                    break
                child.started(pid)
            except ChildNotStarted as error:
                self._requested.popleft()
                self._bury(child, {"note": str(error)}, now)
                continue
            self._requested.popleft()
            child.prepare(initializer)
            self._watch_output(child, True)
            self._poller.watch(child.pidfd, partial(self._on_death, child))
        if not self._zygote.in_flight and self._has_strays:
            self.end_strays()

    def _watch_output(self, child: ChildProcess, is_read: bool) -> None:
        poller = self._poller
        if not is_read:
            for fd in (child.results_fd, child.stdout_fd, child.stderr_fd):
                poller.unwatch(fd)
            return
        poller.watch(child.stdout_fd, lambda: self._on_pipe(child, STDOUT, child.stdout_fd), order=FIRST)
        poller.watch(child.stderr_fd, lambda: self._on_pipe(child, STDERR, child.stderr_fd), order=FIRST)
        poller.watch(child.results_fd, lambda: self._on_results(child))

    def _on_results(self, child: ChildProcess) -> None:
        now = self._clock()
        self._hear(child, child.receive(), now)
        self._perform([], now)

    def _hear(self, child: ChildProcess, records: list[Record], now: float) -> None:
        core, slot, commands = self.core, child.slot, self._commands
        for record in records:
            match record:
                case Results(first, outcomes, microseconds):
                    commands.extend(core.results(slot, first, _in_bytes(outcomes), microseconds, now))
                case Output(index, stream, text):
                    self._note_stderr(slot, stream, text)
                    commands.extend(core.output(slot, index, stream, text, now))
                case Ready(pid, exact):
                    commands.extend(core.ready(slot, pid, exact, now))
                case Stopped(index):
                    commands.extend(core.stopped(slot, index, now))
                case Failed(text):
                    commands.extend(core.failed(slot, text, now))
                case HungUp():
                    self._poller.unwatch(child.results_fd)

    def _on_pipe(self, child: ChildProcess, stream: int, fd: int) -> None:
        now = self._clock()
        text = child.read_output(stream)
        if text is None:
            self._poller.unwatch(fd)
        elif text:
            self._note_stderr(child.slot, stream, text)
            self._perform(self.core.output(child.slot, child.claim(), stream, text, now), now)

    def _note_stderr(self, slot: int, stream: int, text: bytes) -> None:
        if stream == STDERR:
            self._stderr_tails[slot] = (self._stderr_tails[slot] + text)[-STDERR_TAIL_BYTES_MAX:]

    def _on_death(self, child: ChildProcess) -> None:
        now = self._clock()
        pid = child.pid
        self._hear(child, child.harvest(), now)
        for stream, fd in ((STDOUT, child.stdout_fd), (STDERR, child.stderr_fd)):
            while text := child.read_output(stream):
                self._note_stderr(child.slot, stream, text)
                self._commands.extend(self.core.output(child.slot, child.claim(), stream, text, now))
            self._poller.unwatch(fd)
        self._perform([], now)
        end = child.reap()
        assert end is not None, "its pidfd was readable"
        note = child.fault or EXIT_REASONS.get(end.code or 0, "")
        certificate = {"pid": pid, "exit_code": end.code, "signal": end.signal, "note": note}
        self._poller.unwatch(child.pidfd)
        self._poller.unwatch(child.results_fd)
        self._bury(child, certificate, now)
        self.end_strays()

    def _bury(self, child: ChildProcess, certificate: dict[str, Any], now: float) -> None:
        """Gives up what there was of a dead child, and tells the core."""
        claim = child.claim()
        del self._children[child.slot]
        child.close()
        self._tell_death(child.slot, certificate, claim, now)

    def _tell_death(self, slot: int, certificate: dict[str, Any], claim: int, now: float) -> None:
        certificate = {
            "host": self._host,
            "worker": self.core.state.identity.worker.hex(),
            "slot": slot,
            "stderr_tail": self._stderr_tails.pop(slot).decode(errors="replace"),
            **certificate,
        }
        self._perform(self.core.exited(slot, certificate, claim, now), now)

    def end_strays(self) -> None:
        """Ends what the tasks of dead children left running; postponed while the zygote forks."""
        self._has_strays = self._zygote.in_flight > 0
        if not self._has_strays:
            known = {child.pid for child in self._children.values()} | {self._zygote.pid}
            ended = end_strays(known, self._zygote.in_flight)
            if ended:
                log.info("ended %d processes that tasks had left running", ended)


def _in_bytes(outcomes: list[bytes | Memory]) -> list[Any]:
    """Outcomes as the core keeps them: bytes, or a mapping of what is too large for a message."""
    return [_mapped(each) if isinstance(each, Memory) else each for each in outcomes]


def _mapped(memory: Memory) -> bytes | mmap.mmap:
    try:
        if len(memory) <= CHUNK_BYTES_MAX:
            return bytes(memory.read_all())
        return mmap.mmap(memory.fd, len(memory), prot=mmap.PROT_READ)
    finally:
        memory.close()
