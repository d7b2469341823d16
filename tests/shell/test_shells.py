"""Client, broker and workers together over ZeroMQ on loopback, with real children: the architecture at work."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zmq

from cuttable import Cable
from gates import Gate, pass_gate
from left_behind import processes_of_this_run
from netfutures.limits import PAUSE_S
from netfutures.loss import LOST_TAG
from netfutures.transport import DealerLink, new_key_pair
from shell_stage import Broker, Call, Client, Loop, worker
from tasks import add, double, end_process, pid, raise_trouble

MakeClient = Callable[..., Client]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def test_tasks_run_and_their_outcomes_come(broker: Broker, loop: Loop, make_client: MakeClient) -> None:
    client = make_client()
    with worker(broker.endpoint, 2) as first, worker(broker.endpoint) as second:
        loop.run_until(lambda: broker.core.statistics().slots == 3)
        calls = [call for at in range(20) for call in client.submit(add, *((number, at) for number in range(100)))]
        assert client.results(calls) == [number + at for at in range(20) for number in range(100)]
        factor = 7
        assert client.results(client.submit(lambda value: value * factor, (6,))) == [42]
        assert client.results(client.submit(pid, ()))[0] not in (os.getpid(), first.pid, second.pid)
        with pytest.raises(Exception, match="burnt"):
            client.results(client.submit(raise_trouble, ()))
        client.leave()
    assert broker.ended == [client.core.identity.session]
    assert first.returncode == second.returncode == 0


def test_large_payloads_go_both_ways_beside_small_ones(broker: Broker, loop: Loop, make_client: MakeClient) -> None:
    client = make_client()
    table = os.urandom(3 << 20)
    with worker(broker.endpoint, 2):
        large = client.submit(double, (bytes(9 << 20),), (os.urandom(1 << 10) * 3000,))
        small = client.submit(add, *((number,) for number in range(500)))
        by_value = client.submit(lambda at: table[at:], (1 << 20,))
        assert client.results(small) == [*range(500)]
        assert [len(each) for each in client.results(large)] == [18 << 20, 6_144_000]
        assert client.results(by_value) == [table[1 << 20 :]]
        client.leave()


def test_what_a_task_prints_comes_before_its_outcome(broker: Broker, loop: Loop, make_client: MakeClient) -> None:
    client = make_client()
    with worker(broker.endpoint):
        [call] = client.submit(print, ("from the child",))
        loop.run_until(lambda: call.outcome is not None)
        assert client.printed == b"from the child\n"
        client.leave()


def test_a_child_s_death_breaks_its_session_alone(broker: Broker, loop: Loop, make_client: MakeClient) -> None:
    client, other = make_client(), make_client()
    with worker(broker.endpoint, 2) as process:
        other_calls = other.submit(double, *((number,) for number in range(300)))
        client.submit(end_process, (23,))
        loop.run_until(lambda: client.broken is not None)
        assert client.broken is not None
        assert client.broken["exit_code"] == 23
        assert client.broken["pid"] not in (0, process.pid)
        assert other.results(other_calls) == [2 * number for number in range(300)]
        other.leave()


@pytest.mark.medium
def test_a_killed_worker_is_noticed_and_its_task_runs_elsewhere_where_that_is_wanted(
    broker: Broker, loop: Loop, make_client: MakeClient, gate: Gate
) -> None:
    patient, strict = make_client(retries=1), make_client(retries=0)
    with gate, worker(broker.endpoint, 2) as process:
        again, lost = patient.submit(pass_gate, (gate.place, 5)), strict.submit(pass_gate, (gate.place, 6))
        loop.run_until(gate.started_more)
        loop.run_until(lambda: len(_children_of(process.pid)) >= 3)
        gate.wait_started(2)
        children = _children_of(process.pid)
        process.kill()
        killed_at = time.monotonic()
        with worker(broker.endpoint, 2):
            loop.run_until(lambda: lost[0].outcome is not None)
            assert PAUSE_S <= time.monotonic() - killed_at < PAUSE_S + 3
            assert bytes(lost[0].outcome[:1]) == LOST_TAG
            loop.run_until(gate.started_more)
            assert children.isdisjoint(processes_of_this_run())
            gate.open()
            assert patient.results(again) == [5]
            assert broker.core.statistics().workers == 1
            patient.leave()
            strict.leave()


def _children_of(process: int) -> set[int]:
    return {each.pid for each in processes_of_this_run().values() if each.parent == process}


def test_a_killed_client_s_tasks_are_ended_and_its_session_is_dropped(
    broker: Broker, loop: Loop, make_client: MakeClient, gate: Gate
) -> None:
    client, other = make_client(reconnect_timeout_s=0.1), make_client()
    with gate, worker(broker.endpoint, 1) as process:
        client.submit(pass_gate, *[(gate.place,)] * 5)
        loop.run_until(gate.started_more)
        [child] = gate.wait_started()
        client.vanish()
        loop.run_until(lambda: broker.core.statistics().sessions == 1)
        assert other.results(other.submit(double, (4,))) == [8]
        assert child not in _children_of(process.pid)
        assert broker.core.statistics().queued_tasks == 0
        other.leave()


@pytest.mark.medium
def test_cut_connections_lose_and_repeat_nothing(broker: Broker, loop: Loop) -> None:
    def work(number: int) -> int:
        time.sleep(0.0005)
        return 2 * number

    with Cable(broker.endpoint) as to_client, Cable(broker.endpoint) as to_worker:
        client = Client(loop, DealerLink(to_client.endpoint))
        with worker(to_worker.endpoint, 2):
            for cable in (to_client, to_worker):
                calls = client.submit(work, *((number,) for number in range(400)))
                large = client.submit(double, (os.urandom(3 << 20),))
                loop.run_until(partial(any_outcome, calls))
                cable.cut()
                assert client.results(calls) == [2 * number for number in range(400)]
                assert len(client.results(large)[0]) == 6 << 20
            assert broker.core.statistics().workers == 1
            assert client.core.statistics().connection >= 2
            client.leave()
        client.vanish()


def any_outcome(calls: list[Call]) -> bool:
    return any(call.outcome is not None for call in calls)


def test_whoever_sends_garbage_is_refused_and_the_others_go_on(
    broker: Broker, loop: Loop, make_client: MakeClient
) -> None:
    client = make_client()
    with worker(broker.endpoint) as process, zmq.Context() as context:
        calls = client.submit(double, *((number,) for number in range(2000)))
        with context.socket(zmq.DEALER) as stranger:
            stranger.connect(broker.endpoint)
            for at in range(50):
                stranger.send_multipart([os.urandom(at), *[os.urandom(at)] * (at % 3)])
            loop.run_until(lambda: broker.core.statistics().refused >= 50)
            assert client.results(calls) == [2 * number for number in range(2000)]
            assert stranger.poll(10_000)
            stranger.close(linger=0)
        client.leave()
    assert process.returncode == 0


def test_all_of_it_with_keys(loop: Loop) -> None:
    keys = new_key_pair()
    broker = Broker(loop, keys)
    client = Client(loop, DealerLink(broker.endpoint, broker_key=keys.public, keys=new_key_pair()))
    with worker(broker.endpoint, 1, (keys.public, new_key_pair())):
        assert client.results(client.submit(len, (bytes(5 << 20),))) == [5 << 20]
        assert client.results(client.submit(double, (b"a" * (2 << 20),))) == [b"a" * (4 << 20)]
        client.leave()
    broker.close()
