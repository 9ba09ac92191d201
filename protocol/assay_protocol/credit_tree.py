"""The credit tree: what one epoch's root says each account has earned, and how a proof is folded.

Two Merkle-SUM trees with one node rule. The *line* tree lists what one account was booked in the
epoch (a line per receipt or audit) and sums to its `epoch_credit`; the *account* tree lists every
account's leaf and sums to the total ever credited. The contract `CreditLedger` folds the second one
with the same bytes (protocol/spec/credit.md; vectors in spec/vectors/credit_tree.json).

    account leaf  sha256(0x00 | account 32 | role 1 | total 16 | credit 16 | lines root 32)
    node          sha256(0x01 | left hash 32 | left sum 16 | right hash 32 | right sum 16)
    line leaf     sha256(0x02 | kind 1 | id 16 | digest 32 | amount 16)
    padding       sha256(0x03), amount 0

Rules, each against a known attack: the first byte separates the domains (no node passes for a
leaf); a node hashes *both* child sums, so a sum cannot move between siblings; the index directs
the fold and `index >> depth == 0`, so one leaf has one index; sums stay under 2**128, so none
wraps; padding has a domain of its own and no leaf hashes to it; an empty tree's root is the
padding, never zero. All integers are big-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

from assay_protocol.errors import ProtocolError

AMOUNT_MAX: Final = (1 << 128) - 1
DEPTH_MAX: Final = 32  # the contract counts leaves in 32 bits
PROOF_ITEM_BYTES: Final = 48
LINE_KINDS: Final[dict[str, int]] = {"job": 0, "audit": 1, "sweep": 2}
# What an account can earn as; one account has a leaf for each role it ever earned in.
COMPUTE: Final = 0
PUBLISHER: Final = 1
ADAPTER: Final = 2
DATA: Final = 3
AUDITOR: Final = 4
TREASURY: Final = 5
ROLES: Final[dict[str, int]] = {
    "compute": COMPUTE,
    "publisher": PUBLISHER,
    "adapter": ADAPTER,
    "data": DATA,
    "auditor": AUDITOR,
    "treasury": TREASURY,
}
LEAF_BYTES: Final = 97  # account 32, role 1, cumulative 16, epoch credit 16, receipts root 32

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_LINE: Final = b"\x02"
PADDING: Final = sha256(b"\x03").digest()


class ProofItem(NamedTuple):
    """A sibling on the way to the root: its hash (32 bytes) and its sum."""

    hash: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class CreditLeaf:
    """What `account` (a 32-byte Ed25519 key) has earned in `role` up to and in one epoch."""

    account: bytes
    role: int
    cumulative: int
    epoch_credit: int
    receipts_root: bytes

    def __post_init__(self) -> None:
        _require(len(self.account) == 32 and len(self.receipts_root) == 32, "key or root not 32 B")
        _require(0 <= self.role <= 255, "role is not one byte")
        _require(0 <= self.cumulative <= AMOUNT_MAX, "cumulative is not 128 bit")
        _require(0 <= self.epoch_credit <= AMOUNT_MAX, "epoch credit is not 128 bit")

    def encode(self) -> bytes:
        """97 bytes: what is hashed, and what leaf files hold."""
        amounts = self.cumulative.to_bytes(16) + self.epoch_credit.to_bytes(16)
        return self.account + self.role.to_bytes(1) + amounts + self.receipts_root

    @classmethod
    def decode(cls, raw: bytes) -> CreditLeaf:
        """Inverse of `encode`; raises ProtocolError("malformed") for another length."""
        _require(len(raw) == LEAF_BYTES, "a leaf is 97 bytes")
        cumulative, credit = int.from_bytes(raw[33:49]), int.from_bytes(raw[49:65])
        return cls(raw[:32], raw[32], cumulative, credit, raw[65:])

    @property
    def hash(self) -> bytes:
        return leaf_hash(self.encode())


@dataclass(frozen=True, slots=True)
class CreditLine:
    """One booked receipt or audit: its kind, job or audit id (16 B), digest (32 B) and amount."""

    kind: str
    id: bytes
    digest: bytes
    amount: int

    def __post_init__(self) -> None:
        _require(self.kind in LINE_KINDS, "unknown kind of line")
        _require(len(self.id) == 16 and len(self.digest) == 32, "line id or digest length")
        _require(0 <= self.amount <= AMOUNT_MAX, "line amount is not 128 bit")

    @property
    def hash(self) -> bytes:
        return line_hash(self.kind, self.id, self.digest, self.amount)


class Frontier:
    """The tree of `SumTree` over leaves that come one by one, holding only what the root needs: one
    node for each bit set in the number of leaves. `add` costs one hash on average."""

    __slots__ = ("_peaks", "size", "total")

    def __init__(self) -> None:
        self._peaks: list[tuple[bytes, int]] = []  # whole subtrees, the largest first
        self.size = 0
        self.total = 0

    def add(self, leaf: bytes, amount: int) -> None:
        """Raises ProtocolError("malformed") if the sum leaves 128 bits."""
        _require(0 <= amount <= AMOUNT_MAX - self.total, "sum is not 128 bit")
        node, total, size = leaf, amount, self.size
        while size & 1:
            left, left_sum = self._peaks.pop()
            node, total, size = _node(left, left_sum, node, total), left_sum + total, size >> 1
        self._peaks.append((node, total))
        self.size += 1
        self.total += amount

    @property
    def root(self) -> bytes:
        if not self._peaks:
            return PADDING
        *larger, (node, total) = self._peaks
        height = (self.size & -self.size).bit_length() - 1
        left_leaves = self.size ^ (1 << height)
        for left, left_sum in reversed(larger):
            own = (left_leaves & -left_leaves).bit_length() - 1
            for empty in range(height, own):
                node = _node(node, total, _padding(empty), 0)
            node, total, height = _node(left, left_sum, node, total), left_sum + total, own + 1
            left_leaves ^= 1 << own
        return node


class SumTree:
    """A Merkle-SUM tree over leaves (hash, amount); its depth is the least that holds them."""

    __slots__ = ("_levels", "size")

    def __init__(self, levels: list[list[tuple[bytes, int]]], size: int) -> None:
        self._levels = levels
        self.size = size

    @classmethod
    def build(cls, leaves: Sequence[tuple[bytes, int]]) -> SumTree:
        """Raises ProtocolError("malformed") if a hash or amount, or the sum, is out of bounds."""
        _require(len(leaves) <= 1 << DEPTH_MAX, "too many leaves")
        _require(all(len(h) == 32 and a >= 0 for h, a in leaves), "leaf out of bounds")
        _require(sum(amount for _, amount in leaves) <= AMOUNT_MAX, "sum is not 128 bit")
        level = list(leaves) or [(PADDING, 0)]
        levels = [level]
        padding = PADDING
        while len(level) > 1:
            if len(level) & 1:
                level.append((padding, 0))
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [(_node(lh, ls, rh, rs), ls + rs) for (lh, ls), (rh, rs) in pairs]
            levels.append(level)
            padding = _node(padding, 0, padding, 0)
        return cls(levels, len(leaves))

    @property
    def root(self) -> bytes:
        return self._levels[-1][0][0]

    @property
    def total(self) -> int:
        return self._levels[-1][0][1]

    def proof(self, index: int) -> tuple[ProofItem, ...]:
        """The siblings from the leaf at `index` up; raises ProtocolError("proof_invalid")."""
        if not 0 <= index < self.size:
            raise ProtocolError("proof_invalid", f"no leaf {index} in a tree of {self.size}")
        return tuple(
            ProofItem(*level[(index >> depth) ^ 1]) for depth, level in enumerate(self._levels[:-1])
        )


def leaf_hash(record: bytes) -> bytes:
    """Of an account's leaf as `CreditLeaf.encode` has it."""
    return sha256(_LEAF + record).digest()


