"""The contract folds as Python does, and takes proofs of exactly the right depth alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_contracts.credit.ledger_abi import Header
from assay_protocol.credit_tree import (
    AMOUNT_MAX,
    PADDING,
    CreditLeaf,
    ProofItem,
    account_tree,
    decode_proof,
    encode_proof,
    fold,
)
from assay_protocol.errors import ProtocolError
from contracts.books import Epoch, account, bent_tree, node_hash
from contracts.evm import DEPLOYER, Evm

LEDGER = "CreditLedger"


@pytest.fixture
def evm() -> Evm:
    return Evm()


def epoch_of(count: int) -> Epoch:
    return Epoch(tuple(CreditLeaf(account(i), 0, i, i, bytes(32)) for i in range(count)))


def post(evm: Evm, epoch: Epoch, leaves: int | None = None) -> None:
    evm.send(DEPLOYER, LEDGER, "post", 1, epoch.header(leaves))


def holds(evm: Evm, leaf: CreditLeaf, index: int, proof: bytes) -> bool:
    found: bool = evm.ask(LEDGER, "verifyLeaf", 1, leaf, index, proof)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 33])
def test_every_leaf_is_held_and_at_its_index_alone(evm: Evm, count: int) -> None:
    epoch = epoch_of(count)
    post(evm, epoch)
    for index, leaf in enumerate(epoch.leaves):
        proof = epoch.proof(index)
        assert holds(evm, leaf, index, proof)
        for other in {index ^ 1, index + count, index | 1 << 40} - {index}:
            assert not holds(evm, leaf, other, proof)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_proof_has_the_least_depth_that_holds_the_leaves(evm: Evm, count: int) -> None:
    """A tree one level too deep or too shallow for its `leaves` proves nothing."""
    epoch = epoch_of(count)
    deeper = node_hash((epoch.tree.root, epoch.tree.total), (PADDING, 0))
    header = Header(deeper, epoch.tree.total, 0, count, bytes(32), bytes(32))
    evm.send(DEPLOYER, LEDGER, "post", 1, header)
    path = epoch.proof(0) + encode_proof([ProofItem(PADDING, 0)])
    assert fold(epoch.leaves[0].hash, 0, 0, decode_proof(path)) == (deeper, epoch.tree.total)
    assert not holds(evm, epoch.leaves[0], 0, path)


@pytest.mark.parametrize(("count", "said"), [(4, 5), (4, 2), (1, 2), (5, 9), (5, 4)])
def test_leaves_that_do_not_fit_the_depth_prove_nothing(evm: Evm, count: int, said: int) -> None:
    epoch = epoch_of(count)
    post(evm, epoch, leaves=said)
    assert not holds(evm, epoch.leaves[0], 0, epoch.proof(0))


def test_the_greatest_number_of_leaves_has_a_depth(evm: Evm) -> None:
    leaf = CreditLeaf(account(1), 0, 1, 1, bytes(32))
    node, items = leaf.hash, []
    for _ in range(32):
        items.append(ProofItem(PADDING, 0))
        node = node_hash((node, 1), (PADDING, 0))
    evm.send(DEPLOYER, LEDGER, "post", 1, Header(node, 1, 0, 2**32 - 1, bytes(32), bytes(32)))
    assert holds(evm, leaf, 0, encode_proof(items))
    assert not holds(evm, leaf, 0, encode_proof([*items, items[0]]))
    assert not holds(evm, leaf, 2**32 - 1, encode_proof(items))


@pytest.mark.parametrize("cut", [1, 47])
def test_a_proof_is_of_whole_items(evm: Evm, cut: int) -> None:
    epoch = epoch_of(4)
    post(evm, epoch)
    proof = epoch.proof(1)
    assert not holds(evm, epoch.leaves[1], 1, proof[:-cut])
    assert not holds(evm, epoch.leaves[1], 1, proof + bytes(cut))


def test_sums_of_more_than_128_bits_do_not_wrap(evm: Evm) -> None:
    leaves = (
        CreditLeaf(account(1), 0, AMOUNT_MAX, 0, bytes(32)),
        CreditLeaf(account(2), 0, 6, 0, bytes(32)),
    )
    entries = [(leaf.hash, leaf.cumulative) for leaf in leaves]
    epoch = Epoch(leaves, bent=bent_tree(entries, {(1, 0): 5}))
    post(evm, epoch)
    assert not holds(evm, leaves[0], 0, epoch.proof(0))
    assert not holds(evm, leaves[1], 1, epoch.proof(1))


leaf_lists = st.lists(
    st.builds(
        CreditLeaf,
        st.binary(min_size=32, max_size=32),
        st.integers(0, 255),
        st.integers(0, AMOUNT_MAX >> 4),
        st.integers(0, AMOUNT_MAX),
        st.binary(min_size=32, max_size=32),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(leaves=leaf_lists, data=st.data())
def test_the_contract_folds_as_python_does(leaves: list[CreditLeaf], data: st.DataObject) -> None:
    evm = Evm()
    tree = account_tree(leaves)
    epoch = Epoch(tuple(leaves))
    post(evm, epoch)
    index = data.draw(st.integers(0, len(leaves) - 1), label="index")
    proof: list[Any] = list(tree.proof(index))
    assert holds(evm, leaves[index], index, encode_proof(proof))
    if proof:
        level = data.draw(st.integers(0, len(proof) - 1), label="level")
        digest, amount = proof[level]
        proof[level] = ProofItem(digest, data.draw(st.sampled_from([amount, amount ^ 1])))
    forged_index = data.draw(st.integers(0, 16), label="forged index")
    try:
        folded = fold(leaves[index].hash, leaves[index].cumulative, forged_index, proof)
        expected = folded == (tree.root, tree.total) and forged_index < len(leaves)
    except ProtocolError:
        expected = False
    assert holds(evm, leaves[index], forged_index, encode_proof(proof)) == expected
