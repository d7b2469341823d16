"""What the users of a simulated world do: sessions with all kinds of wishes, bursts of calls, cancels, early leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netfutures.limits import CHUNK_BYTES_MAX
from simulation.calls import CALL, OUTCOME, Call
from simulation.client import ClientParty, Wishes

if TYPE_CHECKING:
    from simulation.world import World

BURSTS = (
    # weight, fewest, most, shortest and longest in microseconds
    (4, 20, 150, 5, 50),
    (3, 5, 25, 500, 5_000),
    (3, 1, 12, 20_000, 300_000),
    (1, 1, 3, 1_000_000, 6_000_000),
    (3, 1, 1, 5, 5_000),
)
WEIGHTS = [weight for weight, *_ in BURSTS]


class Users:
    """Decides, from the seed, who submits what and when."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.timeline.random

    def plan(self) -> None:
        """All users of this world, and what they will do."""
        failing = set()
        for _ in range(self.random.randint(1, 3)):
            client = self.world.add_client(self._wishes())
            initializer = client.core.identity.initializer
            if initializer is not None and self.random.random() < 0.1:
                failing.add(bytes(initializer))  # type: ignore[arg-type]  # these are short, and so no references
            self._plan_client(client)
        self.world.nature.failing_initializers = frozenset(failing)

    def _wishes(self) -> Wishes:
        random = self.random
        wishes = Wishes(
            retries=random.choice((None, 0, 2, 2)),
            max_tasks_per_child=random.choice((None, None, 1, 7)),
            has_initializer=random.random() < 0.5,
            reconnect_timeout_s=random.choice((5.0, 20.0, 60.0)),
            function_bytes=[100, 300, 20_000 if random.random() < 0.8 else CHUNK_BYTES_MAX + 5],
        )
        if random.random() < 0.2:
            wishes.own_retries[1] = random.choice((None, 0, 1))
        return wishes

    def _plan_client(self, client: ClientParty) -> None:
        random, timeline = self.random, self.world.timeline
        span_s = self.world.nemesis.span_s
        for _ in range(random.randint(2, 5)):
            timeline.at(random.random() * span_s, self._submit, client)
        if random.random() < 0.6:
            for _ in range(random.randint(1, 5)):
                timeline.at(random.random() * span_s, self._cancel, client)
        if random.random() < 0.1:
            timeline.at(random.random() * span_s * 1.2, lambda: client.leave(at_once=True))
        timeline.at(span_s * (0.5 + random.random()), lambda: client.leave(at_once=False))

    def _submit(self, client: ClientParty) -> None:
        random = self.random
        _, fewest, most, shortest, longest = random.choices(BURSTS, WEIGHTS)[0]
        function = random.randrange(len(client.wishes.function_bytes))
        written = random.choices((0, 1, 40), (80, 15, 2))[0]
        kind = random.random()
        calls: list[Call] = []
        for _ in range(random.randint(fewest, most if written < 2 else min(most, 3 * fewest))):
            size_bytes = CALL.size if kind < 0.97 or calls else CHUNK_BYTES_MAX + random.choice((1, 100, 5 << 20))
            outcome_bytes = OUTCOME.size
            if kind > 0.95 and random.random() < 0.2:
                outcome_bytes = random.choice((70_000, CHUNK_BYTES_MAX + 1, CHUNK_BYTES_MAX * 5))
            calls.append(self._call(client, function, random.randint(shortest, longest), written, outcome_bytes))
            calls[-1].pack(size_bytes)
        if random.random() < 0.06:
            self.world.poison.add(calls[-1].number)
        client.submit(calls)
        self.world.nemesis.aim_at(client, 0.3)
        if random.random() < 0.2:
            self.world.timeline.after(random.choice((1e-5, 1e-4, 1e-3, 0.02)), self._cancel_all, client, calls[::-1])

    def _call(self, client: ClientParty, function: int, microseconds: int, written: int, outcome_bytes: int) -> Call:
        retries = client.wishes.own_retries.get(function, client.wishes.retries)
        number = len(self.world.auditor.calls)
        call = Call(number, client.number, microseconds, written, outcome_bytes, retries, function)
        self.world.auditor.calls.append(call)
        return call

    def _cancel(self, client: ClientParty) -> None:
        pending = [call for call in client.calls if call.end is None]
        if pending:
            client.cancel(self.random.choice(pending))

    def _cancel_all(self, client: ClientParty, calls: list[Call]) -> None:
        for call in calls:
            if call.end is None and call in client.calls:
                client.cancel(call)
