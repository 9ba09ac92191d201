"""Which block the bonded nodes agree on: more than two thirds of the bonded weight sealed it.

Pure: no clock, chain or file. Rules: a voter is an active node at that block, its weight its bond
there; one vote a voter and height, the first counts; a vote for another hash than ours never does.
Two seals of one voter with different hashes are kept as evidence. All wait for one block at a time,
the target, so that votes meet; it moves on when it is final, or when it has waited too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import VOTERS_MAX
from assay_protocol.messages import FinalityProof, Seal, VoterSeal
from assay_protocol.seals import block_subject, check_block_seal, sealed_number
from assay_protocol.signing import ED25519, Verifier, open_signed

TARGET_US: Final = 30_000_000  # before a block that finds no majority is left behind
EVIDENCE_MAX: Final = 64
NUMERATOR, DENOMINATOR = 2, 3


@dataclass(frozen=True, slots=True)
class Target:
    """The block that is voted on, and the weights that decide it (by voter's key, positive)."""

    number: int
    hash: bytes
    weights: Mapping[bytes, int]
    since_us: int


@dataclass(frozen=True, slots=True)
class VoterEquivocation:
    """Two seals of one voter on one block of this chain."""

    voter: bytes
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class _Vote:
    seal: bytes
    digest: bytes


@dataclass(slots=True)
class Finality:
    """Counts votes on one chain; `proof` is the newest there is."""

    chain_id: int
    proof: FinalityProof | None = None
    target: Target | None = None
    evidence: list[VoterEquivocation] = field(default_factory=list)
    verifier: Verifier = ED25519
    _votes: dict[bytes, _Vote] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The newest block with a proof; 0 before the first."""
        return 0 if self.proof is None else self.proof.number

    def is_waiting(self, now_us: int) -> bool:
        """Whether the target still stands: not final, and not too old."""
        target = self.target
        return (
            target is not None
            and target.number > self.number
            and now_us - target.since_us < TARGET_US
        )

    def aim(self, target: Target) -> None:
        """Vote on another block from now on. Votes on the one before are dropped."""
        assert target.number > self.number
        assert all(weight > 0 for weight in target.weights.values())
        self.target = target
        self._votes.clear()

    def vote(self, voter: bytes, seal: bytes) -> FinalityProof | None:
        """Count a seal; the proof if it completes one.

        Raises AssayError: "bad_signature"; "malformed"; "forbidden" (no bonded node);
        "unexpected_message" (not of the target: ask again); "chain_mismatch" (another hash).
        """
        target = self.target
        number = sealed_number(seal, self.chain_id)
        if number <= self.number:
            return None  # decided
        if target is None or number != target.number:
            raise AssayError("unexpected_message", f"block {number} is not voted on now")
        if voter not in target.weights:
            raise AssayError("forbidden", "only active nodes with a bond vote")
        sealed = open_signed(Seal, seal, voter, self.verifier)
        assert sealed.subject == block_subject(self.chain_id, number)
        before = self._votes.setdefault(voter, _Vote(seal, sealed.digest))
        if before.digest != sealed.digest:
            if len(self.evidence) < EVIDENCE_MAX:
                self.evidence.append(VoterEquivocation(voter, before.seal, seal))
            raise AssayError("chain_mismatch", "the voter sealed two hashes at this height")
        if sealed.digest != target.hash:
            raise AssayError("chain_mismatch", f"block {number} has another hash here")
        return self._complete(target)

    def weight(self) -> tuple[int, int]:
        """How much of the target's weight agreed, and all of it; (0, 0) without a target."""
        if self.target is None:
            return 0, 0
        agreed = sum(self.target.weights[voter] for voter in self._agreeing(self.target))
        return agreed, sum(self.target.weights.values())

    def _complete(self, target: Target) -> FinalityProof | None:
        weights, total = target.weights, sum(target.weights.values())
        heaviest = sorted(self._agreeing(target), key=lambda one: (-weights[one], one))
        chosen, agreed = [], 0
        for voter in heaviest[:VOTERS_MAX]:
            chosen.append(VoterSeal(voter=voter, seal=self._votes[voter].seal))
            agreed += weights[voter]
            if is_majority(agreed, total):
                self.proof = FinalityProof(
                    number=target.number, hash=target.hash, bonded=total, seals=tuple(chosen)
                )
                return self.proof
        return None

    def _agreeing(self, target: Target) -> list[bytes]:
        return [voter for voter, vote in self._votes.items() if vote.digest == target.hash]


def is_majority(weight: int, total: int) -> bool:
    """More than two thirds, exactly."""
    return DENOMINATOR * weight > NUMERATOR * total


def check_finality(
    proof: FinalityProof,
    chain_id: int,
    block_hash: bytes,
    weights: Mapping[bytes, int],
    verifier: Verifier = ED25519,
) -> None:
    """What a reader checks against the chain it executed itself: `block_hash` and `weights` there.

    Raises ProtocolError: "chain_mismatch" (another block, voter twice, weights that are not the
    chain's, no majority) or "bad_signature".
    """
    if proof.hash != block_hash:
        raise ProtocolError("chain_mismatch", f"block {proof.number} has another hash here")
    voters = {one.voter for one in proof.seals}
    if len(voters) != len(proof.seals) or not voters <= set(weights):
        raise ProtocolError("chain_mismatch", "a voter stands twice, or has no bond")
    total = sum(weights.values())
    if proof.bonded != total:
        raise ProtocolError("chain_mismatch", "the bonded weight is another one")
    for one in proof.seals:
        check_block_seal(one.seal, one.voter, chain_id, proof.number, block_hash, verifier)
    if not is_majority(sum(weights[voter] for voter in voters), total):
        raise ProtocolError("chain_mismatch", "two thirds of the weight or less agreed")
