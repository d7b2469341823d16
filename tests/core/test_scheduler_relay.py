"""Stories of the broker's core: large payloads that are pulled through it, whoever reconnects meanwhile."""

from collections.abc import Iterator

import pytest

from broker_stage import BrokerStage
from inbox import FUNCTION
from netfutures.fields import BLOB, CHUNKS, Reference
from netfutures.limits import RELEASE_EVERY_S
from netfutures.wire import Acknowledge, Chunk, Need, Open, Release, Submit, Tasks

LARGE = 3 << 20
MiB = 1 << 20


@pytest.fixture
def stage() -> Iterator[BrokerStage]:
    stage = BrokerStage()
    yield stage
    stage.leave()
    for session in stage.core.state.sessions.values():
        assert not session.wanted
        assert not session.pulled


def test_an_argument_is_pulled_from_the_client_by_its_task_number(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"small", Reference(CHUNKS, 2, LARGE))
    worker.take(Open)
    ((base, _, _, payloads),) = worker.handed()
    assert payloads == [b"small", Reference(CHUNKS, 2, LARGE)]
    worker.say(Need(client.identity, base + 1, 0, LARGE))
    assert client.take(Need) == Need(client.identity, 2, 0, LARGE)
    for offset in range(0, LARGE, MiB):
        client.say(Chunk(client.identity, 2, offset, b"x" * MiB, False))
    chunks = worker.take_all(Chunk)
    assert [(chunk.key, chunk.offset) for chunk in chunks] == [(base + 1, offset) for offset in range(0, LARGE, MiB)]


def test_a_blob_goes_to_each_worker_that_asked_and_only_there(stage: BrokerStage) -> None:
    client, one, other = stage.client(), stage.worker("one", credit=2), stage.worker("other", credit=2)
    blob = (FUNCTION, Reference(BLOB, FUNCTION, 2 * MiB), True)
    client.next_number = 5
    client.say(Submit(7, [blob], [(1, FUNCTION, None, [b"a", b"b", b"c", b"d"])]), batch=True)
    for worker in (one, other):
        worker.take(Open)
        assert worker.take_all(Tasks)[0].blobs == [blob]
        worker.say(Need(client.identity, FUNCTION, 0, 2 * MiB))
    assert len(client.take_all(Need)) == 2
    for worker in (one, other):
        for offset in (0, MiB):
            client.say(Chunk(client.identity, FUNCTION, offset, b"x" * MiB, False))
        assert [chunk.offset for chunk in worker.take_all(Chunk)] == [0, MiB]
    assert not one.has(Chunk)


def test_an_initializer_is_pulled_like_a_blob(stage: BrokerStage) -> None:
    digest = b"initializer....."
    client = stage.client(initializer=Reference(BLOB, digest, MiB))
    worker = stage.worker()
    client.submit(b"a")
    assert worker.take(Open).initializer == Reference(BLOB, digest, MiB)
    worker.handed()
    worker.say(Need(client.identity, digest, 0, MiB))
    assert client.take(Need).key == digest
    client.say(Chunk(client.identity, digest, 0, b"x" * MiB, False))
    assert worker.take(Chunk).key == digest


