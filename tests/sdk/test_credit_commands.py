"""`assay credit`: from a coordinator's tables and a node's store to verdict and exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from assay import cli
from assay.own_receipts import KEY_FILE, RECEIPTS_FILE
from assay_contracts.credit.bundle import CreditBundle
from assay_coordinator.adapters.anchor import Anchor, local_anchor
from assay_coordinator.adapters.credit import Bundles, pricing_document
from assay_coordinator.adapters.leaf_files import leaves_document, publish
from assay_coordinator.adapters.store import Store
from assay_coordinator.core.epochs import Earning, Epochs, StoredEpochs
from assay_coordinator.core.events import Effect, PostEpoch, Save
from assay_coordinator.core.ledger import MINT, Ledger, Purse
from assay_coordinator.core.records import EpochRow, JobRow
from assay_node.store import ReceiptStore, Saved
from assay_protocol import messages as m
from assay_protocol.credit_tree import AUDITOR, COMPUTE
from assay_protocol.errors import AssayError
from assay_protocol.keyfile import format_key
from assay_protocol.leaf_file import LeafFile
from assay_protocol.signing import Identity, digest, seal

SEED = b"\x21" * 32
NODE, OTHER = Identity(b"\x22" * 32), Identity(b"\x23" * 32).public_key
MODEL = bytes(32)


@dataclass
class Network:
    """A coordinator's books and chain, and a node's folder."""

    folder: Path
    store: Store
    anchor: Anchor

    def __post_init__(self) -> None:
        self.ledger = Ledger()
        self.epochs = Epochs(self.ledger, 1_000)
        self.epochs.restore(StoredEpochs(), 0)
        self.kept = ReceiptStore(self.folder / "node" / RECEIPTS_FILE)
        path = self.folder / "node" / KEY_FILE
        path.touch(mode=0o600)
        path.write_bytes(format_key(NODE.seed))
        self.jobs = 0

    def earn(self, account: bytes, role: int, why: Earning, amount: int) -> None:
        escrow = Purse("escrow", account)
        effects = self.ledger.transfer(0, MINT, escrow, amount, "grant", bytes(16))
        self.commit([*effects, *self.epochs.earn(0, escrow, account, role, why, amount)])

    def job(self) -> None:
        """One of NODE's: 10 tokens in, 20 out, at one micro-credit each; the fee is a tenth."""
        self.jobs += 1
        ticket_id = self.jobs.to_bytes(16)
        ticket = m.Ticket(
            ticket=ticket_id,
            client=OTHER,
            node=NODE.public_key,
            model=MODEL,
            prompt_hash=bytes(32),
            n_in=10,
            sampler=m.Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
            max_tokens=99,
            start=0,
            nonce_commitment=bytes(32),
            seed_ticket=ticket_id,
            price_in=1_000,
            price_out=1_000,
            issued_at=1,
            expires_at=2,
            epoch=1,
        )
        receipt = m.Receipt(
            ticket=ticket_id,
            class_id="c",
            output_hash=bytes(32),
            root=bytes(32),
            n_in=10,
            n_out=20,
            finish="stop",
            started_at=1,
            first_at=2,
            ended_at=3,
        )
        blob = seal(NODE, receipt)
        self.kept.write([Saved(ticket_id, blob, None, seal(NODE, ticket), self.jobs)], [])
        row = JobRow(
            ticket=ticket_id,
            client=OTHER,
            node=NODE.public_key,
            model=MODEL,
            state="released",
            ticket_blob=b"t",
            receipt_blob=blob,
            reserved=0,
            charged=30,
            deadline_at=0,
            held_epoch=1,
            verdict="undrawn",
        )
        self.store.commit([row])
        self.earn(NODE.public_key, COMPUTE, Earning("job", ticket_id, digest(blob)), 27)

    def audited(self, number: int) -> None:
        why = Earning("audit", number.to_bytes(16), bytes(32))
        self.earn(NODE.public_key, AUDITOR, why, 5)

    def close(self) -> int:
        closed, effects = self.epochs.close(1)
        self.commit(effects)
        publish(self.store, self.folder / "epochs", closed.epoch)
        [post] = [effect for effect in effects if isinstance(effect, PostEpoch)]
        trio.run(self.anchor.post, post)
        self.commit(self.epochs.posted(closed.epoch))
        return closed.epoch

    def commit(self, effects: list[Effect]) -> None:
        self.store.commit([effect.row for effect in effects if isinstance(effect, Save)])

    @property
    def bundles(self) -> Bundles:
        at = self.anchor.deployment
        return Bundles(self.store, at.chain_id, at.address)

    def command(self, *more: str) -> list[str]:
        path = self.folder / "bundle"
        path.write_bytes(self.bundles.bundle(NODE.public_key))
        return [*more, "--bundle", str(path), "--chain", str(self.folder / "chain.db")]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    (tmp_path / "node").mkdir()
    store = Store(f"sqlite:///{tmp_path / 'coordinator.db'}")
    anchor = local_anchor(tmp_path / "chain.db", Identity(SEED), store.engine)
    made = Network(tmp_path, store, anchor)
    made.earn(OTHER, COMPUTE, Earning("job", b"o" * 16, bytes(32)), 3)
    for number in range(3):
        made.job()
        made.audited(number)
    made.close()
    made.job()
    made.close()
    yield made
    anchor.close()
    store.close()


