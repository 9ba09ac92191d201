"""The ledger as its client uses it, on the local chain; the vectors of the specification."""

import json
from pathlib import Path
from typing import Any

import pytest

from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import ContractRefused, LocalChain
from assay_contracts.local.genesis import address_of, poster_key
from assay_protocol.credit_tree import (
    AMOUNT_MAX,
    CreditLeaf,
    ProofItem,
)

ARTEFACT = load("CreditLedger")
VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol/spec/vectors/credit_tree.json").read_text()
)
KEY = poster_key(bytes(range(32)))
POST_GAS_MAX = 90_000


def header(total: int, root: bytes = b"\x07" * 32, leaves: int = 9) -> Header:
    return Header(root, total, 1_000, leaves, b"\x01" * 32, b"\x02" * 32)


def refused(ledger: CreditLedgerClient, epoch: int, posted: Header) -> str:
    call = ledger_abi.post_call(epoch, posted)
    with pytest.raises(ContractRefused) as caught:
        ledger.chain.call(ledger.address, call, sender=ledger.poster)  # type: ignore[call-arg]  # LocalChain's
    return ARTEFACT.error_name(caught.value.output)


def verify(
    ledger: CreditLedgerClient, epoch: int, leaf: CreditLeaf, index: int, proof: Any
) -> bool:
    call = ledger_abi.verify_leaf_call(epoch, leaf, index, proof)
    return ledger_abi.decode_number(ledger.chain.call(ledger.address, call)) == 1


def test_epochs_are_posted_in_order_and_read_back(
    chain: LocalChain, ledger: CreditLedgerClient
) -> None:
    ledger.post(1, header(10))
    ledger.post(2, header(10, leaves=11))
    posted = ledger.epoch(2)
    assert posted is not None
    assert (posted.root, posted.total_cum, posted.leaves) == (b"\x07" * 32, 10, 11)
    assert posted.posted_at == chain.head_block().timestamp
    assert (ledger.head(), ledger.epoch(3)) == (2, None)


def test_the_event_carries_the_header(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    ledger.post(1, header(10))
    receipt = chain.receipt(chain.head_block().transactions[0])
    assert receipt is not None
    (log,) = receipt.logs
    assert ARTEFACT.events[log.topics[0]] == "EpochPosted"
    assert log.topics[1] == (1).to_bytes(32)
    assert log.data == ledger_abi.post_call(1, header(10))[36:]


@pytest.mark.parametrize(
    ("epoch", "posted", "error"),
    [
        (1, header(20), "EpochOutOfOrder"),  # a replay
        (3, header(20), "EpochOutOfOrder"),  # a gap
        (0, header(20), "EpochOutOfOrder"),
        (2, header(20, root=bytes(32)), "ZeroRoot"),
        (2, header(9), "TotalLowered"),
    ],
)
def test_a_wrong_post_is_refused_by_name(
    ledger: CreditLedgerClient, epoch: int, posted: Header, error: str
) -> None:
    ledger.post(1, header(10))
    assert refused(ledger, epoch, posted) == error
    assert ledger.head() == 1


def test_only_the_poster_may_post(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    stranger = address_of(poster_key(b"\x09" * 32))
    with pytest.raises(ContractRefused) as caught:
        chain.call(ledger.address, ledger_abi.post_call(1, header(10)), sender=stranger)
    assert ARTEFACT.error_name(caught.value.output) == "NotPoster"
    assert caught.value.output[16:36] == stranger


def test_a_ledger_without_a_poster_cannot_be_made(
    chain: LocalChain, ledger: CreditLedgerClient
) -> None:
    with pytest.raises(ContractRefused) as caught:
        chain.send(KEY, None, ARTEFACT.bytecode + bytes(11 * 32))
    assert ARTEFACT.error_name(caught.value.output) == "ZeroPoster"


def test_an_unposted_epoch_proves_nothing(ledger: CreditLedgerClient) -> None:
    leaf = CreditLeaf(bytes(32), 0, 0, 0, bytes(32))
    with pytest.raises(ContractRefused) as caught:
        verify(ledger, 1, leaf, 0, ())
    assert ARTEFACT.error_name(caught.value.output) == "UnknownEpoch"


def test_the_gas_of_a_post_stays_flat(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    ledger.post(1, header(10))
    ledger.post(2, Header(b"\xff" * 32, AMOUNT_MAX, 10**9, 2**32 - 1, b"\xff" * 32, b"\xff" * 32))
    receipt = chain.receipt(chain.head_block().transactions[0])
    assert receipt is not None
    assert receipt.gas_used <= POST_GAS_MAX


@pytest.mark.parametrize("vector", VECTORS["trees"], ids=lambda vector: vector["name"])
def test_the_contract_accepts_the_vectors(
    ledger: CreditLedgerClient, vector: dict[str, Any]
) -> None:
    leaves = [_leaf(raw) for raw in vector["leaves"]]
    root, total = bytes.fromhex(vector["root"]), int(vector["total"])
    ledger.post(1, header(total, root, len(leaves)))
    for index, leaf in enumerate(leaves):
        assert verify(ledger, 1, leaf, index, _proof(vector["proofs"][index]))


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_the_contract_refuses_the_forged_vectors(
    ledger: CreditLedgerClient, vector: dict[str, Any]
) -> None:
    (tree,) = (t for t in VECTORS["trees"] if t["name"] == vector["tree"])
    ledger.post(1, header(int(tree["total"]), bytes.fromhex(tree["root"]), len(tree["leaves"])))
    assert not verify(ledger, 1, _leaf(vector["leaf"]), vector["index"], _proof(vector["proof"]))


def _leaf(raw: dict[str, Any]) -> CreditLeaf:
    return CreditLeaf(
        bytes.fromhex(raw["account"]),
        raw["role"],
        int(raw["cumulative"]),
        int(raw["epoch_credit"]),
        bytes.fromhex(raw["receipts_root"]),
    )


def _proof(raw: list[list[str]]) -> list[ProofItem]:
    return [ProofItem(bytes.fromhex(digest), int(amount)) for digest, amount in raw]
