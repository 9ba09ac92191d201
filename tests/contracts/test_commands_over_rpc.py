"""`assay credit claim` and `coordinator audit --challenge` against a node they only know by URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from assay import cli
from assay.own_receipts import KEY_FILE
from assay_contracts import calls
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit.bundle import CreditBundle, Statement
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.rpc.server import rpc_app, serve_rpc
from assay_coordinator.cli import main
from assay_protocol.credit_tree import CreditLeaf, account_tree
from assay_protocol.keyfile import format_key
from assay_protocol.leaf_file import encode_leaves
from assay_protocol.signing import Identity
from contracts.conftest import KEY, Clock

SEED = b"\x51" * 32
NODE = Identity(SEED).public_key
OTHER = b"\x09" * 32
DAY = 86_400


async def at_url(chain: LocalChain, work: Callable[[str], None]) -> None:
    """`work` in a thread, with the URL of a node of that chain."""
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_rpc, rpc_app(chain), "127.0.0.1", 0)
        await trio.to_thread.run_sync(work, url)
        nursery.cancel_scope.cancel()


def post(ledger: CreditLedgerClient, folder: Path, epoch: int, *leaves: CreditLeaf) -> None:
    """An epoch of these leaves, whose file is published."""
    raw, tree = encode_leaves(epoch, (leaf.encode() for leaf in leaves)), account_tree(leaves)
    (folder / f"{epoch}.leaves").write_bytes(raw)
    digest = sha256(raw).digest()
    ledger.post(epoch, Header(tree.root, tree.total, 1, len(leaves), digest, bytes(32)))


def write_key(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_bytes(format_key(SEED))


def test_claims_and_challenges_by_command(
    chain: LocalChain,
    ledger: CreditLedgerClient,
    clock: Clock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_key(tmp_path / KEY_FILE)
    mine, other = CreditLeaf(NODE, 0, 70, 70, bytes(32)), CreditLeaf(OTHER, 0, 5, 5, bytes(32))
    post(ledger, tmp_path, 1, mine, other)
    tree = account_tree([mine, other])
    statement = Statement(mine, 0, tree.proof(0), ())
    bundle = CreditBundle(chain.chain_id, ledger.address, 1, b"", (statement,))
    (tmp_path / "bundle").write_bytes(bundle.encode())

    def work(url: str) -> None:
        claim = ["credit", "claim", "--node-data", str(tmp_path), "--chain", url]
        claim += ["--bundle", str(tmp_path / "bundle")]
        assert cli.main(claim) == 1
        assert "epoch_open" in capsys.readouterr().err
        clock.now += DAY + 60
        chain.send(KEY, ledger.poster, b"")
        assert cli.main([*claim, "--json"]) == 0
        [paid] = json.loads(capsys.readouterr().out)
        assert (paid["role"], paid["amount"]) == (0, 70)
        assert cli.main(claim) == 0
        assert "nothing to claim" in capsys.readouterr().out
        raised = CreditLeaf(OTHER, 0, 99, 1, bytes(32))
        post(ledger, tmp_path, 2, CreditLeaf(NODE, 0, 70, 0, bytes(32)), raised)
        audit = ["audit", "--epoch", "2", "--chain", url, "--ledger", ledger.address.hex()]
        audit += ["--leaves", str(tmp_path / "2.leaves")]
        assert main([*audit, "--challenge", "--key", str(tmp_path / KEY_FILE)]) == 1
        assert "sent     challengeStep" in capsys.readouterr().out
        assert ledger.head() == 1, "the epoch is void"
        assert main(audit) == 1
        assert "epoch_unknown" in capsys.readouterr().err

    trio.run(at_url, chain, work)
    token = ledger.plan.addresses["CreditToken"]
    data = calls.encode("CreditToken", "balanceOf", Wallet.of_seed(SEED).address)
    assert int.from_bytes(chain.call(token, data)) == 70
