"""D1: what a coordinator acknowledged survives kill -9 at any moment, and only once (L2, L5).

ASSAY_KILLS sets how often it is killed (6; a release is checked with 200), ASSAY_KILL_SEED the
moments and the load.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_contracts.credit.ledger_abi import decode_epoch, decode_number, epochs_call, head_call
from assay_contracts.credit.readers import FileChain, HttpChain
from assay_contracts.credit.rounds import RoundChecks, open_round
from assay_contracts.follow.block_sources import FileBlocks
from assay_contracts.follow.following import Follower, open_followed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import CONTRACTS_MAX, Genesis, address_of, poster_key
from assay_coordinator.adapters.check import check_books
from assay_coordinator.adapters.draws import round_draws
from assay_coordinator.adapters.store import Store
from assay_coordinator.core.records import EpochRow, JobRow, RoundRow
from assay_network.keystore import load_key
from assay_protocol.signing import Identity
from assay_simnet.drivers.real import RealNetwork, real_network
from end_to_end.load_driver import POLICY, Link, Load, database
from end_to_end.places import scripted_card, write_card
from free_ports import free_port

LEDGER = 3  # of the contracts, in the order they are created

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

KILLS = int(os.environ.get("ASSAY_KILLS", "6"))
SEED = int(os.environ.get("ASSAY_KILL_SEED", "1"))
RUN_SECONDS_MAX = 1.2  # between "ready" and the kill
START_KILLED_SHARE = 0.2  # of the kills come while it starts
START_SECONDS = 2.5  # ... at a moment within this
CHECK_EVERY = max(3, KILLS // 12)
FAUCET = 1 << 40


async def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    chance, began = random.Random(SEED), time.monotonic()
    async with real_network(tmp_path) as network, trio.open_nursery() as nursery:
        network.address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/"
        card = write_card(tmp_path)
        await network.start_coordinator(POLICY, card, FAUCET)
        operator = Identity(network.operator_seed())
        load = Load(lambda who: Link(who, network.address), operator, scripted_card().digest, SEED)
        nursery.start_soon(load.run)
        restarts: list[float] = []
        for kill in range(1, KILLS + 1):
            await trio.sleep(chance.random() * RUN_SECONDS_MAX)
            await network.kill_and_reap("coordinator")
            if kill % CHECK_EVERY == 0:
                _check(tmp_path, load)
            if chance.random() < START_KILLED_SHARE:
                with trio.move_on_after(chance.random() * START_SECONDS):
                    await network.start_coordinator(POLICY, card, FAUCET)
                if "coordinator" in network.processes:
                    await network.kill_and_reap("coordinator")
            started = time.monotonic()
            await network.start_coordinator(POLICY, card, FAUCET)
            restarts.append(time.monotonic() - started)
        with trio.fail_after(60):  # the load goes on
            while len(load.journal.charged) <= KILLS:
                await trio.sleep(0.1)
        await trio.sleep(1)
        load.stopping = True
        with trio.fail_after(60):
            while nursery.child_tasks:
                await trio.sleep(0.1)
        with trio.fail_after(60):
            await _all_posted(network)
        await network.stop()
        assert network.processes["coordinator"].returncode == 0
    _check(tmp_path, load)
    _check_chain(tmp_path)
    journal = load.journal
    assert set(journal.charged) == set(journal.tickets), "each granted ticket was paid in the end"
    print(
        f"\n{KILLS} kills, {len(journal.charged)} bookings, {len(journal.granted)} grants,"
        f" {len(journal.epochs)} epochs acknowledged; restart {max(restarts):.1f} s at most;"
        f" {time.monotonic() - began:.0f} s"
    )


def _check(folder: Path, load: Load) -> None:
    url = database(folder / "coordinator")
    assert check_books(url) == []
    assert load.journal.missing(url) == []


async def _all_posted(network: RealNetwork) -> None:
    """Wait until every round is drawn and, over JSON-RPC, the head is the newest epoch; then
    compare each."""
    data = network.folder / "coordinator"
    rows = _rows(data, EpochRow)
    newest, ledger = rows[-1].epoch, _ledger(data)
    while not _all_drawn(data):
        await trio.sleep(0.2)
    with HttpChain(network.rpc) as chain:
        while decode_number(chain.call(ledger, head_call())) < newest:
            await trio.sleep(0.2)
        for row in rows:
            posted = decode_epoch(chain.call(ledger, epochs_call(row.epoch)))
            assert posted is not None
            assert (posted.root, posted.total_cum, posted.leaves) == (
                row.root,
                row.total,
                row.leaves,
            )


def _all_drawn(data: Path) -> bool:
    newest = max(row.round for row in _rows(data, JobRow))
    rounds = _rows(data, RoundRow)
    return len(rounds) == newest and {row.state for row in rounds} == {"drawn"}


def _check_chain(folder: Path) -> None:
    """The first blocks hold the contracts, each other one holds one epoch, one round of the lottery
    or the anchor of its links: none is there twice, every draw can be made again, and a follower
    that executes all of it finds every block sealed, and once."""
    data = folder / "coordinator"
    rows = _rows(data, EpochRow)
    assert [row.epoch for row in rows] == list(range(1, len(rows) + 1))
    assert {row.state for row in rows} == {"posted"}
    rounds = _rows(data, RoundRow)
    assert rounds, "the load had its lottery"
    assert {row.state for row in rounds} == {"drawn"}
    with LocalChain.open(data / "chain.db", read_only=True) as chain:
        assert chain.head_block().number == CONTRACTS_MAX + 1 + len(rows) + len(rounds)
    with closing(FileBlocks(data / "chain.db")) as source:
        about = source.about()
        with open_followed(folder / "followed.db", about, producer=_identity(data)) as followed:
            assert Follower(followed, source).to_head() == about.head
    with closing(FileChain(data / "chain.db")) as reader:
        checks = RoundChecks(reader, time.time_ns() // 1000)
        store = Store(database(data))
        for row in rounds:
            document = round_draws(store, row.number.to_bytes(32, "big"))
            report = checks.check(open_round(document, row.number))
            assert report.ok, report
        store.close()


def _rows(data: Path, cls: type[Any]) -> list[Any]:
    store = Store(database(data))
    try:
        return store.rows(cls)
    finally:
        store.close()


def _identity(data: Path) -> bytes:
    return Identity(load_key(data / "coordinator.key")).public_key


def _ledger(data: Path) -> bytes:
    poster = address_of(poster_key(load_key(data / "coordinator.key")))
    return Genesis(poster).contracts()[LEDGER]
