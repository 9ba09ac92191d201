"""L1, L5, L6: coordinator and chain are killed, restored from older copies and re-organised at
random, and every acknowledged epoch is on the chain exactly once, with the acknowledged root.

ASSAY_CHAIN_KILLS sets how many rounds (12; a release is checked with 500), ASSAY_CHAIN_SEED the
moments. A failure prints its network's seed: ASSAY_CHAIN_SEED=<seed> ASSAY_CHAIN_KILLS=1 plays that
network alone. Kept seeds stand in `KEPT`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_contracts.artefact import CONTRACTS
from assay_contracts.credit import ledger_abi
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, poster_key
from assay_contracts.local.sealed import SealGuard
from assay_coordinator.adapters.check import check_books
from assay_coordinator.adapters.store import Store
from assay_coordinator.core.records import EpochRow, LeavesRow, RoundRow
from assay_protocol.credit_tree import account_tree
from assay_protocol.leaf_file import LeafFile
from contracts.rpc_node import RpcNode
from end_to_end.chain_driver import (
    CONFIRMATIONS,
    COORDINATOR,
    POSTER,
    Life,
    read_journal,
)
from end_to_end.load_driver import database
from end_to_end.rpc_server import plan_of, serve_node

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

ROUNDS = int(os.environ.get("ASSAY_CHAIN_KILLS", "12"))
SEED = int(os.environ.get("ASSAY_CHAIN_SEED", "1"))
ROUNDS_OF_A_NETWORK = 20
LIFE_SECONDS_MAX = 0.7  # between "ready" and the kill
START_KILLED_SHARE = 0.3  # of the kills may come while it starts
POSTER_KEY = poster_key(COORDINATOR.seed)
MODES = ("plain", "sealed", "rpc")
DEPLOY_GAS = 9_000_000
BLOCK_SECONDS = 0.02
KEPT: tuple[int, ...] = ()


class Forks:
    """The fork server: `life` runs one child, and kills it if told when."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""

    async def life(self, life: Life, kill_after: float | None, ready: bool = True) -> int:
        """The child's exit code; -9 if it was killed, so long after it was `ready` or began."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(asdict(life)).encode() + b"\n")
        pid = (await self._line())["pid"]
        line = await self._line() if ready else {}
        if kill_after is not None and "code" not in line:
            await trio.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        while "code" not in line:
            line = await self._line()
        return int(line["code"])

    async def _line(self) -> Any:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            received = await self._process.stdout.receive_some()
            assert received, "the fork server ended"
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


class Network:
    """One coordinator and its chain over `ROUNDS_OF_A_NETWORK` lives."""

    def __init__(self, folder: Path, mode: str, seed: int, forks: Forks) -> None:
        self.folder, self.mode, self.seed, self.forks = folder, mode, seed, forks
        self.chance = random.Random(seed)
        self.turn = 0
        self.counts: Counter[str] = Counter()
        self.url, self.ledger = "", b""
        self.node: RpcNode | None = None
        self._idle_blocks = 0

    # ---- lives ----

    async def round(self) -> None:
        """A life that ends by kill -9, what happens to the chain meanwhile, and a check."""
        self.turn += 1
        room = self.chance.randrange(1, 60_000) if self.chance.random() < 0.15 else 0
        self.counts["full disks"] += room > 0
        life = self._life(room=room, room_seconds=self.chance.random() * 0.5)
        ready = self.chance.random() >= START_KILLED_SHARE
        code = await self.forks.life(life, self.chance.random() * LIFE_SECONDS_MAX, ready)
        assert code == -9, self._failed(f"it ended by itself with {code}")
        await self._misfortune()
        await self.settle()

    async def settle(self) -> None:
        """Another life posts all that is closed; then everything is compared."""
        code = await self.forks.life(self._life(finish=True), None)
        assert code == 0, self._failed(f"it could not finish: {code}")
        self.check()

    def _life(self, **more: Any) -> Life:
        return Life(
            folder=str(self.folder),
            mode=self.mode,
            seed=self.seed,
            turn=self.turn,
            url=self.url,
            ledger=self.ledger.hex(),
            **more,
        )

    async def _misfortune(self) -> None:
        """What becomes of the chain while the coordinator is dead."""
        what = self.chance.random()
        if self.node is not None:
            if what < 0.3:
                self.counts["nodes that forgot"] += 1
                self.node.forget()
            elif what < 0.6:
                self.counts["re-orgs"] += 1
                depth = self.chance.randint(1, CONFIRMATIONS)
                keep = self.chance.random() < 0.5
                self.node.go_back(depth, keep_pool=keep, other=self.chance.randint(0, 3))
            elif what < 0.7:
                self.counts["restored"] += 1
                self.node.go_back(self.chance.randint(3, 9), keep_pool=False)
            return
        if what < 0.3:
            self._keep_copy()
        elif what < 0.6 and (self.folder / "copy.db").exists():
            self.counts["restored"] += 1
            self._restore()
            if self.mode == "plain" and self.chance.random() < 0.5:
                self.counts["re-orgs"] += 1
                self._others()

    def _keep_copy(self) -> None:
        """Not of a chain whose contracts are still being made: others' blocks would end that."""
        with self.opened() as chain:
            if chain.head_block().number >= len(CONTRACTS):
                (self.folder / "copy.db").unlink(missing_ok=True)
                chain.backup(self.folder / "copy.db")

    def _restore(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            (self.folder / f"chain.db{suffix}").unlink(missing_ok=True)
        shutil.copy(self.folder / "copy.db", self.folder / "chain.db")

    def _others(self) -> None:
        """Other blocks on the older copy: the poster's own nonces are used for something else."""
        with self.opened() as chain:
            for _ in range(self.chance.randint(1, 3)):
                chain.send(POSTER_KEY, POSTER.address, b"other%d" % self.chance.getrandbits(60))

    # ---- what is compared ----

    def check(self) -> None:
        url = database(self.folder)
        findings = check_books(url) + read_journal(self.folder).missing(url)
        assert findings == [], self._failed(findings)
        store = Store(url)
        try:
            with self.opened() as chain:
                self._check_chain(chain, store)
        finally:
            store.close()

    def _check_chain(self, chain: LocalChain, store: Store) -> None:
        rows: list[EpochRow] = store.rows(EpochRow)
        ledger = self.ledger or CreditLedgerClient(chain, POSTER_KEY).address
        head = ledger_abi.decode_number(chain.call(ledger, ledger_abi.head_call()))
        assert head == len(rows), self._failed(f"{head} of {len(rows)} epochs are posted")
        posts, notes = self._transactions(chain, ledger)
        for row in rows:
            posted = ledger_abi.decode_epoch(chain.call(ledger, ledger_abi.epochs_call(row.epoch)))
            assert posted is not None
            found = (posted.root, posted.total_cum, posted.leaves)
            assert found == (row.root, row.total, row.leaves), self._failed(f"epoch {row.epoch}")
        assert posts == [row.epoch for row in rows], self._failed(f"posts: {posts}")
        rounds = store.rows(RoundRow)
        assert len(notes) == len(set(notes)), self._failed("a note is there twice")
        assert len(notes) == len(rounds) + bool(rounds), self._failed("notes and rounds differ")
        if rows:
            self._check_leaves(chain, ledger, store, rows[-1])
        self.counts["epochs"] = len(rows)
        self.counts["rounds of the lottery"] = len(rounds)

    def _transactions(self, chain: LocalChain, ledger: bytes) -> tuple[list[int], list[bytes]]:
        """The epochs posted and the texts noted, in order."""
        posts, notes = [], []
        for number in range(1, chain.head_block().number + 1):
            block = chain.block(number)
            assert block is not None
            for name in block.transactions:
                mined = chain.transaction(name)
                assert mined is not None
                if mined.to == ledger and mined.sender == POSTER.address:
                    posts.append(ledger_abi.posted_by(mined.data)[0])
                elif mined.to == mined.sender == POSTER.address and mined.data[:5] == b"assay":
                    notes.append(mined.data)
        return posts, notes

    def _check_leaves(self, chain: LocalChain, ledger: bytes, store: Store, row: EpochRow) -> None:
        """L6: the contract proves every leaf of the newest epoch, and they sum to its total."""
        (file,) = [one for one in store.rows(LeavesRow) if one.epoch == row.epoch]
        leaves = list(LeafFile(file.data).leaves())
        assert sum(leaf.cumulative for leaf in leaves) == row.total, self._failed("the sum")
        tree = account_tree(leaves)
        for index, leaf in enumerate(leaves):
            call = ledger_abi.verify_leaf_call(row.epoch, leaf, index, tree.proof(index))
            proven = ledger_abi.decode_number(chain.call(ledger, call))
            assert proven == 1, self._failed(f"leaf {index} of epoch {row.epoch}")
        self.counts["leaves proven"] += len(leaves)

    @contextmanager
    def opened(self) -> Iterator[LocalChain]:
        if self.node is not None:
            yield self.node.chain
            return
        store = Store(database(self.folder))
        sealed = self.mode == "sealed"
        try:
            with LocalChain.open(
                self.folder / "chain.db",
                genesis=Genesis(POSTER.address),
                signer=COORDINATOR if sealed else None,
                guard=SealGuard(store.engine) if sealed else None,
            ) as chain:
                yield chain
        finally:
            store.close()

    def _failed(self, why: object) -> str:
        return f"ASSAY_CHAIN_SEED={self.seed}, {self.mode}, life {self.turn}: {why}; {self.folder}"

    # ---- a chain that others mine ----

    async def serve(self, nursery: trio.Nursery) -> None:
        folder = self.folder / "node"
        folder.mkdir()
        self.node, self.url = await serve_node(nursery, folder, POSTER)
        self.ledger = plan_of(POSTER).addresses[ledger_abi.CONTRACT]
        nursery.start_soon(self._mine, self.node)

    async def _mine(self, node: RpcNode) -> None:
        """A block when something waits, and the few above it that confirm it."""
        while True:
            await trio.sleep(BLOCK_SECONDS)
            self._idle_blocks = 0 if node.pool else self._idle_blocks + 1
            if self._idle_blocks <= CONFIRMATIONS + 2:
                node.mine()


async def test_epochs_are_there_once_whatever_is_killed_and_restored(tmp_path: Path) -> None:
    began, total = time.monotonic(), Counter[str]()
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "end_to_end.chain_driver"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        )
        forks, left, number = Forks(process), ROUNDS, 0
        while left > 0:
            mode = MODES[(SEED + number) % len(MODES)]
            rounds = min(left, ROUNDS_OF_A_NETWORK, max(4, ROUNDS // len(MODES)))
            folder = tmp_path / f"network-{number}"
            folder.mkdir()
            network = Network(folder, mode, SEED + number, forks)
            await _play(network, rounds)
            total += network.counts + Counter({"rounds": rounds, mode: rounds})
            shutil.rmtree(folder)
            left, number = left - rounds, number + 1
        nursery.cancel_scope.cancel()
    seconds = time.monotonic() - began
    print(f"\nseed {SEED}: {dict(total)}; {seconds:.0f} s, {seconds / ROUNDS:.2f} s a round")
    assert total["epochs"] > 0
    assert total["rounds of the lottery"] > 0


async def _play(network: Network, rounds: int) -> None:
    async with trio.open_nursery() as nursery:
        if network.mode == "rpc":
            await network.serve(nursery)
        for _ in range(rounds):
            await network.round()
        nursery.cancel_scope.cancel()
    if network.node is not None:
        network.node.close()
