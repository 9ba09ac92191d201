"""Two workers never take one port, and one worker does not soon take it again."""

from __future__ import annotations

import socket
from itertools import islice
from pathlib import Path

import pytest

import free_ports
from free_ports import EACH, LOWEST, WORKERS_MAX, free_port, ports_of


def test_every_port_is_one_workers_and_comes_once_in_a_round() -> None:
    rounds = [list(islice(ports_of(worker, 700 * worker), EACH)) for worker in range(WORKERS_MAX)]
    every = [port for ports in rounds for port in ports]
    assert len(set(every)) == len(every) == EACH * WORKERS_MAX
    assert min(every) == LOWEST


def test_they_are_none_that_the_system_gives_to_others() -> None:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given.is_file():
        pytest.skip("only Linux tells")
    lowest = int(given.read_text().split()[0])
    assert max(islice(ports_of(WORKERS_MAX - 1, 0), EACH)) < lowest


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(free_ports, "_ports", iter([taken.getsockname()[1], free]))
        assert free_port() == free