VERIFY = ("credit", "verify", "--node-data")


def test_a_node_verifies_all_its_roles_from_its_own_store(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = network.command(*VERIFY, str(network.folder / "node"))
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert "1 in this epoch, 0 of another receipt, 3 not in it" in told
    assert "1 of 1 jobs priced again, 0 differ" in told
    assert "epoch 2 is open" in told
    assert cli.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(one["role"], one["cumulative"]) for one in report["standing"]] == [(0, 108), (4, 15)]
    assert cli.main([*arguments, "--whole"]) == 1, "three receipts are of the epoch before"
    assert "own receipts" in capsys.readouterr().out


def test_what_does_not_hold_exits_with_one(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = network.command(*VERIFY, str(network.folder / "node"))
    assert cli.main([*arguments, "--ledger", "0x" + "05" * 20]) == 1
    assert "FAILED   ledger address" in capsys.readouterr().out
    assert cli.main([*arguments, "--account", OTHER.hex()]) == 1
    assert "FAILED   account" in capsys.readouterr().out
    assert cli.main([*arguments, "--ledger", "0x05"]) == 1
    assert "config_invalid" in capsys.readouterr().err


def test_show_says_what_each_role_earned(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = network.command("credit", "show", "--account", NODE.public_key.hex())
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert "compute   0.000027 in 1 lines of this epoch, 0.000108 in all, place 1" in told
    assert "auditor   0.000000 in 0 lines of this epoch, 0.000015 in all, place 2" in told


def test_bundles_of_accounts_and_epochs_there_are_none_of_are_refused(network: Network) -> None:
    with pytest.raises(AssayError, match="no credit in epoch 2"):
        network.bundles.bundle(b"\x99" * 32)
    for key in (bytes(32), (3).to_bytes(32), (1 << 40).to_bytes(32)):
        with pytest.raises(AssayError, match="epoch"):
            leaves_document(network.store, key)
    with pytest.raises(AssayError, match="no epoch was priced"):
        pricing_document(network.store, bytes(32))


def test_what_can_be_claimed_is_of_the_newest_final_epoch(network: Network) -> None:
    at = network.anchor.deployment
    network.close()
    for final in (0, 1, 2, 3):
        made = Bundles(network.store, at.chain_id, at.address, lambda epoch, n=final: epoch <= n)
        if final == 0:
            with pytest.raises(AssayError, match="epoch_open"):
                made.claimable(NODE.public_key)
        else:
            assert CreditBundle.decode(made.claimable(NODE.public_key)).epoch == final


def test_what_is_published_is_what_was_posted(network: Network) -> None:
    for row in network.store.rows(EpochRow):
        raw = leaves_document(network.store, row.epoch.to_bytes(32))
        path = network.folder / "epochs" / f"{row.epoch}.leaves"
        assert path.read_bytes() == raw
        assert LeafFile(raw).digest == row.data_hash
        assert pricing_document(network.store, row.pricing)
        path.write_bytes(b"damaged")
        publish(network.store, network.folder / "epochs", row.epoch)
        assert path.read_bytes() == raw


def test_a_restart_makes_the_running_epoch_s_statements_again(network: Network) -> None:
    network.job()
    stored = network.store.load(0).epochs
    assert stored.statements.summary() == network.epochs.statements.summary()
    assert stored.statements.jobs == 1
    assert stored.last is not None
    assert stored.last.epoch == 2
    assert [row.epoch for row in stored.pricings] == [1]
    again = Epochs(Ledger(), 1_000)
    again.restore(stored, 0)
    assert again.splits == network.epochs.splits
