"""CreditLedger's calls as bytes, encoded by hand: all its arguments are words and one bytes tail.

Kept free of Ethereum packages so that the base install can verify credit against any JSON-RPC node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay_contracts.artefact import load
from assay_protocol.credit_tree import CreditLeaf, ProofItem, encode_proof
from assay_protocol.errors import AssayError, ProtocolError

CONTRACT = "CreditLedger"
WORD = 32
_EPOCH_WORDS = 4


@dataclass(frozen=True, slots=True)
class Header:
    """What one epoch posts: the account tree's root, sum and size, and what it was made from.

    `jobs` were booked in this epoch; `data_hash` is the sha256 of the published leaf file and
    `policy` that of the rules that priced it.
    """

    root: bytes
    total_cum: int
    jobs: int
    leaves: int
    data_hash: bytes
    policy: bytes

    def __post_init__(self) -> None:
        if any(len(field) != 32 for field in (self.root, self.data_hash, self.policy)):
            raise ProtocolError("malformed", "a header hash is not 32 bytes")
        bits = ((self.total_cum, 128), (self.jobs, 64), (self.leaves, 32))
        if any(value < 0 or value >> width for value, width in bits):
            raise ProtocolError("malformed", "a header number is out of range")


@dataclass(frozen=True, slots=True)
class PostedEpoch:
    """An epoch as the chain holds it; `posted_at` is in seconds of the block's clock."""

    root: bytes
    total_cum: int
    posted_at: int
    leaves: int


def post_call(epoch: int, header: Header) -> bytes:
    numbers = word(header.total_cum) + word(header.jobs) + word(header.leaves)
    fields = header.root + numbers + header.data_hash + header.policy
    return load(CONTRACT).selector("post") + word(epoch) + fields


def posted_by(call: bytes) -> tuple[int, bytes, int, int]:
    """What a `post_call` posts: epoch, root, total and leaves, as the contract then keeps them."""
    epoch, root, total, _, leaves = (call[i : i + WORD] for i in range(4, 4 + 5 * WORD, WORD))
    return int.from_bytes(epoch), root, int.from_bytes(total), int.from_bytes(leaves)


def head_call() -> bytes:
    return load(CONTRACT).selector("head")


def poster_call() -> bytes:
    return load(CONTRACT).selector("poster")


def epochs_call(epoch: int) -> bytes:
    return load(CONTRACT).selector("epochs") + word(epoch)


def verify_leaf_call(epoch: int, leaf: CreditLeaf, index: int, proof: Sequence[ProofItem]) -> bytes:
    tail = encode_proof(proof)
    leaf_words = (
        leaf.account
        + word(leaf.role)
        + word(leaf.cumulative)
        + word(leaf.epoch_credit)
        + leaf.receipts_root
    )
    head = word(epoch) + leaf_words + word(index)
    offset = len(head) + WORD
    padded = tail + bytes(-len(tail) % WORD)
    return load(CONTRACT).selector("verifyLeaf") + head + word(offset) + word(len(tail)) + padded


def decode_number(output: bytes) -> int:
    """A single-word answer; raises AssayError("chain_mismatch") if it is not one."""
    if len(output) != WORD:
        raise AssayError("chain_mismatch", "the ledger did not answer with one word")
    return int.from_bytes(output)


def decode_epoch(output: bytes) -> PostedEpoch | None:
    """`epochs(uint32)`; None if that epoch was never posted."""
    if len(output) != _EPOCH_WORDS * WORD:
        raise AssayError("chain_mismatch", "the ledger did not answer with an epoch")
    root, total, posted_at, leaves = (output[i : i + WORD] for i in range(0, len(output), WORD))
    if root == bytes(WORD):
        return None
    return PostedEpoch(
        root, int.from_bytes(total), int.from_bytes(posted_at), int.from_bytes(leaves)
    )


def word(number: int) -> bytes:
    return number.to_bytes(WORD)


def is_final_call(epoch: int) -> bytes:
    return load(CONTRACT).selector("isFinal") + word(epoch)


def voided_call() -> bytes:
    """When an epoch was last voided; 0: never."""
    return load(CONTRACT).selector("voidedAt")


def claimed_call(account: bytes, role: int) -> bytes:
    return load(CONTRACT).selector("claimed") + account + word(role)


def decode_flag(output: bytes) -> bool:
    """A single-word answer of 0 or 1; raises AssayError("chain_mismatch") if it is not one."""
    number = decode_number(output)
    if number > 1:
        raise AssayError("chain_mismatch", "the ledger did not answer yes or no")
    return number == 1
