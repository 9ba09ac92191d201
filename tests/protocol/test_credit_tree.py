import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.credit_tree import (
    AMOUNT_MAX,
    PADDING,
    CreditLeaf,
    CreditLine,
    ProofItem,
    SumTree,
    account_tree,
    decode_proof,
    encode_proof,
    fold,
    receipts_root,
)
from assay_protocol.errors import ProtocolError

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol/spec/vectors/credit_tree.json").read_text()
)

hashes = st.binary(min_size=32, max_size=32)
leaf_lists = st.lists(st.tuples(hashes, st.integers(0, 1 << 64)), min_size=1, max_size=33)


def read_leaf(raw: dict[str, Any]) -> CreditLeaf:
    return CreditLeaf(
        bytes.fromhex(raw["account"]),
        raw["role"],
        int(raw["cumulative"]),
        int(raw["epoch_credit"]),
        bytes.fromhex(raw["receipts_root"]),
    )


def read_proof(raw: list[list[str]]) -> tuple[ProofItem, ...]:
    return tuple(ProofItem(bytes.fromhex(digest), int(amount)) for digest, amount in raw)


def folded(digest: bytes, amount: int, index: int, proof: bytes) -> tuple[bytes, int] | str:
    """Root and total, or the code of the refusal."""
    try:
        return fold(digest, amount, index, decode_proof(proof))
    except ProtocolError as error:
        return error.code


@pytest.mark.parametrize("vector", VECTORS["trees"], ids=lambda vector: vector["name"])
def test_tree_vectors(vector: dict[str, Any]) -> None:
    leaves = [read_leaf(raw) for raw in vector["leaves"]]
    tree = account_tree(leaves)

    assert [leaf.hash.hex() for leaf in leaves] == [raw["hash"] for raw in vector["leaves"]]
    assert (tree.root.hex(), tree.total) == (vector["root"], int(vector["total"]))
    for index, leaf in enumerate(leaves):
        proof = read_proof(vector["proofs"][index])
        assert tree.proof(index) == proof
        assert fold(leaf.hash, leaf.cumulative, index, proof) == (tree.root, tree.total)


@pytest.mark.parametrize("vector", VECTORS["lines"], ids=lambda vector: vector["name"])
def test_line_vectors(vector: dict[str, Any]) -> None:
    lines = [
        CreditLine(
            raw["kind"],
            bytes.fromhex(raw["id"]),
            bytes.fromhex(raw["digest"]),
            int(raw["amount"]),
        )
        for raw in vector["lines"]
    ]
    assert [line.hash.hex() for line in lines] == [raw["hash"] for raw in vector["lines"]]
    root, total = receipts_root(lines)
    assert (root.hex(), total) == (vector["root"], int(vector["sum"]))


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_refused_vectors(vector: dict[str, Any]) -> None:
    (tree,) = (t for t in VECTORS["trees"] if t["name"] == vector["tree"])
    leaf, proof = read_leaf(vector["leaf"]), read_proof(vector["proof"])
    if vector["why"] == "proof_invalid":
        with pytest.raises(ProtocolError) as caught:
            fold(leaf.hash, leaf.cumulative, vector["index"], proof)
        assert caught.value.code == "proof_invalid"
    else:
        root, total = fold(leaf.hash, leaf.cumulative, vector["index"], proof)
        assert (root.hex(), str(total)) != (tree["root"], tree["total"])


@given(leaf_lists)
def test_every_leaf_proves(leaves: list[tuple[bytes, int]]) -> None:
    tree = SumTree.build(leaves)
    assert tree.total == sum(amount for _, amount in leaves)
    for index, (digest, amount) in enumerate(leaves):
        proof = decode_proof(encode_proof(tree.proof(index)))
        assert fold(digest, amount, index, proof) == (tree.root, tree.total)


