"""A worker as a program: the real core, shell, zygote and children, on a ZeroMQ link; it ends with its stdin.

It is run as a script, so that what lies beside it can be imported by its children.
"""

import logging
import os
import socket
import sys
import time
from functools import partial

from netfutures_worker.zygote import start_zygote


def main(endpoint: str, slots: str, *keys: str) -> None:
    zygote = start_zygote()  # Before ZeroMQ is loaded: children inherit what is.
    from netfutures.poller import Poller
    from netfutures.transport import DealerLink, KeyPair
    from netfutures_worker.core.state import Identity
    from netfutures_worker.core.supervisor import Supervisor
    from netfutures_worker.memory import Memory
    from netfutures_worker.shell import Refused, WorkerShell

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    broker_key, public, secret = (key.encode() for key in keys) if keys else (None, b"", b"")
    link = DealerLink(endpoint, broker_key=broker_key, keys=KeyPair(public, secret))
    identity = Identity(os.urandom(16), os.urandom(16), socket.gethostname(), os.getpid(), {})
    poller = Poller()
    shell = WorkerShell(Supervisor(identity, int(slots), Memory.create), link, zygote, poller, clock)
    is_over: list[bool] = []
    poller.watch(link.fd, lambda: None)
    poller.watch(sys.stdin.fileno(), lambda: is_over.append(True))
    shell.connect()
    try:
        while not is_over:
            if shell.is_ready():
                shell.step()
                continue
            deadline = shell.deadline()
            if not poller.wait(None if deadline is None else max(0.0, deadline - clock())):
                shell.step()
    except Refused as error:
        sys.exit(f"refused: {error}")
    finally:
        shell.end_children()
        while shell.core.has_children:
            poller.wait(1)
        shell.end_strays()
        zygote.close()
        link.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
