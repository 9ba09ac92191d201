"""The leaf file: every leaf of one epoch's account tree, as it is published and hashed.

    magic 16 | epoch 4 | count 4 | count leaves of 97 bytes, in the order of their index

Its sha256 is the header's `dataHash`, so whoever holds the file can build the whole tree again, and
whoever is shown another file knows (protocol/spec/credit.md). The file's length follows from its
count, and a leaf's place in it from its index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from assay_protocol.credit_tree import (
    LEAF_BYTES,
    CreditLeaf,
    Frontier,
    SumTree,
    leaf_hash,
)
from assay_protocol.errors import ProtocolError

MAGIC: Final = b"assay/1/leaves\0\0"
HEAD_BYTES: Final = 24
_CUMULATIVE: Final = slice(33, 49)


def encode_leaves(epoch: int, records: Iterable[bytes]) -> bytes:
    """The file of `records`, each as `CreditLeaf.encode` gives it."""
    body = b"".join(records)
    assert len(body) % LEAF_BYTES == 0
    count = len(body) // LEAF_BYTES
    return MAGIC + epoch.to_bytes(4) + count.to_bytes(4) + body


@dataclass(frozen=True, slots=True)
class LeafFile:
    """A leaf file's bytes, read where they are: nothing is copied until it is asked for.

    Raises ProtocolError("malformed") if they are no leaf file; what the leaves say is unchecked.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) < HEAD_BYTES or self.raw[:16] != MAGIC:
            raise ProtocolError("malformed", "not a leaf file")
        if len(self.raw) != HEAD_BYTES + self.count * LEAF_BYTES:
            raise ProtocolError("malformed", "the leaf file's length is not its count's")

    @property
    def epoch(self) -> int:
        return int.from_bytes(self.raw[16:20])

    @property
    def count(self) -> int:
        return int.from_bytes(self.raw[20:24])

    @property
    def digest(self) -> bytes:
        return sha256(self.raw).digest()

    def record(self, index: int) -> bytes:
        at = HEAD_BYTES + index * LEAF_BYTES
        return self.raw[at : at + LEAF_BYTES]

    def leaf(self, index: int) -> CreditLeaf:
        return CreditLeaf.decode(self.record(index))

    def records(self) -> Iterator[bytes]:
        return (self.record(index) for index in range(self.count))

    def leaves(self) -> Iterator[CreditLeaf]:
        return (CreditLeaf.decode(record) for record in self.records())

    def root(self) -> tuple[bytes, int]:
        """Root and sum of the account tree, without holding it."""
        tree = Frontier()
        for hashed, amount in self._hashed():
            tree.add(hashed, amount)
        return tree.root, tree.total

    def tree(self) -> SumTree:
        """The whole account tree, for proofs."""
        return SumTree.build(list(self._hashed()))

    def _hashed(self) -> Iterator[tuple[bytes, int]]:
        for record in self.records():
            yield leaf_hash(record), int.from_bytes(record[_CUMULATIVE])
