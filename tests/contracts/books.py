"""A poster's books for tests of the ledger: honest epochs, and trees bent in any place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from assay_contracts.credit.ledger_abi import Header
from assay_protocol.credit_tree import (
    LINE_KINDS,
    PADDING,
    CreditLeaf,
    CreditLine,
    SumTree,
    encode_proof,
    fold,
    receipts_root,
)

Place = tuple[CreditLeaf, int, bytes]
Line = tuple[int, bytes, bytes, int]
Booking = tuple[int, Place, Line, int, bytes]
Piece = tuple[bytes, int, int, bytes]


def account(number: int) -> bytes:
    """An account's key."""
    return number.to_bytes(32)


def line(number: int, amount: int, kind: str = "job") -> CreditLine:
    return CreditLine(kind, number.to_bytes(16), bytes([7]) * 32, amount)


@dataclass(frozen=True)
class Epoch:
    """One epoch's leaves and, by index, their lines."""

    leaves: tuple[CreditLeaf, ...]
    lines: tuple[tuple[CreditLine, ...], ...] = ()
    bent: SumTree | None = None  # in place of the leaves' own tree

    @cached_property
    def tree(self) -> SumTree:
        return self.bent or tree_of([(leaf.hash, leaf.cumulative) for leaf in self.leaves])

    def header(self, leaves: int | None = None, jobs: int = 3) -> Header:
        tree = self.tree
        count = len(self.leaves) if leaves is None else leaves
        return Header(tree.root, tree.total, jobs, count, bytes([1]) * 32, bytes([2]) * 32)

    def place(self, index: int) -> Place:
        return self.leaves[index], index, self.proof(index)

    def proof(self, index: int) -> bytes:
        return encode_proof(self.tree.proof(index))

    def booking(self, epoch: int, index: int, number: int) -> Booking:
        """Line `number` of the leaf at `index`."""
        lines = self.lines[index]
        tree = tree_of([(each.hash, each.amount) for each in lines])
        path = encode_proof(tree.proof(number))
        return epoch, self.place(index), line_tuple(lines[number]), number, path


NOTHING = Epoch(())


@dataclass
class Books:
    """What an honest poster books: `epochs[e]` is epoch e; epoch 0 is empty."""

    epochs: list[Epoch] = field(default_factory=lambda: [NOTHING])
    next_line: int = 1

    def book(self, earned: dict[tuple[bytes, int], Sequence[int]]) -> Epoch:
        """The next epoch, in which each (account, role) earns a line of each amount given. Where a
        fraud made two of it, the first one does."""
        before = self.epochs[-1]
        owners = [(leaf.account, leaf.role) for leaf in before.leaves]
        owners += [owner for owner in earned if owner not in owners]
        leaves, all_lines = [], []
        for index, owner in enumerate(owners):
            amounts = earned.get(owner, ()) if owners.index(owner) == index else ()
            lines = tuple(self._line(amount) for amount in amounts)
            root, credit = receipts_root(lines)
            was = before.leaves[index].cumulative if index < len(before.leaves) else 0
            leaves.append(CreditLeaf(*owner, was + credit, credit, root))
            all_lines.append(lines)
        epoch = Epoch(tuple(leaves), tuple(all_lines))
        self.epochs.append(epoch)
        return epoch

    def _line(self, amount: int) -> CreditLine:
        self.next_line += 1
        return line(self.next_line, amount)


def tree_of(entries: Sequence[tuple[bytes, int]]) -> SumTree:
    return SumTree.build(list(entries))


def entries_of(epoch: Epoch) -> list[tuple[bytes, int]]:
    return [(leaf.hash, leaf.cumulative) for leaf in epoch.leaves]


def bent_tree(entries: Sequence[tuple[bytes, int]], lies: dict[tuple[int, int], int]) -> SumTree:
    """A tree in which the node at (level, index) says the sum `lies` gives, whatever is below."""
    width = 1
    while width < len(entries):
        width *= 2
    level = [*entries, *[(PADDING, 0)] * (width - len(entries))]
    levels = []
    for height in range(width.bit_length()):
        level = [(node, lies.get((height, i), total)) for i, (node, total) in enumerate(level)]
        levels.append(level)
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [(node_hash(left, right), left[1] + right[1]) for left, right in pairs]
    return SumTree(levels, len(entries))


def node_text(left: tuple[bytes, int], right: tuple[bytes, int]) -> bytes:
    """What a node hashes."""
    return b"\x01" + b"".join(node + total.to_bytes(16) for node, total in (left, right))


def node_hash(left: tuple[bytes, int], right: tuple[bytes, int]) -> bytes:
    return sha256(node_text(left, right)).digest()


def line_tuple(booked: CreditLine) -> Line:
    """As the contract takes it."""
    return LINE_KINDS[booked.kind], booked.id, booked.digest, booked.amount


def line_text(booked: CreditLine) -> bytes:
    """What a line's leaf hashes."""
    head = b"\x02" + bytes([LINE_KINDS[booked.kind]]) + booked.id
    return head + booked.digest + booked.amount.to_bytes(16)


def leaf_text(leaf: CreditLeaf) -> bytes:
    amounts = leaf.cumulative.to_bytes(16) + leaf.epoch_credit.to_bytes(16)
    return b"\x00" + leaf.account + bytes([leaf.role]) + amounts + leaf.receipts_root


def leads_home(epoch: Epoch, index: int) -> bool:
    """Whether the leaf's own proof works: bent trees have leaves that nobody can prove."""
    leaf = epoch.leaves[index]
    tree = epoch.tree
    return fold(leaf.hash, leaf.cumulative, index, tree.proof(index)) == (tree.root, tree.total)
