"""What tests of shells share: a loop, and the real broker in it."""

from collections.abc import Callable, Iterator

import pytest

from netfutures.transport import DealerLink
from shell_stage import Broker, Client, Loop, Peer

MakeClient = Callable[..., Client]
MakePeer = Callable[[str], Peer]


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def broker(loop: Loop) -> Iterator[Broker]:
    broker = Broker(loop)
    yield broker
    broker.close()


@pytest.fixture
def make_client(loop: Loop, broker: Broker) -> Iterator[MakeClient]:
    """Makes clients that are connected."""
    clients: list[Client] = []

    def make(**settings: object) -> Client:
        client = Client(loop, DealerLink(broker.endpoint), **settings)  # type: ignore[arg-type]  # as the test says
        clients.append(client)
        loop.run_until(lambda: client.is_connected)
        return client

    yield make
    for client in clients:
        client.vanish()


@pytest.fixture
def make_peer(loop: Loop, broker: Broker) -> Iterator[MakePeer]:
    """Makes peers that the test plays, each with a link to the broker."""
    peers: list[Peer] = []

    def make(name: str) -> Peer:
        peers.append(Peer(loop, name, DealerLink(broker.endpoint)))
        return peers[-1]

    yield make
    for peer in peers:
        peer.vanish()
