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


def _own() -> Iterator[int]:
    """This worker's ports in turn, none twice in a while; begun anywhere, as another run may be on
    the same machine. Whoever seeds `random` for all workers alike does not choose for them."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS_MAX
    each = PORTS // WORKERS_MAX
    begin = random.SystemRandom().randrange(each)
    for number in count(begin):
        yield LOWEST + (number % each) * WORKERS_MAX + worker


_ports: Final = _own()


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
