"""An epoch of a million jobs over a hundred thousand accounts: booked, closed, posted, verified.

What runs is the coordinator's own: the core's ledger, statements and closing, its store on SQLite,
the leaf file, the outbox and the embedded chain. Left out is what comes before a receipt is paid:
signatures of receipts, the lottery, audits (bench/coordinator.py measures those).

    build_and_post_s   what an epoch adds to paying the jobs: each line hashed into its account's
                       tree (hashing_s) and its row committed (lines_s), the closing, the leaf file
                       on disk, the post mined
    booking_s          all of booking: the lines, and postings, balances and credit as well
    restart_s          with --restart: the running epoch's trees made again from the table
    peak_mb            the most memory this process had until the post was mined
    credit_verify_s    `assay credit verify` of a node with a thousand receipts, as a whole command,
                       interpreter and all; credit_verify_inside_s is without its start
    follow_blocks_per_s   a follower's, from block 1, over contracts, posts and notes

The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from assay.own_receipts import KEY_FILE, RECEIPTS_FILE
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.follow.block_sources import FileBlocks
from assay_contracts.follow.following import Follower, open_followed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import poster_key
from assay_contracts.rpc.server import rpc_app, serve_rpc
from assay_coordinator.adapters.anchor import local_anchor
from assay_coordinator.adapters.credit import Bundles
from assay_coordinator.adapters.leaf_files import publish
from assay_coordinator.adapters.store import Store
from assay_coordinator.core.epochs import Earning, Epochs, StoredEpochs
from assay_coordinator.core.events import Effect, PostEpoch, Save
from assay_coordinator.core.ledger import MINT, Ledger, Purse
from assay_coordinator.core.records import JobRow, LineRow, PricingRow, Row
from assay_coordinator.core.statements import Statements
from assay_node.store import ReceiptStore, Saved
from assay_protocol import messages as m
from assay_protocol.keyfile import format_key
from assay_protocol.signing import Identity, digest, seal
from assay_protocol.splits import COMPUTE
from assay_protocol.tickets import job_price

SEED: Final = b"\x05" * 32
NODE, CLIENT, COORDINATOR = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
MODEL: Final = b"\x09" * 32
BATCH: Final = 8_192  # jobs between two commits
OWN_JOBS: Final = 1_000
OWN_TOKENS: Final = 200
FEE_BPS: Final = 1_000
VERIFIED_TIMES: Final = 7
FOLLOWED_POSTS: Final = 60
NOTES_PER_POST: Final = 4


@dataclass(frozen=True, slots=True)
class Job:
    """One released job: who earned what by which receipt."""

    account: bytes
    ticket: bytes
    digest: bytes
    amount: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--restart", action="store_true", help="also load the epoch before closing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), given.jobs, given.accounts, restart=given.restart)
    print(json.dumps(figures))


def measure(folder: Path, jobs: int, accounts: int, *, restart: bool) -> dict[str, float]:
    """Figures by name with their unit last."""
    bench = Bench(folder, accounts)
    try:
        figures = bench.book(jobs)
        if restart:
            figures["restart_s"] = bench.restart()
        figures |= bench.close_and_post()
        built = ("hashing_s", "lines_s", "close_s", "rows_s", "leaf_file_s", "post_s")
        figures["build_and_post_s"] = sum(figures[name] for name in built)
        figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(figures)
        return figures | bench.verify() | bench.follow()
    finally:
        bench.close()


class Bench:
    """A coordinator's books without its network, and one node that keeps its receipts."""

    def __init__(self, folder: Path, accounts: int) -> None:
        self.folder = folder
        self.store = Store(f"sqlite:///{folder / 'coordinator.db'}")
        self.anchor = local_anchor(folder / "chain.db", Identity(SEED), self.store.engine)
        self.ledger = Ledger()
        self.epochs = Epochs(self.ledger, FEE_BPS)
        self.statements = TimedStatements()
        self.epochs.restore(StoredEpochs(statements=self.statements), 0)
        random.seed(1)
        self.accounts = [random.randbytes(32) for _ in range(accounts - 1)]
        self.own = list(own_jobs(OWN_JOBS))
        write_node(folder / "node", self.own)

    def book(self, jobs: int) -> dict[str, float]:
        """Every job's pay and line, committed as the runtime does."""
        lines_s, booking_s = 0.0, 0.0
        booked = 0
        for batch in batches(self._jobs(jobs)):
            effects: list[Effect] = []
            for job in batch:  # a client's money, as booking the receipt left it
                escrow = Purse("escrow", job.account)
                self.ledger.transfer(1, MINT, escrow, job.amount, "grant", job.ticket)
            start = time.perf_counter()
            for job in batch:
                effects += self._earn(job)
            rows = [effect.row for effect in effects if isinstance(effect, Save)]
            self.store.commit([row for row in rows if not _is_of_epoch(row)])
            booking_s += time.perf_counter() - start
            lines_s += self._line_rows(rows)
            booked += len(batch)
            if booked % (BATCH * 16) == 0:
                print(f"{booked} booked", file=sys.stderr, flush=True)
        self.store.commit([row for job in self.own for row in [job_row(job)]])
        hashing_s = self.statements.took_s
        return {"booking_s": booking_s + lines_s, "hashing_s": hashing_s, "lines_s": lines_s}

    def close_and_post(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        with timed(figures, "close_s"):
            closed, effects = self.epochs.close(2)
        with timed(figures, "rows_s"):
            self.store.commit([effect.row for effect in effects if isinstance(effect, Save)])
        with timed(figures, "leaf_file_s"):
            path = publish(self.store, self.folder / "epochs", closed.epoch)
        with timed(figures, "post_s"):
            [effect] = [effect for effect in effects if isinstance(effect, PostEpoch)]
            trio.run(self.anchor.post, effect)
        posted = [effect.row for effect in self.epochs.posted(1) if isinstance(effect, Save)]
        self.store.commit(posted)
        return figures | {"leaf_file_mb": path.stat().st_size / 1e6}

    def restart(self) -> float:
        """Seconds until the tables gave back the running epoch's trees."""
        start = time.perf_counter()
        stored = self.store.load(3)
        took = time.perf_counter() - start
        assert stored.epochs.statements.summary() == self.epochs.statements.summary()
        return took

    def verify(self) -> dict[str, float]:
        """What an account needs to check its credit, and how long it takes."""
        deployment, figures = self.anchor.deployment, dict[str, float]()
        bundles = Bundles(self.store, deployment.chain_id, deployment.address)
        with timed(figures, "bundle_first_s"):
            bundles.bundle(NODE.public_key)
        with timed(figures, "bundle_s"):
            raw = bundles.bundle(NODE.public_key)
        path = self.folder / "bundle"
        path.write_bytes(raw)
        gc.freeze()
        with served(self._local) as url:
            figures |= verified(self.folder / "node", path, url)
        return figures

    def follow(self) -> dict[str, float]:
        """Blocks a second that a follower executes again: posts of epochs and notes of rounds."""
        chain = self._local
        poster = CreditLedgerClient(chain, poster_key(SEED))
        for number in range(2, FOLLOWED_POSTS + 2):
            header = Header(random.randbytes(32), 1 << 90, 1, 1 << 20, bytes(32), bytes(32))
            poster.post(number, header)
            for _ in range(NOTES_PER_POST):
                chain.send(poster_key(SEED), poster.poster, random.randbytes(80))
        source = FileBlocks(self.folder / "chain.db")
        with open_followed(self.folder / "followed.db", source.about()) as followed:
            start = time.perf_counter()
            blocks = Follower(followed, source).to_head()
            took = time.perf_counter() - start
        source.close()
        return {"followed_blocks": blocks, "follow_blocks_per_s": blocks / took}

    @property
    def _local(self) -> LocalChain:
        assert self.anchor.local is not None
        return self.anchor.local

    def close(self) -> None:
        self.anchor.close()
        self.store.close()

    def _jobs(self, count: int) -> Iterator[Job]:
        for number in range(count):
            own = number * OWN_JOBS // count
            if own != (number + 1) * OWN_JOBS // count:
                yield self.own[own][0]
            else:
                account = self.accounts[number % len(self.accounts)]
                name = number.to_bytes(32)
                yield Job(account, name[16:], name, 1_000 + number % 977)

    def _earn(self, job: Job) -> list[Effect]:
        why = Earning("job", job.ticket, job.digest)
        escrow = Purse("escrow", job.account)
        return self.epochs.earn(1, escrow, job.account, COMPUTE, why, job.amount)

    def _line_rows(self, rows: list[Row]) -> float:
        """Commits the lines; the seconds it took."""
        start = time.perf_counter()
        self.store.commit([row for row in rows if _is_of_epoch(row)])
        return time.perf_counter() - start


class TimedStatements(Statements):
    """Knows how long it hashed lines."""

    took_s = 0.0

    def add(
        self, account: bytes, role: int, kind: str, ref: bytes, digest: bytes, amount: int
    ) -> int:
        start = time.perf_counter()
        position = super().add(account, role, kind, ref, digest, amount)
        self.took_s += time.perf_counter() - start
        return position


def _is_of_epoch(row: Row) -> bool:
    return isinstance(row, LineRow | PricingRow)


def batches(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    for job in jobs:
        batch.append(job)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def own_jobs(count: int) -> Iterator[tuple[Job, Saved]]:
    """Jobs of NODE with real tickets and receipts, as its store keeps them."""
    sampler = m.Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
    for number in range(count):
        ticket = m.Ticket(
            ticket=number.to_bytes(16, "little"),
            client=CLIENT.public_key,
            node=NODE.public_key,
            model=MODEL,
            prompt_hash=bytes(32),
            n_in=100 + number,
            sampler=sampler,
            max_tokens=512,
            start=0,
            nonce_commitment=bytes(32),
            seed_ticket=bytes(16),
            price_in=100_000,
            price_out=400_000,
            issued_at=1,
            expires_at=2,
            epoch=1,
        )
        receipt = m.Receipt(
            ticket=ticket.ticket,
            class_id="cpu/x86-64/f32",
            output_hash=bytes(32),
            root=bytes(32),
            n_in=ticket.n_in,
            n_out=OWN_TOKENS,
            finish="stop",
            started_at=1,
            first_at=2,
            ended_at=3,
        )
        ack = m.Ack(ticket=ticket.ticket, count=OWN_TOKENS, output_hash=bytes(32))
        blob = seal(NODE, receipt)
        price = job_price(ticket, OWN_TOKENS)
        pay = price - price * FEE_BPS // 10_000
        saved = Saved(ticket.ticket, blob, seal(CLIENT, ack), seal(COORDINATOR, ticket), number)
        yield Job(NODE.public_key, ticket.ticket, digest(blob), pay), saved


def job_row(own: tuple[Job, Saved]) -> JobRow:
    job, saved = own
    return JobRow(
        ticket=job.ticket,
        client=CLIENT.public_key,
        node=job.account,
        model=MODEL,
        state="released",
        ticket_blob=saved.ticket_blob,
        receipt_blob=saved.receipt,
        reserved=0,
        charged=job.amount,
        deadline_at=0,
        held_epoch=1,
        verdict="undrawn",
    )


def write_node(folder: Path, own: list[tuple[Job, Saved]]) -> None:
    """What a node keeps: its key and its receipts."""
    store = ReceiptStore(folder / RECEIPTS_FILE)
    store.write([saved for _, saved in own], [])
    store.close()
    (folder / KEY_FILE).touch(mode=0o600)
    (folder / KEY_FILE).write_bytes(format_key(NODE.seed))


def verified(node: Path, bundle: Path, url: str) -> dict[str, float]:
    """Medians of `assay credit verify`; it must say that all holds."""
    arguments = ["credit", "verify", "--node-data", str(node), "--bundle", str(bundle)]
    arguments += ["--chain", url, "--whole", "--json"]
    program = "import time; t = time.perf_counter(); import sys; from assay.cli import main\n"
    program += "code = main(sys.argv[1:]); print(time.perf_counter() - t); sys.exit(code)"
    whole, inside = [], []
    for _ in range(VERIFIED_TIMES):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        whole.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stdout + done.stderr
        report, took = done.stdout.splitlines()
        assert json.loads(report)["ok"]
        inside.append(float(took))
    return {
        "credit_verify_s": statistics.median(whole),
        "credit_verify_inside_s": statistics.median(inside),
    }


@contextmanager
def served(chain: Any) -> Iterator[str]:
    """The chain's JSON-RPC, from a thread of this process."""
    stop, binds = threading.Event(), list[str]()
    ready = threading.Event()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            found = await nursery.start(serve_rpc, rpc_app(chain), "127.0.0.1", 0)
            binds.append(str(found[0]))
            ready.set()
            await trio.to_thread.run_sync(stop.wait)
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=partial(trio.run, serve), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield binds[0]
    finally:
        stop.set()
        thread.join(30)


@contextmanager
def timed(figures: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - start


def say(figures: dict[str, float]) -> None:
    for name, value in figures.items():
        print(f"{name:>22} {value:10.3f}", file=sys.stderr)


if __name__ == "__main__":
    main()
