"""The embedded cluster's program: a broker and a worker in one loop, for one client; the one file that imports both.

It is started by `netfutures.client.embedded` with an inherited socket, over which it is told everything else. It lives
as long as its client does, which it watches by pidfd, and takes all its children with it.
"""

import builtins
import gc
import os
import signal
import socket
import sys
import time
import warnings
from functools import partial
from typing import Any

SETUP_BYTES_MAX = 16 << 20
READY = b"ready"
"""Said to the client when the cluster serves; `netfutures.client.embedded` waits for it."""
END_TIMEOUT_S = 0.8
"""After its client's end everything here has to be gone within a second."""


def main() -> None:
    """Takes the setup, forks the zygote before anything else is loaded, then serves."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    client = os.getppid()
    client_fd = os.pidfd_open(client)
    setup = _receive_setup(channel)
    if setup is None or os.getppid() != client:
        return  # The client is gone already.
    sys.path[:] = setup["sys_path"]
    sys.argv[:] = setup["argv"]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)

    from netfutures_worker.kernel import die_with_parent
    from netfutures_worker.zygote import ZygoteLost, start_zygote

    with warnings.catch_warnings():  # For the children only: the zygote is forked in here.
        _take_warning_filters(setup["warnings"])
        zygote = start_zygote()
    cluster = _Cluster(setup, zygote, channel, client_fd)
    # The client's pidfd says first that it is gone; this is for the case that the loop does not get to look at it.
    signal.signal(signal.SIGTERM, _noted)
    die_with_parent(signal.SIGTERM)
    if os.getppid() != client:
        return
    try:
        cluster.serve()
    except ZygoteLost as error:
        sys.exit(f"netfutures: {error}")
    finally:
        cluster.end()


def _noted(*_: object) -> None:
    """A signal breaks nothing off: the byte that the interpreter writes for it wakes the loop, which leaves."""


def _take_warning_filters(filters: list[tuple[str, str, str, str, int]]) -> None:
    """The client's filters, the first of which has to be set last."""
    warnings.resetwarnings()
    for action, message, category, module, line in reversed(filters):
        warnings.filterwarnings(action, message, getattr(builtins, category), module, line)  # type: ignore[arg-type]


def _receive_setup(channel: socket.socket) -> dict[str, Any] | None:
    """A length, then as many bytes of a literal; read with nothing but the standard library's least."""
    from marshal import loads

    head = channel.recv(8, socket.MSG_WAITALL)
    if len(head) < 8:
        return None
    packed = channel.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL)
    setup = loads(packed)
    return setup if isinstance(setup, dict) else None


class _Cluster:
    """Broker and worker, their links, and the loop."""

    def __init__(self, setup: dict[str, Any], zygote: Any, channel: socket.socket, client_fd: int) -> None:
        from netfutures.link import Link, LocalLink
        from netfutures.poller import Poller
        from netfutures.stream import StreamLink
        from netfutures_broker.core.scheduler import Scheduler
        from netfutures_broker.shell import BrokerShell
        from netfutures_worker.core.state import Identity
        from netfutures_worker.core.supervisor import Supervisor
        from netfutures_worker.memory import Memory
        from netfutures_worker.shell import WorkerShell

        self._is_over = False
        self._zygote = zygote
        self._channel = channel
        to_client = StreamLink(channel, b"client")
        to_worker, to_broker = LocalLink.pair(b"worker")
        scheduler = Scheduler(int.from_bytes(os.urandom(8), "little"))
        identity = Identity(os.urandom(16), os.urandom(16), socket.gethostname(), os.getpid(), {})
        supervisor = Supervisor(identity, setup["slots"], Memory.create)
        self._poller = Poller()
        links: dict[bytes, Link] = {b"client": to_client, b"worker": to_worker}
        self._broker = BrokerShell(scheduler, links, _clock, self._session_ended)
        self._worker = WorkerShell(supervisor, to_broker, zygote, self._poller, _clock)
        self._client_link = to_client
        self._poller.watch(to_client.fd, to_client.mark_readable, edge=True)
        self._client_fd = client_fd
        self._is_ending = False
        self._poller.watch(client_fd, self.leave)
        self._signals_fd, written_fd = os.pipe()
        os.set_blocking(written_fd, False)
        signal.set_wakeup_fd(written_fd, warn_on_full_buffer=False)
        self._poller.watch(self._signals_fd, self.leave)

    def serve(self) -> None:
        """Turns, until the client is gone, or its session is over and the children have ended in good order."""
        broker, worker, link, poller = self._broker, self._worker, self._client_link, self._poller
        try:
            self._channel.send(READY)
        except OSError:
            return  # The client is gone already.
        worker.connect()
        gc.freeze()  # What is loaded stays: collections need not look at it again.
        while not self._is_over or worker.core.has_children:
            if worker.is_ready():
                worker.step()
            if broker.is_ready():
                broker.step()
            if worker.is_ready():
                continue
            poller.watch_room(link.fd, link.wants_room)
            if not poller.wait(self._timeout_s()):
                worker.step()
                broker.step()

    def _timeout_s(self) -> float | None:
        deadline, other = self._broker.deadline(), self._worker.deadline()
        if deadline is None or (other is not None and other < deadline):
            deadline = other
        return None if deadline is None else max(0.0, deadline - _clock())

    def _session_ended(self, session: bytes) -> None:
        self._is_over = True

    def leave(self) -> None:
        """The client is gone, or this is told to end: nobody wants anything of it any more."""
        if not self._is_ending:
            self._is_ending = True
            sys.exit(0)

    def end(self) -> None:
        """Kills what still runs, and leaves no process and no file behind."""
        self._is_ending = True
        for fd in (self._client_fd, self._signals_fd):  # They stay readable, and would never let the poller sleep.
            self._poller.unwatch(fd)
        deadline = _clock() + END_TIMEOUT_S
        worker = self._worker
        worker.end_children()
        while worker.core.has_children and _clock() < deadline:
            self._poller.wait(max(0.0, deadline - _clock()))
        worker.end_strays()
        self._zygote.close()


_clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds that go on while the machine sleeps, as every party counts them."""


if __name__ == "__main__":
    main()