def test_a_client_that_comes_back_is_asked_again_for_what_it_has_not_sent(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(Reference(CHUNKS, 1, LARGE))
    worker.forget()
    worker.say(Need(client.identity, 1, 0, 2 * MiB))
    client.take(Need)
    client.say(Chunk(client.identity, 1, 0, b"x" * MiB, False))
    worker.take(Chunk)
    stage.perform(stage.core.unreachable(client.route, stage.clock.now))
    worker.say(Need(client.identity, 1, 2 * MiB, LARGE))
    client.hello()
    assert [(need.offset, need.limit) for need in client.take_all(Need)] == [(0, 2 * MiB), (2 * MiB, LARGE)]
    for offset in range(0, LARGE, MiB):
        client.say(Chunk(client.identity, 1, offset, b"x" * MiB, False))
    assert [chunk.offset for chunk in worker.take_all(Chunk)] == [0, MiB, 2 * MiB]


def test_a_client_that_has_no_such_payload_says_so_and_so_does_the_broker(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(Reference(CHUNKS, 1, LARGE))
    worker.forget()
    worker.say(Need(client.identity, 1, 0, LARGE))
    client.take(Need)
    client.say(Chunk(client.identity, 1, 0, b"", True))
    assert worker.take(Chunk).abort
    worker.say(Need(client.identity, 99, 0, LARGE))
    worker.say(Need(b"nobody..........", 1, 0, LARGE))
    assert all(chunk.abort for chunk in worker.take_all(Chunk))
    assert not client.has(Need)


def test_chunks_that_nobody_asked_for_are_dropped(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.say(Chunk(client.identity, 1, 0, b"x", False))
    worker.say(Chunk(client.identity, 1, 0, b"x", False))
    assert not worker.has(Chunk)
    assert not client.has(Chunk)


def test_a_large_outcome_stays_at_its_worker_until_the_client_has_pulled_it(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a", b"b")
    worker.forget()
    worker.finish(1, Reference(CHUNKS, 1, LARGE), b"B")
    assert client.results() == {1: Reference(CHUNKS, 1, LARGE), 2: b"B"}
    client.acknowledge()
    stage.advance(2 * RELEASE_EVERY_S)
    assert worker.take(Release).dispatched == [(1, 1, 1)]
    client.say(Need(client.identity, 1, 0, LARGE))
    worker.take(Need)
    for offset in range(0, LARGE, MiB):
        worker.say(Chunk(client.identity, 1, offset, b"x" * MiB, False))
    assert len(client.take_all(Chunk)) == 3
    client.say(Need(client.identity, 1, LARGE, LARGE), batch=True)
    stage.advance(2 * RELEASE_EVERY_S)
    assert worker.take(Release).dispatched == [(1, 0, 1)]
    client.take(Acknowledge)


def test_the_word_that_an_outcome_was_pulled_may_be_repeated(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, Reference(CHUNKS, 1, LARGE))
    client.results()
    for _ in range(2):
        client.say(Need(client.identity, 1, LARGE, LARGE), batch=True)
    stage.advance(2 * RELEASE_EVERY_S)
    assert len(worker.take_all(Release)) == 1


def test_a_worker_that_comes_back_is_asked_again_for_what_it_has_not_sent(stage: BrokerStage) -> None:
    client, worker = stage.client(), stage.worker()
    client.submit(b"a")
    worker.forget()
    worker.finish(1, Reference(CHUNKS, 1, LARGE))
    client.results()
    client.say(Need(client.identity, 1, 0, LARGE))
    worker.take(Need)
    worker.say(Chunk(client.identity, 1, 0, b"x" * MiB, False))
    worker.hello(sessions=[client.identity], finished=[(1, 0, 1)])
    assert worker.take(Need) == Need(client.identity, 1, 0, LARGE)
    for offset in range(0, LARGE, MiB):
        worker.say(Chunk(client.identity, 1, offset, b"x" * MiB, False))
    assert [chunk.offset for chunk in client.take_all(Chunk)] == [0, 0, MiB, 2 * MiB]


def test_a_worker_cannot_send_into_the_outcome_of_another(stage: BrokerStage) -> None:
    client, worker, other = stage.client(), stage.worker("worker"), stage.worker("other")
    client.submit(b"a")
    (busy,) = [each for each in (worker, other) if each.has(Tasks)]
    idle = other if busy is worker else worker
    busy.forget()
    busy.finish(1, Reference(CHUNKS, 1, LARGE))
    client.results()
    client.say(Need(client.identity, 1, 0, MiB))
    busy.take(Need)
    idle.say(Chunk(client.identity, 1, 0, b"forged", False))
    assert not client.has(Chunk)
    busy.say(Chunk(client.identity, 1, 0, b"x" * MiB, False))
    client.take(Chunk)
