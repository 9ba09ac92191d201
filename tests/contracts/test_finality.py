"""A block is final when more than two thirds of the bonded weight sealed it, and never else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from assay_contracts.follow.finality import (
    EVIDENCE_MAX,
    TARGET_US,
    Finality,
    Target,
    check_finality,
    is_majority,
)
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.messages import FinalityProof, VoterSeal
from assay_protocol.seals import block_subject, contradict, seal_block
from assay_protocol.signing import Identity

CHAIN = 0xA55A
VOTERS = [Identity(bytes([n]) * 32) for n in range(1, 10)]
OURS, OTHER = b"\x01" * 32, b"\x02" * 32


def aimed(*weights: int, number: int = 5) -> Finality:
    core = Finality(CHAIN)
    keys = {voter.public_key: w for voter, w in zip(VOTERS, weights, strict=False)}
    core.aim(Target(number, OURS, keys, since_us=0))
    return core


def vote(core: Finality, voter: int, digest: bytes = OURS, number: int = 5) -> FinalityProof | None:
    key = VOTERS[voter]
    return core.vote(key.public_key, seal_block(key, CHAIN, number, digest))


@given(weight=st.integers(0, 2**70), total=st.integers(1, 2**70))
def test_more_than_two_thirds_exactly(weight: int, total: int) -> None:
    assert is_majority(weight, total) == (Fraction(weight, total) > Fraction(2, 3))


def test_two_thirds_are_not_enough() -> None:
    core = aimed(1, 1, 1)
    assert vote(core, 0) is None
    assert vote(core, 1) is None
    assert core.number == 0
    assert vote(core, 2) == core.proof
    assert core.number == 5


def test_weight_counts_not_heads() -> None:
    core = aimed(70, 10, 10, 10)
    proof = vote(core, 0)
    assert proof is not None
    assert [one.voter for one in proof.seals] == [VOTERS[0].public_key]
    assert (proof.number, proof.hash, proof.bonded) == (5, OURS, 100)


def test_what_is_no_vote_is_refused_by_code() -> None:
    core = aimed(1, 1, 1)
    seal = seal_block(VOTERS[0], CHAIN, 5, OURS)
    cases = {
        "bad_signature": (VOTERS[1].public_key, seal),
        "forbidden": (VOTERS[8].public_key, seal_block(VOTERS[8], CHAIN, 5, OURS)),
        "unexpected_message": (VOTERS[0].public_key, seal_block(VOTERS[0], CHAIN, 6, OURS)),
        "chain_mismatch": (VOTERS[0].public_key, seal_block(VOTERS[0], CHAIN + 1, 5, OURS)),
        "malformed": (VOTERS[0].public_key, b"\x00" * 80),
    }
    for code, (voter, blob) in cases.items():
        with pytest.raises(AssayError) as caught:
            core.vote(voter, blob)
        assert caught.value.code == code
    assert core.weight() == (0, 3)


def test_a_vote_for_another_hash_counts_for_nothing() -> None:
    core = aimed(1, 1, 1)
    with pytest.raises(AssayError, match="another hash here"):
        vote(core, 0, OTHER)
    with pytest.raises(AssayError, match="two hashes"):
        vote(core, 0)
    assert (vote(core, 1), vote(core, 2)) == (None, None)
    [one] = core.evidence
    assert contradict(one.voter, one.first, one.second)


def test_evidence_is_bounded_and_the_first_vote_stays() -> None:
    core = aimed(1, 1, 1)
    vote(core, 0)
    for n in range(EVIDENCE_MAX + 9):
        with pytest.raises(AssayError, match="two hashes"):
            vote(core, 0, bytes([n, 9]) * 16)
    assert len(core.evidence) == EVIDENCE_MAX
    assert core.weight() == (1, 3)
    assert vote(core, 0) is None  # again is no second vote
    assert core.weight() == (1, 3)


def test_a_target_waits_a_while_and_is_left_behind() -> None:
    core = Finality(CHAIN)
    assert not core.is_waiting(0)
    core.aim(Target(5, OURS, {VOTERS[0].public_key: 1}, since_us=100))
    assert core.is_waiting(100 + TARGET_US - 1)
    assert not core.is_waiting(100 + TARGET_US)
    vote(core, 0)
    assert not core.is_waiting(101), "it is final"
    assert vote(core, 0) is None, "a late vote is no error"


def test_a_proof_is_checked_against_what_one_executed_oneself() -> None:
    core = aimed(5, 4, 1)
    vote(core, 1)
    proof = vote(core, 0)
    assert proof is not None
    weights = {voter.public_key: w for voter, w in zip(VOTERS, (5, 4, 1), strict=False)}
    check_finality(proof, CHAIN, OURS, weights)
    first, second = proof.seals
    forged = VoterSeal(voter=VOTERS[2].public_key, seal=first.seal)
    bad: list[tuple[FinalityProof, bytes, dict[bytes, int]]] = [
        (proof, OTHER, weights),
        (replace(proof, hash=OTHER), OURS, weights),
        (replace(proof, number=6), OURS, weights),
        (replace(proof, bonded=9), OURS, weights),
        (replace(proof, seals=(first,)), OURS, weights),
        (replace(proof, seals=(first, first)), OURS, weights),
        (replace(proof, seals=(first, forged)), OURS, weights),
        (replace(proof, seals=(second, forged)), OURS, weights),
        (proof, OURS, {key: w for key, w in weights.items() if key != first.voter}),
    ]
    for wrong, block_hash, known in bad:
        with pytest.raises(ProtocolError):
            check_finality(wrong, CHAIN, block_hash, known)
    with pytest.raises(ProtocolError):
        check_finality(proof, CHAIN + 1, OURS, weights)


def test_a_subject_names_chain_and_height() -> None:
    assert block_subject(1, 2) == b"block" + bytes(11) + bytes(7) + b"\x01" + bytes(7) + b"\x02"


class Votes(RuleBasedStateMachine):
    """Any order of any votes: what is final is what the honest count says."""

    @initialize(weights=st.lists(st.integers(1, 50), min_size=1, max_size=len(VOTERS)))
    def start(self, weights: list[int]) -> None:
        self.core = Finality(CHAIN)
        self.weights = {voter.public_key: w for voter, w in zip(VOTERS, weights, strict=False)}
        self.number = 0
        self.final = 0
        self._aim()

    def _aim(self) -> None:
        self.number += 1
        self.first: dict[int, bytes] = {}
        self.core.aim(Target(self.number, OURS, self.weights, 0))

    @rule(voter=st.integers(0, len(VOTERS) - 1), honest=st.booleans(), late=st.booleans())
    def votes(self, voter: int, honest: bool, late: bool) -> None:
        number = self.number - 1 if late else self.number
        digest = OURS if honest else OTHER
        key = VOTERS[voter]
        try:
            proof = self.core.vote(key.public_key, seal_block(key, CHAIN, number, digest))
        except AssayError:
            proof = None
        bonded = key.public_key in self.weights
        if number == self.number and bonded and self.final < number:
            self.first.setdefault(voter, digest)
        if proof is not None:
            assert proof.number == self.number > self.final
            self.final = proof.number
            check_finality(proof, CHAIN, OURS, self.weights)

    @rule()
    def moves_on(self) -> None:
        self._aim()

    @invariant()
    def is_final_by_weight_alone(self) -> None:
        if not hasattr(self, "core"):
            return
        agreed = sum(
            self.weights[VOTERS[voter].public_key]
            for voter, digest in self.first.items()
            if digest == OURS
        )
        enough = 3 * agreed > 2 * sum(self.weights.values())
        assert (self.core.number == self.number) == enough
        assert len(self.core.evidence) <= EVIDENCE_MAX


TestVotes = Votes.TestCase
TestVotes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
