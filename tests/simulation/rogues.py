"""Peers that keep to the numbers of a connection and to nothing else: the broker must bear whatever they say."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, get_type_hints

from netfutures import fields as kinds
from netfutures.limits import PROTOCOL_MAJOR, RUN_NUMBER_MAX
from netfutures.wire import MESSAGES, ClientHello, Envelope, Message, WorkerHello
from simulation.parties import Peer

if TYPE_CHECKING:
    from simulation.world import World

WORDS_MAX = 30
HELLOS = (ClientHello, WorkerHello)


class Nonsense:
    """Messages that are whole and valid, with fields that mean nothing, or what they should not."""

    def __init__(self, random: Random, identities: list[bytes]) -> None:
        self._random = random
        self._identities = identities
        self._makers: dict[Any, Callable[[], Any]] = {
            kinds.Integer: self.number,
            kinds.Word: lambda: random.getrandbits(64),
            kinds.Seconds: lambda: random.choice((0, 0.5, 1e8)),
            kinds.Flag: lambda: random.random() < 0.5,
            kinds.Text: lambda: "nonsense",
            kinds.Identity: self._identity,
            kinds.Map: self._map,
            kinds.Maps: lambda: [self._map() for _ in range(random.randrange(3))],
            kinds.Version: lambda: (random.choice((PROTOCOL_MAJOR, PROTOCOL_MAJOR, 99)), 0),
            kinds.Key: lambda: random.choice((self.number, self._identity))(),
            kinds.Content: lambda: random.choice((b"", b"nonsense", bytes(20_000))),
            kinds.OptionalPayload: lambda: random.choice((None, self._payload())),
            kinds.Identities: lambda: self._list(self._identity),
            kinds.Blobs: lambda: self._list(lambda: (random.randbytes(16), self._payload(), True)),
            kinds.SubmittedRuns: lambda: self._list(
                lambda: (self.number(), random.randbytes(16), random.choice((None, self._map())), self._payloads())
            ),
            kinds.FinishedRuns: lambda: self._list(lambda: (self.number(), self.number(), self._payloads())),
            kinds.ResultsRuns: lambda: self._list(lambda: (self.number(), self._payloads())),
            kinds.NumberRanges: lambda: self._list(lambda: (self.number(), self.number())),
            kinds.DispatchRanges: lambda: self._list(lambda: (self.number(), self.number(), self.number())),
            kinds.OutputRecords: lambda: self._list(
                lambda: (random.randbytes(16), self.number(), self.number(), self.number(), b"nonsense")
            ),
            kinds.PrintedRecords: lambda: self._list(lambda: (self.number(), self.number(), b"nonsense")),
        }

    def message(self, kind: type[Message], **given: Any) -> Message:
        """A message of this kind; the fields that are given, and others made up."""
        hints = get_type_hints(kind, include_extras=True)
        return kind(*[given[name] if name in given else self._makers[hints[name]]() for name in kind.__match_args__])

    def number(self) -> int:
        """A number: small, as those of tasks and dispatches are here, or at the end of what there is."""
        return self._random.choice((0, 1, self._random.randrange(10), self._random.randrange(500), RUN_NUMBER_MAX - 1))

    def _identity(self) -> bytes:
        return self._random.choice((*self._identities, self._random.randbytes(16)))

    def _map(self) -> dict[str, Any]:
        return self._random.choice(({}, {"retries": "many"}, {"retries": -1, "max_tasks_per_child": 1.5}, {"": [{}]}))

    def _payload(self) -> kinds.Payload:
        reference = kinds.Reference(self._random.choice((kinds.FRAME, kinds.CHUNKS, kinds.BLOB)), self.number(), 5)
        return self._random.choice((b"", b"nonsense", bytes(20_000), reference))

    def _payloads(self) -> list[kinds.Payload]:
        return [self._payload() for _ in range(self._random.randint(1, 4))]

    def _list(self, make: Callable[[], Any]) -> list[Any]:
        return [make() for _ in range(self._random.randrange(4))]


class Rogue(Peer):
    """A client or a worker that talks nonsense; the worker takes no tasks, since it would have to run them."""

    def __init__(self, world: World, is_worker: bool) -> None:
        super().__init__(world, f"rogue {len(world.rogues)}")
        self._is_worker = is_worker
        self._connection_number = 0
        self._sequence = 0
        random = self.timeline.random
        self._identity, self._token = random.randbytes(16), random.randbytes(16)
        # What is about others: a worker is believed what it says of its sessions, so it says nothing of these.
        others = [client.session for client in world.clients]
        self._nonsense = Nonsense(random, [self._identity] if is_worker else [self._identity, *others])
        self._words = 0
        self._speak()

    def take(self, route: bytes, frames: list[bytes]) -> None:
        """It does not listen."""

    def _speak(self) -> None:
        self._words += 1
        if not self.is_alive or self._words > WORDS_MAX:
            self.disappear(0.001)
            return
        random = self.timeline.random
        if self._sequence == 0 or random.random() < 0.1:
            self._say(self._hello())
        else:
            self._say(self._word())
        if random.random() < 0.05 and self.connection is not None:
            self.world.network.end(self.connection, 0.0, 0.0)
        self.timeline.after(random.choice((1e-5, 1e-3, 0.1)), self._speak)

    def _hello(self) -> Message:
        self._connection_number += 1
        self._sequence = 0
        if self._is_worker:
            whom = {"worker": self._identity, "token": self._token, "slots": 0, "credit_tasks": 0}
            return self._nonsense.message(WorkerHello, **whom)
        whom = {"session": self._identity, "token": self._token, "reconnect_timeout_s": 3.0}
        return self._nonsense.message(ClientHello, **whom)

    def _word(self) -> Message:
        kind = self.timeline.random.choice([kind for kind in MESSAGES.values() if kind not in HELLOS])
        given = {"credit_tasks": 0} if "credit_tasks" in kind.__match_args__ else {}
        return self._nonsense.message(kind, **given)

    def _say(self, message: Message) -> None:
        self._sequence += 1
        self.send(Envelope(self._connection_number, self._sequence, 0, message))
