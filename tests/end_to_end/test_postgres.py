"""The coordinator's books in PostgreSQL, through kill -9, where PostgreSQL is installed.

The server is a cluster of this test's own, on a Unix socket in a temporary folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from assay_coordinator.adapters.check import check_books
from assay_protocol.signing import Identity
from assay_simnet.drivers.real import real_network
from end_to_end.load_driver import POLICY, Link, Load
from end_to_end.places import scripted_card, write_card
from free_ports import free_port

KILLS = 3
FAUCET = 1 << 40
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(not importlib.util.find_spec("psycopg"), reason="psycopg is not installed"),
]


@pytest.fixture
def database() -> Iterator[str]:
    """The SQLAlchemy URL of an empty database; PostgreSQL refuses to run as root."""
    as_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="assay-pg-") as folder:
        if as_root:
            shutil.chown(folder, "postgres")

        def run(program: str, *words: str) -> None:
            user = ["runuser", "-u", "postgres", "--"] if as_root else []
            command = [*user, str(PROGRAMS[-1] / program), *words]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

        data, settings = f"{folder}/data", f"-k {folder} -c listen_addresses="
        run("initdb", "-D", data, "-A", "trust", "-U", "assay")
        run("pg_ctl", "-D", data, "-l", f"{folder}/log", "-o", settings, "-w", "start")
        try:
            run("createdb", "-h", folder, "-U", "assay", "assay")
            yield f"postgresql+psycopg://assay@/assay?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


async def test_what_was_acknowledged_is_in_postgresql(tmp_path: Path, database: str) -> None:
    more = ("--database", database)
    async with real_network(tmp_path) as network, trio.open_nursery() as nursery:
        network.address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/"
        card = write_card(tmp_path)
        await network.start_coordinator(POLICY, card, FAUCET, more)
        operator = Identity(network.operator_seed())
        load = Load(lambda who: Link(who, network.address), operator, scripted_card().digest, 1)
        nursery.start_soon(load.run)
        for _ in range(KILLS):
            await trio.sleep(1.0)
            await network.kill_and_reap("coordinator")
            assert load.journal.missing(database) == []
            await network.start_coordinator(POLICY, card, FAUCET, more)
        await trio.sleep(1.0)
        load.stopping = True
        with trio.fail_after(60):
            while nursery.child_tasks:
                await trio.sleep(0.1)
        await network.end("coordinator")
    assert not (tmp_path / "coordinator" / "coordinator.db").exists()
    assert check_books(database) == []
    assert load.journal.missing(database) == []
    assert len(load.journal.charged) > KILLS
    assert load.journal.epochs
