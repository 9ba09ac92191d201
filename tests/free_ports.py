"""Ports for programs that must be told one: they are killed, and come back at the same address."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from itertools import count
from typing import Final

# Below those the system gives to outgoing connections, so that nobody takes one while its owner is
# dead; each worker of a test run has its own among them.
LOWEST: Final = 20_000
PORTS: Final = 12_000
WORKERS_MAX: Final = 16
EACH: Final = PORTS // WORKERS_MAX


def ports_of(worker: int, begin: int) -> Iterator[int]:
    """A worker's ports in turn, from its `begin`-th on; each comes again only after all others."""
    for number in count(begin):
        yield LOWEST + number % EACH * WORKERS_MAX + worker % WORKERS_MAX


# Begun anywhere, as another run may be on this machine; whoever seeds `random` for all workers
# alike does not choose for them.
_ports: Final = ports_of(
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    random.SystemRandom().randrange(EACH),
)


def free_port() -> int:
    """One that nobody listens at."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