def line_hash(kind: str, line_id: bytes, digest: bytes, amount: int) -> bytes:
    head = _LINE + LINE_KINDS[kind].to_bytes(1) + line_id
    return sha256(head + digest + amount.to_bytes(16)).digest()


def fold(
    leaf_hash: bytes, amount: int, index: int, proof: Sequence[ProofItem]
) -> tuple[bytes, int]:
    """Root and total that `proof` leads to from a leaf. The caller compares *both* with the chain.

    Raises ProtocolError("proof_invalid") for an index beyond the proof's depth, a sum of more than
    128 bits, or a hash of another length than 32.
    """
    if len(proof) > DEPTH_MAX or index < 0 or index >> len(proof):
        raise ProtocolError("proof_invalid", "the index does not fit the proof's depth")
    if len(leaf_hash) != 32 or not 0 <= amount <= AMOUNT_MAX:
        raise ProtocolError("proof_invalid", "the leaf is out of bounds")
    node, total = leaf_hash, amount
    for sibling, sibling_sum in proof:
        if len(sibling) != 32 or not 0 <= sibling_sum <= AMOUNT_MAX - total:
            raise ProtocolError("proof_invalid", "a proof item is out of bounds")
        if index & 1:
            node = _node(sibling, sibling_sum, node, total)
        else:
            node = _node(node, total, sibling, sibling_sum)
        total += sibling_sum
        index >>= 1
    return node, total


def receipts_root(lines: Sequence[CreditLine]) -> tuple[bytes, int]:
    """Root and sum of an account's lines, in the order booked: `receipts_root`, `epoch_credit`."""
    tree = SumTree.build([(line.hash, line.amount) for line in lines])
    return tree.root, tree.total


def account_tree(leaves: Sequence[CreditLeaf]) -> SumTree:
    """The epoch's tree: leaves in the order of their permanent index, summed by cumulative."""
    return SumTree.build([(leaf.hash, leaf.cumulative) for leaf in leaves])


def encode_proof(proof: Sequence[ProofItem]) -> bytes:
    """48 bytes an item (hash, sum), leaf to root: the form the contract and bundles take."""
    return b"".join(item.hash + item.amount.to_bytes(16) for item in proof)


def decode_proof(raw: bytes) -> tuple[ProofItem, ...]:
    """Inverse of `encode_proof`; raises ProtocolError("malformed")."""
    _require(len(raw) % PROOF_ITEM_BYTES == 0, "proof is not whole items")
    _require(len(raw) // PROOF_ITEM_BYTES <= DEPTH_MAX, "proof is too deep")
    return tuple(
        ProofItem(raw[at : at + 32], int.from_bytes(raw[at + 32 : at + PROOF_ITEM_BYTES]))
        for at in range(0, len(raw), PROOF_ITEM_BYTES)
    )


def role_name(role: int) -> str:
    """For people; a role of a later version by its number."""
    return next((name for name, number in ROLES.items() if number == role), f"role {role}")


def _node(left: bytes, left_sum: int, right: bytes, right_sum: int) -> bytes:
    return sha256(
        _NODE + left + left_sum.to_bytes(16, "big") + right + right_sum.to_bytes(16, "big")
    ).digest()


@cache
def _padding(height: int) -> bytes:
    """The root of a subtree that holds nothing."""
    below = _padding(height - 1) if height else b""
    return _node(below, 0, below, 0) if height else PADDING


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ProtocolError("malformed", what)
