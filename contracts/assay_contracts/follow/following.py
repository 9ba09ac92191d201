"""Following a chain: every block is executed again, from a genesis derived here, and every seal
checked. What does not come out equal stops it, with the block's number and the reason.

A follower keeps a chain file of its own, one SQLite transaction a block, and goes on where it was.
If the producer sealed another block at a height it sealed before, both seals are evidence that
anybody can check and the contract SlashCourt takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay_contracts.follow.block_sources import BLOCKS_MAX, About, BlockSource
from assay_contracts.follow.bonds import Bonds
from assay_contracts.follow.equivocation import equivocation_call
from assay_contracts.follow.finality import check_finality
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.messages import FinalityProof, Seal, SealedBlock
from assay_protocol.seals import contradict
from assay_protocol.signing import SIGNATURE_BYTES, covered

_PASSING: Final = frozenset({"timeout", "peer_gone", "busy", "contract_refused"})


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two seals of `producer` on block `number`, with different hashes."""

    producer: bytes
    chain_id: int
    number: int
    first: bytes
    second: bytes

    def document(self) -> dict[str, Any]:
        """For JSON: key, the two signed messages, their signatures, and the call data with which
        anybody sends them to a SlashCourt that has the producer's bond."""
        return {
            "kind": "Seal",
            "key": self.producer.hex(),
            "chain_id": self.chain_id,
            "number": self.number,
            "messages": [covered(Seal, s).hex() for s in self._seals()],
            "signatures": [s[:SIGNATURE_BYTES].hex() for s in self._seals()],
            "call": equivocation_call(Seal, self.producer, self.first, self.second).hex(),
        }

    def _seals(self) -> tuple[bytes, bytes]:
        return self.first, self.second


class Difference(AssayError):
    """The chain is not what its producer sealed and the EVM gives; `number` is the first block."""

    def __init__(self, code: str, number: int, why: str, evidence: Evidence | None = None) -> None:
        prefix = f"block {number}: "
        super().__init__(code, why if why.startswith(prefix) else prefix + why)
        self.number = number
        self.evidence = evidence


def open_followed(
    path: Path, about: About, *, producer: bytes | None = None, poster: bytes | None = None
) -> LocalChain:
    """The follower's own file, made if it is not there.

    `producer` and `poster` are what the operator published; what is not given is taken from the
    source, the first time only. Raises AssayError: "chain_mismatch" if the source contradicts,
    "chain_unavailable" if another process follows into this file.
    """
    if producer is not None and producer != about.producer:
        raise AssayError("chain_mismatch", "the source follows another producer")
    if poster is not None and poster != about.poster:
        raise AssayError("chain_mismatch", "the source's chain has another poster")
    genesis = Genesis(about.poster, about.chain_id)
    return LocalChain.open(
        path, genesis=genesis, producer=about.producer, durable=False, exclusive=True
    )


class Follower:
    """`chain` is the follower's own, opened by `open_followed`; one thread drives it."""

    def __init__(self, chain: LocalChain, source: BlockSource) -> None:
        self._chain, self._source = chain, source
        self._bonds = Bonds(chain)

    def step(self) -> int:
        """Executes the next blocks of the source; how many there were.

        Raises Difference; and AssayError "timeout", "peer_gone" or "busy" to try again on.
        """
        assert self._chain.producer is not None
        head = self._chain.head_block().number
        found = self._fetch(max(head, 1), BLOCKS_MAX)
        if head and found:
            self._compare(head, found.pop(0))  # the overlap shows a fork at once
        elif head:
            self._check_behind(head)
        for number, block in enumerate(found, head + 1):
            self._add(number, block)
        return len(found)

    def to_head(self) -> int:
        """Steps until the source has no more; how many blocks."""
        total = 0
        while added := self.step():
            total += added
        return total

    def finality(self) -> int | None:
        """The newest block the source proves final, checked against the bonds executed here; None
        without a proof, or while its block is not executed here.

        Raises Difference if the proof is none; else as `step`.
        """
        raw = self._source.finality()
        if raw is None:
            return None
        number = 0
        try:
            proof = decode_as(FinalityProof, raw)
            number = proof.number
            block = self._chain.block(number)
            if block is None:
                return None
            check_finality(proof, self._chain.chain_id, block.hash, self._bonds.at(number))
        except AssayError as error:
            why = f"no proof that it is final: {error.message}"
            raise Difference(error.code, number, why) from None
        return number

    def _fetch(self, first: int, count: int) -> list[SealedBlock]:
        try:
            return self._source.blocks(first, count)
        except AssayError as error:
            if error.code in _PASSING:
                raise
            raise Difference(error.code, first, error.message) from None

    def _add(self, number: int, block: SealedBlock) -> None:
        try:
            self._chain.import_block(block.raw, block.seal)
        except AssayError as error:
            if error.code == "storage_failed":
                raise
            raise Difference(error.code, number, error.message) from None

    def _compare(self, number: int, theirs: SealedBlock) -> None:
        mine = self._chain.sealed_block(number)
        assert mine is not None
        if mine.raw == theirs.raw:
            return
        raise self._forked(number, theirs)

    def _check_behind(self, head: int) -> None:
        """The source is shorter than what was executed here: behind, or another chain."""
        number = min(self._source.about().head, head)
        if number:
            found = self._fetch(number, 1)
            if found:
                self._compare(number, found[0])

    def _forked(self, number: int, theirs: SealedBlock) -> Difference:
        """Another block at a height that is taken here; with evidence if the producer sealed it."""
        number, theirs = self._first_fork(number, theirs)
        mine = self._chain.sealed_block(number)
        producer = self._chain.producer
        assert mine is not None
        assert producer is not None
        evidence = None
        if contradict(producer, mine.seal, theirs.seal):
            evidence = Evidence(producer, self._chain.chain_id, number, mine.seal, theirs.seal)
        why = "the source has another block than was executed here"
        if evidence is not None:
            why = "the producer sealed two blocks at this height"
        return Difference("chain_mismatch", number, why, evidence)

    def _first_fork(self, number: int, theirs: SealedBlock) -> tuple[int, SealedBlock]:
        """The lowest height at which the source differs, by halving: chains part once."""
        low, best = 0, theirs  # low: known to be equal
        while number - low > 1:
            middle = (low + number) // 2
            mine, found = self._chain.sealed_block(middle), self._fetch(middle, 1)
            if mine is None or not found:
                break
            if found[0].raw == mine.raw:
                low = middle
            else:
                number, best = middle, found[0]
        return number, best
