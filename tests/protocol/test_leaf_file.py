"""Leaf files hold the account tree, and a tree grown leaf by leaf is the one built at once."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.credit_tree import (
    AMOUNT_MAX,
    LEAF_BYTES,
    CreditLeaf,
    Frontier,
    SumTree,
    account_tree,
)
from assay_protocol.errors import ProtocolError
from assay_protocol.leaf_file import HEAD_BYTES, LeafFile, encode_leaves

keys = st.binary(min_size=32, max_size=32)
amounts = st.integers(0, AMOUNT_MAX)
leaves = st.builds(CreditLeaf, keys, st.integers(0, 255), st.integers(0, 2**96), amounts, keys)


@given(st.lists(st.tuples(keys, st.integers(0, 2**100)), max_size=70))
def test_leaf_by_leaf_is_all_at_once(hashed: list[tuple[bytes, int]]) -> None:
    grown = Frontier()
    for count, (leaf, amount) in enumerate(hashed, 1):
        grown.add(leaf, amount)
        whole = SumTree.build(hashed[:count])
        assert (grown.root, grown.total, grown.size) == (whole.root, whole.total, count)


def test_a_frontier_of_nothing_is_the_tree_of_nothing() -> None:
    assert (Frontier().root, Frontier().total) == (SumTree.build([]).root, 0)


def test_a_frontier_refuses_a_sum_beyond_128_bits_and_stays_as_it_was() -> None:
    tree = Frontier()
    tree.add(bytes(32), AMOUNT_MAX)
    root = tree.root
    for amount in (1, -1):
        with pytest.raises(ProtocolError, match="128 bit"):
            tree.add(bytes(32), amount)
    assert (tree.root, tree.total, tree.size) == (root, AMOUNT_MAX, 1)


@given(st.integers(0, 2**32 - 1), st.lists(leaves, max_size=20))
def test_a_leaf_file_gives_back_its_leaves(epoch: int, listed: list[CreditLeaf]) -> None:
    raw = encode_leaves(epoch, (leaf.encode() for leaf in listed))
    file = LeafFile(raw)
    assert (file.epoch, file.count, list(file.leaves())) == (epoch, len(listed), listed)
    assert file.digest == sha256(raw).digest()
    tree = account_tree(listed)
    assert file.root() == (tree.root, tree.total) == (file.tree().root, file.tree().total)
    assert all(file.leaf(index) == leaf for index, leaf in enumerate(listed))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: encode_leaves(1, []) + b))
def test_any_other_bytes_are_refused(raw: bytes) -> None:
    whole = len(raw) == HEAD_BYTES and raw == encode_leaves(1, [])
    if not whole:
        with pytest.raises(ProtocolError, match="leaf file"):
            LeafFile(raw)


@pytest.mark.parametrize("size", [0, LEAF_BYTES - 1, LEAF_BYTES + 1])
def test_a_leaf_has_one_length(size: int) -> None:
    with pytest.raises(ProtocolError, match="97 bytes"):
        CreditLeaf.decode(bytes(size))