@given(leaf_lists, st.data())
def test_any_flipped_bit_of_leaf_index_or_proof_fails(
    leaves: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    tree = SumTree.build(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    digest, amount = leaves[index]
    # One string of everything a prover chooses, so that every bit of it gets its turn.
    claim = digest + amount.to_bytes(16) + index.to_bytes(4) + encode_proof(tree.proof(index))
    bit = data.draw(st.integers(0, len(claim) * 8 - 1))
    forged = bytearray(claim)
    forged[bit // 8] ^= 1 << bit % 8

    found = folded(
        bytes(forged[:32]),
        int.from_bytes(forged[32:48]),
        int.from_bytes(forged[48:52]),
        bytes(forged[52:]),
    )
    twin = _twin_leaf(leaves, index, bytes(forged), claim)
    assert (found == (tree.root, tree.total)) == twin


def _twin_leaf(leaves: list[tuple[bytes, int]], index: int, forged: bytes, claim: bytes) -> bool:
    """Whether only the index changed, to a place whose leaf and siblings are the very same
    bytes.
    """
    if forged[:48] + forged[52:] != claim[:48] + claim[52:]:
        return False
    other = int.from_bytes(forged[48:52])
    return (
        other < len(leaves) and leaves[other] == leaves[index] and _same_proof(leaves, index, other)
    )


def _same_proof(leaves: list[tuple[bytes, int]], index: int, other: int) -> bool:
    tree = SumTree.build(leaves)
    return tree.proof(index) == tree.proof(other)


@given(leaf_lists, st.integers(0, 40), st.integers(1, 3))
def test_a_node_never_passes_for_a_leaf(
    leaves: list[tuple[bytes, int]], seed: int, drop: int
) -> None:
    """Dropping levels from a proof gives another root: a leaf hash cannot stand in for a node."""
    tree = SumTree.build(leaves)
    index = seed % len(leaves)
    proof = tree.proof(index)
    if len(proof) < drop:
        return
    digest, amount = leaves[index]
    found = folded(digest, amount, index >> drop, encode_proof(proof[drop:]))
    assert found == "proof_invalid" or found[0] != tree.root


def test_an_empty_tree_has_a_root_that_is_not_zero() -> None:
    tree = SumTree.build([])
    assert (tree.root, tree.total) == (PADDING, 0)
    assert tree.root != bytes(32)
    with pytest.raises(ProtocolError, match="proof_invalid"):
        tree.proof(0)


def test_no_proof_of_padding_is_made() -> None:
    tree = SumTree.build([(bytes([n]) * 32, n) for n in range(3)])
    with pytest.raises(ProtocolError, match="proof_invalid"):
        tree.proof(3)


def test_sums_are_capped_at_128_bits() -> None:
    assert SumTree.build([(bytes(32), AMOUNT_MAX), (bytes(32), 0)]).total == AMOUNT_MAX
    with pytest.raises(ProtocolError, match="malformed"):
        SumTree.build([(bytes(32), AMOUNT_MAX), (bytes(32), 1)])
    with pytest.raises(ProtocolError, match="proof_invalid"):
        fold(bytes(32), AMOUNT_MAX, 0, [ProofItem(bytes(32), 1)])
    with pytest.raises(ProtocolError, match="proof_invalid"):
        fold(bytes(32), AMOUNT_MAX + 1, 0, [])


@pytest.mark.parametrize(
    "fields",
    [
        (bytes(31), 0, 0, 0, bytes(32)),
        (bytes(32), 256, 0, 0, bytes(32)),
        (bytes(32), -1, 0, 0, bytes(32)),
        (bytes(32), 0, AMOUNT_MAX + 1, 0, bytes(32)),
        (bytes(32), 0, 0, -1, bytes(32)),
        (bytes(32), 0, 0, 0, bytes(33)),
    ],
)
def test_a_leaf_out_of_bounds_is_malformed(fields: tuple[Any, ...]) -> None:
    with pytest.raises(ProtocolError) as caught:
        CreditLeaf(*fields)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "fields",
    [
        ("gift", bytes(16), bytes(32), 0),
        ("job", bytes(15), bytes(32), 0),
        ("job", bytes(16), bytes(31), 0),
        ("audit", bytes(16), bytes(32), AMOUNT_MAX + 1),
    ],
)
def test_a_line_out_of_bounds_is_malformed(fields: tuple[Any, ...]) -> None:
    with pytest.raises(ProtocolError) as caught:
        CreditLine(*fields)
    assert caught.value.code == "malformed"


def test_kinds_and_domains_separate_equal_contents() -> None:
    job = CreditLine("job", bytes(16), bytes(32), 1)
    audit = CreditLine("audit", bytes(16), bytes(32), 1)
    leaf = CreditLeaf(bytes(32), 0, 1, 1, bytes(32))
    assert len({job.hash, audit.hash, leaf.hash, PADDING}) == 4


@given(st.binary(max_size=200))
def test_any_bytes_as_a_proof_decode_or_are_malformed(raw: bytes) -> None:
    if len(raw) % 48:
        with pytest.raises(ProtocolError, match="malformed"):
            decode_proof(raw)
    else:
        assert encode_proof(decode_proof(raw)) == raw


@pytest.mark.slow
def test_a_hundred_thousand_leaves() -> None:
    leaves = [(index.to_bytes(32), index) for index in range(100_000)]
    tree = SumTree.build(leaves)
    assert fold(*leaves[-1], 99_999, tree.proof(99_999)) == (tree.root, tree.total)
