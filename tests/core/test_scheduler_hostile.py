"""Peers that say anything that can be decoded: the broker's core refuses them or goes on, and stays whole."""

from collections.abc import Callable
from random import Random

import pytest

from broker_stage import BrokerStage, ClientPeer, Peer, WorkerPeer
from inbox import EPOCH, FUNCTION
from netfutures.fields import BLOB, CHUNKS, Dispatched, Payload, Reference
from netfutures.limits import RUN_NUMBER_MAX
from netfutures.wire import (
    Beat,
    Broken,
    Cancel,
    Cancelled,
    Chunk,
    Close,
    Drain,
    Finished,
    Goodbye,
    Kill,
    Lost,
    Message,
    Need,
    Output,
    Release,
    RemoteProtocolError,
    Results,
    Running,
    Stale,
    Started,
    Submit,
    TakenBack,
    Tasks,
    Welcome,
    Who,
)

TURNS = 120
SUBMITS = 20


class Mischief:
    """A source of messages that are well formed and little more."""

    def __init__(self, random: Random, stage: BrokerStage, sessions: list[bytes]) -> None:
        self.random = random
        self.stage = stage
        self.sessions = sessions
        self.bases: list[int] = [1]
        """What the rascal worker was handed."""

    def number(self) -> int:
        return self.random.choice([0, 1, 1, 2, 3, self.random.randrange(12), RUN_NUMBER_MAX >> 4])

    def dispatch(self) -> int:
        return self.random.choice(self.bases[-4:]) if self.random.random() < 0.8 else self.number()

    def session(self) -> bytes:
        return self.random.choice([*self.sessions, b"of nobody......."])

    def key(self) -> int | bytes:
        return self.dispatch() if self.random.random() < 0.5 else self.random.choice([FUNCTION, b"k" * 16])

    def payload(self) -> Payload:
        if self.random.random() < 0.3:
            return Reference(self.random.choice([CHUNKS, BLOB]), self.key(), self.number())
        return self.random.choice([b"", b"x", b"y" * 20_000])

    def payloads(self) -> list[Payload]:
        return [self.payload() for _ in range(self.random.randint(1, 3))]

    def ranges(self) -> list[Dispatched]:
        return [(self.dispatch(), self.number(), self.number()) for _ in range(self.random.randrange(3))]

    def numbers(self) -> list[tuple[int, int]]:
        return [(self.number(), self.number())]

    def of_a_worker(self) -> list[Callable[[], Message]]:
        """What a worker may say."""
        return [
            lambda: Beat(self.random.randrange(6)),
            lambda: Finished(
                self.random.randrange(6), [(self.dispatch(), self.number(), self.payloads()) for _ in range(2)]
            ),
            lambda: Started(self.ranges()),
            lambda: TakenBack(self.number(), self.ranges()),
            lambda: Lost(self.session(), {"pid": 1}, self.ranges()),
            lambda: Output([(self.session(), self.dispatch(), self.number(), 1, b"text")]),
            lambda: Need(self.session(), self.key(), self.number(), self.number()),
            lambda: Chunk(self.session(), self.key(), self.number(), b"x", self.random.random() < 0.3),
        ]

    def of_a_client(self) -> list[Callable[[], Message]]:
        """What a client may say."""
        return [
            lambda: Need(self.session(), self.key(), self.number(), self.number()),
            lambda: Chunk(self.session(), self.key(), self.number(), b"x", self.random.random() < 0.3),
            lambda: Submit(EPOCH, [(FUNCTION, self.payload(), True)], [(self.number(), FUNCTION, None, [b"x"])]),
            lambda: Submit(EPOCH, [], [(1, FUNCTION, {"retries": 1}, self.payloads())]),
            lambda: Cancel(self.number(), self.session()),
            lambda: Goodbye("reason"),
        ]

    def of_nobody(self) -> list[Callable[[], Message]]:
        """What neither may say."""
        return [
            lambda: Tasks(self.session(), [], [(1, FUNCTION, None, [b"x"])]),
            lambda: Results([(self.number(), self.payloads())]),
            lambda: Release(self.ranges()),
            lambda: Stale(self.ranges()),
            lambda: Running(self.numbers()),
            lambda: Cancelled(1, self.numbers(), True),
            lambda: Close(self.session(), True),
            lambda: Broken({}),
            lambda: Kill(self.ranges(), "reason"),
            lambda: Drain(1.0),
            lambda: Who(),
            lambda: Welcome((1, 0), EPOCH, 1, 1, 1.0),
        ]

    def message(self, peer: Peer) -> Message:
        """Mostly something that its role may say."""
        own, others = self.of_a_worker(), self.of_a_client()
        if isinstance(peer, ClientPeer):
            own, others = others, own
        return self.random.choice(own if self.random.random() < 0.85 else [*others, *self.of_nobody()])()

    def hello(self, peer: Peer) -> None:
        if isinstance(peer, ClientPeer):
            peer.hello(retries=self.random.choice([None, 0, 2]))
        elif isinstance(peer, WorkerPeer):
            peer.hello(credit=self.random.randrange(8), held=self.ranges(), finished=self.ranges())

    def turn(self, peer: Peer) -> None:
        try:
            if self.random.random() < 0.07 or peer.route not in self.stage.core.state.routes:
                self.hello(peer)
            peer.say(self.message(peer), batch=self.random.random() < 0.5)
        except RemoteProtocolError as error:
            self.stage.perform(self.stage.core.refuse(peer.route, str(error), self.stage.clock.now))
        if isinstance(peer, WorkerPeer):
            self.bases += [run[0] for run in peer.handed()]
        peer.forget()


@pytest.mark.parametrize("seed", range(12))
def test_peers_that_say_anything_disturb_nobody(seed: int) -> None:
    random = Random(seed)
    stage = BrokerStage()
    client, worker = stage.client("honest", retries=2), stage.worker("honest worker", credit=2)
    rascals: list[Peer] = [stage.client("rascal", retries=2), stage.worker("rascal worker", credit=3)]
    mischief = Mischief(random, stage, [client.identity, rascals[0].identity])
    results: dict[int, Payload] = {}

    def honest_turn() -> None:
        for base, _, _, payloads in worker.handed():
            worker.finish(base, *[b"done"] * len(payloads))
        # One that stays at the rascal until it is pulled is lost with it, and made again.
        more = {number: each for number, each in client.results().items() if not isinstance(each, Reference)}
        assert not results.keys() & more.keys(), "a task has ended twice"
        results.update(more)
        for peer in (client, worker):
            assert peer.route in stage.core.state.routes, "an honest peer was disturbed"
            peer.acknowledge()
        stage.advance(0.1)

    for _ in range(SUBMITS):
        client.submit(b"honest", b"honest too", b"honest as well")
        for _ in range(TURNS // SUBMITS):
            mischief.turn(random.choice(rascals))
        honest_turn()
    for rascal in rascals:
        stage.perform(stage.core.unreachable(rascal.route, stage.clock.now))
    for _ in range(100):
        honest_turn()
    assert results.keys() == set(range(1, 3 * SUBMITS + 1))
    assert not client.has(Broken)
