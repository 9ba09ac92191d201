"""A voter's weight out of two leaf files, and proofs that lead to both roots."""

from __future__ import annotations

from assay_contracts.govern.ballots import ballots
from assay_protocol.credit_tree import CreditLeaf, fold
from assay_protocol.leaf_file import LeafFile, encode_leaves
from assay_protocol.splits import AUDITOR, COMPUTE, TREASURY

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def file(epoch: int, *rows: tuple[bytes, int, int]) -> LeafFile:
    leaves = [CreditLeaf(account, role, total, 0, bytes(32)) for account, role, total in rows]
    return LeafFile(encode_leaves(epoch, (leaf.encode() for leaf in leaves)))


OLDER = file(1, (A, COMPUTE, 10), (B, COMPUTE, 20))
NEWER = file(
    4, (A, COMPUTE, 15), (B, COMPUTE, 20), (A, AUDITOR, 7), (C, COMPUTE, 1), (A, TREASURY, 9)
)


def test_weight_is_what_was_earned_in_between_role_by_role() -> None:
    assert [one.weight for one in ballots(A, NEWER, OLDER)] == [5, 7]
    assert ballots(B, NEWER, OLDER) == ()  # nothing since
    assert [one.weight for one in ballots(C, NEWER, OLDER)] == [1]
    assert ballots(b"x" * 32, NEWER, OLDER) == ()


def test_before_the_first_epoch_nobody_had_anything() -> None:
    assert [one.weight for one in ballots(B, NEWER, None)] == [20]


def test_each_proof_leads_to_its_root() -> None:
    for one in (*ballots(A, NEWER, OLDER), *ballots(C, NEWER, OLDER)):
        for proven, leaves in ((one.now, NEWER), (one.before, OLDER)):
            if proven is not None:
                leaf = proven.leaf
                found = fold(leaf.hash, leaf.cumulative, proven.index, proven.proof)
                assert found == leaves.root()
