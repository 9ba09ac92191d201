"""An honest epoch passes whole; every fraud in one is found by name, and the contract agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from assay_contracts import calls
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.transact import transact
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit.epoch_audit import Before, EpochAudit, audit_epoch
from assay_contracts.credit.ledger_abi import Header, PostedEpoch
from assay_contracts.credit.posted import posting
from assay_contracts.credit.readers import FileChain
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_coordinator.cli import main
from assay_protocol.codec import encode
from assay_protocol.credit_tree import CreditLeaf, account_tree
from assay_protocol.errors import AssayError
from assay_protocol.leaf_file import encode_leaves
from assay_protocol.splits import no_splits

RULES = no_splits(700)
PRICING = encode(RULES.pricing)
Leaves = list[CreditLeaf]


@dataclass(frozen=True)
class Epoch:
    """A header and the file it was made from."""

    header: Header
    raw: bytes


def leaf(account: int, credit: int, before: int = 0, role: int = 0) -> CreditLeaf:
    return CreditLeaf(bytes([account]) * 32, role, before + credit, credit, bytes([account]) * 32)


FIRST = [leaf(n, 100 + n) for n in range(1, 6)]
SECOND = [*(replace(one, cumulative=2 * one.cumulative) for one in FIRST), leaf(9, 7)]


def epoch(number: int, listed: Leaves, **changes: object) -> Epoch:
    raw, tree = encode_leaves(number, (one.encode() for one in listed)), account_tree(listed)
    digest = sha256(raw).digest()
    header = Header(tree.root, tree.total, 3, len(listed), digest, RULES.digest)
    return Epoch(replace(header, **changes), raw)  # type: ignore[arg-type]


def audited(second: Epoch, **changes: object) -> EpochAudit:
    first = epoch(1, FIRST)
    posted = _posted(first.header)
    given = {"raw": second.raw, "before": Before(posted, first.raw), "pricing": PRICING}
    return audit_epoch(2, second.header, **(given | changes))  # type: ignore[arg-type]


def _posted(header: Header) -> PostedEpoch:
    return PostedEpoch(header.root, header.total_cum, 1, header.leaves)


def test_honest_epochs_pass_every_step() -> None:
    first = epoch(1, FIRST)
    told: list[str] = []
    result = audit_epoch(1, first.header, first.raw, None, PRICING, told.append)
    assert result.ok, result.failed
    assert told
    result = audited(epoch(2, SECOND))
    assert result.ok, result.failed
    assert [step.name for step in result.steps] == [
        "data hash",
        "pricing",
        "leaf file",
        "root",
        "leaves",
        "total",
        "epoch before",
        "places",
        "step",
        "no role twice",
    ]
    assert result.frauds == ()


def _raise(leaves: Leaves) -> Leaves:
    return [replace(leaves[0], cumulative=leaves[0].cumulative + 1), *leaves[1:]]


def _move(leaves: Leaves) -> Leaves:
    return [leaves[1], leaves[0], *leaves[2:]]


# what is done to the leaves, what the header then says otherwise, the steps that fail, the proof
FRAUDS: dict[str, tuple[Callable[[Leaves], Leaves], dict[str, object], set[str], str]] = {
    "raised": (_raise, {}, {"step"}, "challengeStep"),
    "forged new leaf": (
        lambda leaves: [*leaves[:-1], replace(leaves[-1], cumulative=9)],
        {},
        {"step"},
        "challengeStep",
    ),
    "moved": (_move, {}, {"places"}, "challengeStep"),
    "double": (
        lambda leaves: [*leaves, leaf(9, 5)],
        {},
        {"no role twice"},
        "challengeDuplicate",
    ),
    "omitted": (lambda leaves: leaves, {"leaves": 7}, {"leaves"}, "challengeOmission"),
    "beyond": (
        lambda leaves: [*leaves, leaf(8, 1)],
        {"leaves": 6},
        {"leaves"},
        "challengeBeyond",
    ),
}


@pytest.mark.parametrize("name", FRAUDS)
def test_frauds_are_found_and_the_contract_takes_the_proof(
    name: str, chain: LocalChain, ledger: CreditLedgerClient
) -> None:
    change, header, failed, function = FRAUDS[name]
    first, second = epoch(1, FIRST), epoch(2, change(SECOND), **header)
    result = audited(second)
    assert set(result.failed) == failed
    assert {fraud.function for fraud in result.frauds} == {function}
    ledger.post(1, first.header)
    ledger.post(2, second.header)
    fraud = result.frauds[0]
    data = calls.encode("CreditLedger", fraud.function, *fraud.arguments)
    wallet = Wallet.of_seed(b"\x07" * 32)  # anybody
    receipt = trio.run(transact, EmbeddedChain(chain), wallet, Call(ledger.address, data))
    assert receipt.ok
    assert ledger.head() == 1
    with pytest.raises(AssayError, match="contract_refused"):
        trio.run(transact, EmbeddedChain(chain), wallet, Call(ledger.address, data))


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"raw": b"junk"}, {"data hash", "leaf file"}),
        ({"raw": epoch(3, SECOND).raw}, {"data hash", "leaf file"}),
        ({"raw": epoch(2, SECOND[:-1]).raw}, {"data hash", "root", "leaves", "total"}),
        ({"pricing": b"junk"}, {"pricing"}),
        (
            {"before": Before(_posted(epoch(1, FIRST).header), epoch(1, _raise(FIRST)).raw)},
            {"epoch before", "step"},
        ),
    ],
)
def test_other_documents_are_found_by_name(changes: dict[str, object], failed: set[str]) -> None:
    result = audited(epoch(2, SECOND), **changes)
    assert set(result.failed) == failed


def test_leaves_that_were_lost_are_no_proof_but_are_seen() -> None:
    short = epoch(2, SECOND[:4])
    assert set(audited(short).failed) == {"places"}


def test_the_header_is_read_from_the_event(ledger: CreditLedgerClient, chain_path: Path) -> None:
    posted = [epoch(1, FIRST), epoch(2, SECOND)]
    for number, one in enumerate(posted, 1):
        ledger.post(number, one.header)
    reader = FileChain(chain_path)
    for number, one in enumerate(posted, 1):
        found = posting(reader, ledger.address, number)
        assert (found.header, found.epoch) == (one.header, number)
    with pytest.raises(AssayError) as caught:
        posting(reader, ledger.address, 3)
    assert caught.value.code == "epoch_unknown"
    reader.close()


def test_the_command_checks_what_is_published(
    chain: LocalChain,
    ledger: CreditLedgerClient,
    chain_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = epoch(2, _raise(SECOND))
    for number, one in enumerate((epoch(1, FIRST), bad), 1):
        ledger.post(number, one.header)
        (tmp_path / f"{number}.leaves").write_bytes(one.raw)
    (tmp_path / "rules").write_bytes(PRICING)
    where = ["--chain", str(chain_path), "--ledger", ledger.address.hex()]
    where += ["--pricing", str(tmp_path / "rules")]
    first = ["audit", "--epoch", "1", "--leaves", str(tmp_path / "1.leaves"), *where]
    assert main(first) == 0
    assert "epoch 1 holds: 5 leaves" in capsys.readouterr().out
    second = ["audit", "--epoch", "2", "--leaves", str(tmp_path / "2.leaves"), *where]
    assert main([*second, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in document["steps"] if not step["ok"]] == ["step"]
    [proof] = document["proofs"]
    assert proof["function"] == "challengeStep"
    assert bytes.fromhex(proof["to"]) == ledger.address
    assert main(second) == 1
    assert "proven to" in capsys.readouterr().out
    assert main(["audit", "--epoch", "3", *where]) == 1
    assert "epoch_unknown" in capsys.readouterr().err
    assert main([*second, "--before", str(tmp_path / "none")]) == 1
    assert "config_invalid" in capsys.readouterr().err
    assert main([*second, "--challenge"]) == 1
    assert "give --key" in capsys.readouterr().err
    assert main([*second, "--challenge", "--key", str(tmp_path / "none")]) == 1
    assert "--chain URL" in capsys.readouterr().err
