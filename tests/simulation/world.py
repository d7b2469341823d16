"""The simulated world of one seed: a broker, workers and clients, their network, their users, and the end of it all."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netfutures.codec import decode, decode_trusted
from netfutures.wire import MESSAGES, Acknowledge, Beat
from simulation.auditor import Auditor, Fault
from simulation.calls import Call
from simulation.child import Nature
from simulation.client import ClientParty, Wishes
from simulation.faults import Nemesis
from simulation.network import Network, describe
from simulation.parties import BrokerParty, WorkerParty
from simulation.rogues import Rogue
from simulation.timeline import Timeline
from simulation.users import Users

PATIENCE_S = 300.0
"""When the faults are over, everything has ended after this time: a lease, the longest absence, and the work."""
SETTLE_S = 3.0
"""The last of what was lost is noticed by the next beat, and what follows from that is done soon after."""
QUIET_S = 2.5
"""How long it is watched that afterwards nothing but beats is sent."""
LINES_KEPT = 40
QUIET = {number for number, message in MESSAGES.items() if message in (Beat, Acknowledge)}


class World:
    """Everything that there is in one run."""

    def __init__(self, seed: int, show: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self._last: deque[tuple[str, bytes]] = deque(maxlen=LINES_KEPT)
        self._show = show
        self.timeline = Timeline(seed, self._keep_line)
        random = self.timeline.random
        self.network = Network(self.timeline)
        self.nature = Nature(
            exact=random.random() < 0.85,
            start_s=random.choice((0.003, 0.003, 0.1)),
            hangs_at_end=random.choice((0, 0, 0.02)),
        )
        self.dooms: dict[int, float] = {}
        """Executions in which the child dies, and how far they come."""
        self.poison: set[int] = set()
        """Calls that end every child that runs them."""
        self.killed_children: set[int] = set()
        self.decode = decode_trusted if random.random() < 0.5 else decode
        """How clients and workers read what the broker sends: an embedded cluster trusts its own processes."""
        self.messages_per_turn = random.choice((1, 4, 256))
        self.workers: list[WorkerParty] = []
        self.clients: list[ClientParty] = []
        self.rogues: list[Rogue] = []
        self.auditor = Auditor(self)
        self.broker = self.network.broker = BrokerParty(self)
        self._pids = 10000
        self.nemesis = self.network.nemesis = Nemesis(self)
        self.users = Users(self)
        self.nemesis.plan()
        self.users.plan()

    # What there is.

    def add_worker(self, slots: int) -> WorkerParty:
        """Another worker starts."""
        worker = WorkerParty(self, f"worker {len(self.workers)}", slots)
        self.workers.append(worker)
        return worker

    def add_client(self, wishes: Wishes) -> ClientParty:
        """Another client starts."""
        client = ClientParty(self, f"client {len(self.clients)}", len(self.clients), wishes)
        self.clients.append(client)
        return client

    def add_rogue(self, *, is_worker: bool) -> None:
        """Somebody with a key who talks nonsense."""
        self.rogues.append(Rogue(self, is_worker))

    def next_pid(self) -> int:
        """A pid that nobody had."""
        self._pids += 1
        return self._pids

    def live_workers(self) -> list[WorkerParty]:
        """Workers whose process lives."""
        return [worker for worker in self.workers if worker.is_alive]

    def live_clients(self) -> list[ClientParty]:
        """Clients whose process lives and whose session is not over."""
        return [client for client in self.clients if client.is_alive and not client.has_ended]

    def _keep_line(self, line: str, received: bytes) -> None:
        self._last.append((line, received))
        if self._show is not None:
            self._show(told(line, received))

    # What may be said of losses.

    def check_loss(self, certificate: dict[str, Any]) -> None:
        """A loss must have a cause."""
        pid = certificate.get("pid")
        if "seconds_since_beat" not in certificate:
            self.auditor.demand(pid in self.killed_children, f"a child was lost that nobody killed: {certificate}")
            return
        worker = next(each for each in self.workers if each.core.state.identity.pid == pid)
        excuse = self.network.excuses.get(worker.name)
        self.auditor.demand(excuse is not None, f"{worker.name} was given up without a cause: {certificate}")

    def check_break(self, client: ClientParty, certificate: dict[str, Any]) -> None:
        """A pool that breaks must have a cause."""
        if "pid" not in certificate:
            cause = client.session in self.broker.ended_sessions or client.name in self.network.excuses
            self.auditor.demand(cause, f"{client.name} is broken without a cause: {certificate}")
            return
        if not certificate.get("initializer_failed"):
            breaks = None in (client.wishes.retries, *client.wishes.own_retries.values())
            self.auditor.demand(breaks, f"{client.name} is broken though its calls have retries: {certificate}")
        self.check_loss(certificate)

    # The run.

    def run(self) -> None:
        """Lets everything happen, to the end; raises `Fault` when a promise is broken."""
        try:
            self._run_until(self._all_is_over, self.nemesis.over_at + PATIENCE_S)
            self._check_ends()
            self._check_nothing_is_left()
            self._check_quiet()
        except Fault as fault:
            raise Fault(self._told(str(fault))) from None
        except Exception as error:
            raise Fault(self._told(f"{type(error).__name__} in {place_of(error)}: {error}")) from error

    def _told(self, what: str) -> str:
        lines = "\n".join(told(*kept_line) for kept_line in self._last)
        return f"seed {self.seed}: {what}\nShown in full by: python -m tests.simulation --show {self.seed}\n{lines}"

    def _run_until(self, is_over: Callable[[], bool], limit_s: float) -> None:
        timeline = self.timeline
        look_at = timeline.now
        while timeline.now < limit_s and timeline.step():
            if timeline.now >= look_at:
                look_at = timeline.now + 0.1
                if is_over():
                    return

    def _all_is_over(self) -> bool:
        if self.timeline.now < self.nemesis.over_at + SETTLE_S or self.live_clients():
            return False
        state = self.broker.core.state
        known = {record.identity for record in state.roster if record.line is not None}
        living = {worker.core.state.identity.worker for worker in self.live_workers()}
        if state.sessions or state.releasing or state.owing or known != living or len(state.roster) != len(living):
            return False
        return not any(self._is_busy(worker) for worker in self.live_workers())

    def _is_busy(self, worker: WorkerParty) -> bool:
        state = worker.core.state
        is_away = worker.connection is None or not worker.connection.is_open or not state.is_welcome
        return bool(is_away or state.sessions or worker.children or state.outbox.waiting or state.outbox.sent)

    def _check_ends(self) -> None:
        auditor = self.auditor
        for client in self.clients:
            if client.is_alive or client.has_ended:
                pending = [call for call in client.calls if call.end is None]
                auditor.demand(
                    not pending, f"{len(pending)} calls of {client.name} never end: {described(pending[:3])}"
                )
                auditor.demand(client.has_ended, f"{client.name} has said goodbye and was not answered")

    def _check_nothing_is_left(self) -> None:
        demand = self.auditor.demand
        state = self.broker.core.state
        left = kept(state, "sessions", "turns", "touched", "releasing", "owing")
        demand(not left, f"the broker has kept {left}")
        for record in state.roster:
            left = kept(record, "dispatches", "held_tasks", "held_of", "blobs", "released", "stale")
            demand(not left, f"the broker has kept of a worker {left}")
        for worker in self.live_workers():
            left = kept(worker.core.state, "sessions", "turns", "holdings", "held_tasks", "fetches", "recalls")
            demand(not left and not worker.children, f"{worker.name} has kept {left} {worker.children}")
            demand(not self._is_busy(worker), f"{worker.name} still has something to say")
            output = [slot.output_bytes for slot in worker.core.state.slots]
            demand(not any(output), f"{worker.name} counts output that is gone: {output}")

    def _check_quiet(self) -> None:
        self.network.sent_kinds.clear()
        until = self.timeline.now + QUIET_S
        self._run_until(lambda: False, until)
        loud = [MESSAGES[kind].__name__ for kind in self.network.sent_kinds if kind not in QUIET]
        self.auditor.demand(not loud, f"when all was over, there were still sent {loud}")

    def counts(self) -> dict[str, int]:
        """What has happened, for a summary."""
        network, auditor = self.network, self.auditor
        return {
            "steps": self.timeline.steps,
            "virtual seconds": int(self.timeline.now),
            "faults": len(self.nemesis.happened) + len(self.killed_children),
            "breaks": network.breaks,
            "drops": network.drops,
            "repeats": network.repeats,
            "late": network.late,
            "executions": len(auditor.executions),
            **{end.value: count for end, count in auditor.ends.items()},
        }


def told(line: str, received: bytes) -> str:
    """A line of the trace as people read it."""
    return f"{line} {describe(received)}" if received else line


def place_of(error: Exception) -> str:
    """The function that raised, and who called it."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})" for frame in reversed(frames))


def kept(owner: object, *names: str) -> dict[str, object]:
    """What there still is, of these."""
    return {name: getattr(owner, name) for name in names if getattr(owner, name)}


def described(calls: list[Call]) -> str:
    """Calls, for the message of a fault."""
    return "; ".join(
        f"call {call.number} (handed over: {call.is_handed_over}, runs:"
        f" {[(each.dispatch, each.worker, each.is_finished) for each in call.executions]})"
        for call in calls
    )
