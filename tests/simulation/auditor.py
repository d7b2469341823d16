"""The auditor sees everything in the simulated world, and checks after every step that no promise is broken."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

from checks import CreditWatch, check_broker, check_client, check_worker
from netfutures.limits import CREDIT_TASKS
from netfutures.loss import LOST_TAG, certificate_of
from netfutures.wire import Envelope, Release
from simulation.calls import CALL, OUTCOME, Call, End, Execution

if TYPE_CHECKING:
    from simulation.child import Child
    from simulation.client import ClientParty
    from simulation.parties import Party, WorkerParty
    from simulation.world import World


class Fault(AssertionError):
    """A promise was broken."""


class Auditor:
    """All calls, all executions, and what is true of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: list[Call] = []
        self.executions: list[Execution] = []
        self.by_dispatch: dict[int, Execution] = {}
        self.calls_of: dict[int, Call] = {}
        """Calls by the dispatch numbers under which they were given to children."""
        self.credit = CreditWatch()
        self.open_calls = 0
        self.ends: Counter[End] = Counter()

    def fault(self, what: str) -> NoReturn:
        """A promise is broken: the run ends here."""
        self.world.timeline.trace("auditor", what)
        raise Fault(f"at {self.world.timeline.now:.6f} s: {what}")

    def demand(self, condition: object, what: str) -> None:
        """What must be true."""
        if not condition:
            self.fault(what)

    # What happens to calls.

    def submitted(self, calls: list[Call]) -> None:
        """A user has submitted."""
        self.open_calls += len(calls)

    def started(self, child: Child, payload: bytes, dispatch: int, now: float) -> Execution:
        """A child runs a call."""
        tag, client, number, *_ = CALL.unpack_from(payload)
        self.demand(tag == b"C" and number < len(self.calls), "a child was given what no client has submitted")
        call = self.calls[number]
        self.demand(call.client == client and payload == call.payload, f"call {number} arrived damaged")
        party = self.world.clients[client]
        if child.client is None:
            child.client = client
            expected = party.core.identity.initializer
            self.demand(child.initializer == expected, f"child {child.pid} was set up for another session")
        self.demand(child.client == client, f"child {child.pid} serves two sessions")
        self._check_function(child, call)
        child.starts += 1
        limit = party.wishes.max_tasks_per_child
        self.demand(limit is None or child.starts <= limit, f"child {child.pid} has run more tasks than it may")
        self.demand(call.end is not End.CANCELLED, f"call {number} was cancelled and has started")
        self.demand(dispatch not in self.by_dispatch, f"call {number} was started twice under one dispatch")
        execution = Execution(len(self.executions), call, dispatch, child.worker, child.pid, now)
        self.executions.append(execution)
        self.by_dispatch[dispatch] = execution
        call.executions.append(execution)
        allowed = 1 + (call.retries or 0)
        self.demand(
            len(call.executions) <= allowed, f"call {number} started {len(call.executions)} times, may {allowed} times"
        )
        self.world.timeline.trace(child.worker, f"child {child.pid} starts call {number} as {execution.number}")
        return execution

    def _check_function(self, child: Child, call: Call) -> None:
        name = b"F%d.%d;" % (call.client, call.function)
        known = any(payload.startswith(name) for payload in child.functions.values())
        self.demand(known, f"child {child.pid} was not given the function of call {call.number}")

    def finished(self, execution: Execution, now: float) -> None:
        """A child has run a call to its end."""
        execution.ended_at = now
        execution.is_finished = True

    def died(self, execution: Execution) -> None:
        """A child died in a call."""
        execution.ended_at = self.world.timeline.now

    def marked_running(self, call: Call) -> None:
        """A future says that it runs."""
        self.demand(call.executions, f"call {call.number} is said to run and has not started")

    def given_back(self, call: Call) -> None:
        """A call waits in its client again."""
        self.demand(not call.executions, f"call {call.number} was given back and has started")

    def printed(self, client: ClientParty, number: int, text: bytes) -> None:
        """A user sees what a task has written."""
        execution = self.executions[int(text.partition(b"\n")[0])]
        self.demand(execution.call.client == client.number, "a client has seen another session's output")
        execution.call.printed[execution.number] += 1

    def settled(self, client: ClientParty, call: Call, outcome: bytes) -> None:
        """A call has an outcome."""
        self.demand(call.client == client.number, "a client was given another session's outcome")
        if outcome.startswith(LOST_TAG):
            self._check_loss(call, certificate_of(outcome))
            self.ended(call, End.LOST)
            return
        tag, number, execution_number = OUTCOME.unpack_from(outcome)
        self.demand(tag == b"R" and execution_number < len(self.executions), "an outcome that no child has made")
        execution = self.executions[execution_number]
        self.demand(number == call.number and execution.call is call, f"call {call.number} has the value of another")
        self.demand(execution.is_finished, f"call {call.number} has the value of a run that has not finished")
        self.demand(outcome == execution.outcome(), f"the outcome of call {call.number} arrived damaged")
        seen = call.printed[execution.number]
        self.demand(seen >= call.written, f"call {call.number} is done, and of what it wrote {seen} pieces were seen")
        call.value = execution
        self.ended(call, End.RESULT)

    def _check_loss(self, call: Call, certificate: dict[str, Any]) -> None:
        self.demand(call.retries is not None, f"call {call.number} is lost, but its loss breaks the pool")
        self.world.check_loss(certificate)

    def broken(self, client: ClientParty, certificate: dict[str, Any]) -> None:
        """A pool is broken."""
        if not client.wishes.has_initializer or "initializer_failed" not in certificate:
            self.world.check_break(client, certificate)

    def ended(self, call: Call, how: End) -> None:
        """A call has ended for its user."""
        self.demand(call.end is None, f"call {call.number} has ended twice: {call.end} and {how}")
        self.demand(how is not End.CANCELLED or not call.executions, f"call {call.number} started and was cancelled")
        call.end = how
        self.ends[how] += 1
        self.open_calls -= 1

    def refused(self, route: bytes, why: str) -> None:
        """The broker refuses a peer; only one whose session it has dropped gives it cause to."""
        connection = self.world.network.routes.get(route)
        if connection is None or connection.peer in self.world.rogues:
            return
        session = getattr(connection.peer, "session", b"")
        ended = session in self.world.broker.ended_sessions
        self.demand(ended, f"{connection.peer.name} was refused: {why}")

    def worker_receives(self, worker: WorkerParty, envelope: Envelope) -> None:
        """What is released must be with its client, or wanted by nobody."""
        if not isinstance(envelope.message, Release):
            return
        for base, offset, count in envelope.message.dispatched:
            for number in range(base + offset, base + offset + count):
                call = self.by_dispatch[number].call
                is_wanted = call.end is None and self.world.clients[call.client].is_alive
                self.demand(not is_wanted, f"call {call.number} was released before its client had the outcome")

    # The state of the parties.

    def check(self, party: Party) -> None:
        """What must be true of a party after each of its turns."""
        world = self.world
        if party is world.broker:
            check_broker(world.broker.core.state)
            self.credit.check(world.broker.core.state)
        for worker in world.workers:
            if party is worker:
                check_worker(worker.core.state)
        for client in world.clients:
            if party is client and not client.is_leaving:
                check_client(client.core)
                self.demand(client.core.ledger.awaited <= CREDIT_TASKS, "a client has more at the broker than it may")
