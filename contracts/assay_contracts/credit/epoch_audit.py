"""An epoch checked whole, from its published leaf file: what `assay credit verify` does for one
account, for all of them.

Pure: the header comes from the chain, the files from whoever publishes them. Steps are named; for
each fraud that the ledger's contract takes a proof of, the call that proves it is made ready. What
no leaf shows (a job booked twice, a line tree that does not add up) needs the accounts' bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from typing import Any, Final

from assay_contracts.credit.ledger_abi import Header, PostedEpoch
from assay_contracts.credit.verify import Step
from assay_protocol.credit_tree import (
    PADDING,
    CreditLeaf,
    ProofItem,
    SumTree,
    encode_proof,
    leaf_hash,
)
from assay_protocol.errors import ProtocolError
from assay_protocol.leaf_file import LeafFile

FRAUDS_MAX: Final = 16  # one suffices to void the epoch
MISSING_MAX: Final = 1 << 20  # leaves a file may lack before its tree is not built any more
TOLD_EVERY: Final = 1 << 17
_OWNER: Final = slice(0, 33)
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fraud:
    """What the ledger can be shown: its function, and the arguments as `calls` takes them."""

    function: str
    arguments: tuple[Any, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Before:
    """The epoch before: what the chain holds of it, and its leaf file."""

    posted: PostedEpoch
    raw: bytes


@dataclass(frozen=True, slots=True)
class EpochAudit:
    """All steps in order, and the frauds found, which are not all if there are many."""

    ok: bool
    steps: tuple[Step, ...]
    frauds: tuple[Fraud, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps if not step.ok)


def audit_epoch(
    epoch: int,
    header: Header,
    raw: bytes,
    before: Before | None,
    pricing: bytes | None = None,
    tell: Tell = lambda text: None,
) -> EpochAudit:
    """Check the leaf file `raw` of `epoch` against its header and the epoch before.

    `before` is None in epoch 1 only; `pricing` is the encoded rules, if they are at hand. `tell`
    hears of progress.
    """
    steps = [Step("data hash", sha256(raw).digest() == header.data_hash, f"{len(raw)} bytes")]
    if pricing is not None:
        known = sha256(pricing).digest() == header.policy
        steps.append(Step("pricing", known, f"the rules' digest is {header.policy.hex()[:16]}"))
    try:
        file = LeafFile(raw)
        old = None if before is None else LeafFile(before.raw)
    except ProtocolError as error:
        return EpochAudit(False, (*steps, Step("leaf file", False, str(error))), ())
    right = file.epoch == epoch and (old is None or old.epoch == epoch - 1)
    steps.append(Step("leaf file", right, f"{file.count} leaves of epoch {file.epoch}"))
    checks = _Checks(epoch, header, file, old, tell)
    steps += checks.tree()
    if before is not None and old is not None:
        steps.append(_is_posted(old, before.posted))
    steps += checks.leaves()
    return EpochAudit(all(step.ok for step in steps), tuple(steps), checks.frauds())


class _Checks:
    """One audit under way."""

    def __init__(
        self, epoch: int, header: Header, file: LeafFile, old: LeafFile | None, tell: Tell
    ) -> None:
        self._epoch, self._header, self._file, self._old = epoch, header, file, old
        self._tell = tell
        self._now: SumTree | None = None  # the tree, if it is the posted one
        self._moved: list[int] = []  # places with another owner than before
        self._stepped: list[int] = []  # places whose sum does not follow
        self._twice: list[tuple[int, int]] = []

    def tree(self) -> Iterator[Step]:
        header, file = self._header, self._file
        self._tell(f"hashing {file.count} leaves")
        hashed = [(leaf_hash(r), int.from_bytes(r[33:49])) for r in file.records()]
        missing = header.leaves - file.count
        if 0 < missing <= MISSING_MAX:  # if they are padding, the root still comes out
            hashed += [(PADDING, 0)] * missing
        try:
            made = SumTree.build(hashed)
        except ProtocolError as error:
            yield Step("root", False, str(error))
            return
        ok = (made.root, made.total) == (header.root, header.total_cum)
        self._now = made if ok else None
        yield Step("root", ok, f"the file's tree has root {made.root.hex()[:16]}")
        same = file.count == header.leaves
        yield Step("leaves", same, f"{file.count} in the file, {header.leaves} posted")
        yield Step("total", made.total == header.total_cum, f"{made.total} micro-credits")

    def leaves(self) -> Iterator[Step]:
        places: dict[bytes, int] = {}
        old = () if self._old is None else self._old.records()
        lowered = self._old is not None and self._file.count < self._old.count
        for index, (record, was) in enumerate(zip_longest(self._file.records(), old)):
            if record is None:
                break
            if index % TOLD_EVERY == 0 and index:
                self._tell(f"{index} leaves checked")
            first = places.setdefault(record[_OWNER], index)
            if first != index:
                self._twice.append((first, index))
            cumulative, credit = _amounts(record)
            if was is not None and was[_OWNER] != record[_OWNER]:
                self._moved.append(index)
            elif (_amounts(was)[0] if was is not None else 0) + credit != cumulative:
                self._stepped.append(index)
        yield Step("places", not (self._moved or lowered), _told(self._moved, "with another owner"))
        yield Step("step", not self._stepped, _told(self._stepped, "that do not follow"))
        yield Step("no role twice", not self._twice, _told(self._twice, "in two places"))

    def frauds(self) -> tuple[Fraud, ...]:
        """What can be proven: only against the posted root."""
        if self._now is None:
            return ()
        found: list[Fraud] = []
        for made in (self._omission(), self._beyond(), self._steps(), self._duplicates()):
            for fraud in made:
                found.append(fraud)
                if len(found) == FRAUDS_MAX:
                    return tuple(found)
        return tuple(found)

    def _omission(self) -> Iterator[Fraud]:
        index = self._file.count
        if index < self._header.leaves:
            proof = encode_proof(self._proof(index))
            detail = f"place {index} of {self._header.leaves} is padding"
            yield Fraud("challengeOmission", (self._epoch, index, proof), detail)

    def _beyond(self) -> Iterator[Fraud]:
        leaves = self._header.leaves
        over = range(leaves, self._file.count)
        if leaves and any(_amounts(self._file.record(index))[0] for index in over):
            record = self._file.record(leaves - 1)
            arguments = (
                leaf_hash(record),
                _amounts(record)[0],
                encode_proof(self._proof(leaves - 1)),
            )
            detail = f"{len(over)} leaves beyond the {leaves} posted"
            yield Fraud("challengeBeyond", (self._epoch, *arguments), detail)

    def _steps(self) -> Iterator[Fraud]:
        wrong = [(index, "is another account's") for index in self._moved]
        wrong += [(index, "does not follow from the epoch before") for index in self._stepped]
        before = None if self._old is None or not self._moved + self._stepped else self._old.tree()
        for index, what in wrong[:FRAUDS_MAX]:
            now = self._place(self._file.leaf(index), index, self._proof(index))
            was = now  # there is none: the contract does not look at it
            if before is not None and self._old is not None and index < self._old.count:
                was = self._place(self._old.leaf(index), index, before.proof(index))
            yield Fraud("challengeStep", (self._epoch, was, now), f"place {index} {what}")

    def _duplicates(self) -> Iterator[Fraud]:
        old = 0 if self._old is None else self._old.count
        for first, second in self._twice[:FRAUDS_MAX]:
            if second < old:
                continue  # the fraud of an earlier epoch, which voids this one, too
            places = [
                self._place(self._file.leaf(index), index, self._proof(index))
                for index in (first, second)
            ]
            detail = f"places {first} and {second} are one account's in one role"
            yield Fraud("challengeDuplicate", (self._epoch, *places), detail)

    def _proof(self, index: int) -> tuple[ProofItem, ...]:
        assert self._now is not None
        return self._now.proof(index)

    def _place(self, leaf: CreditLeaf, index: int, proof: Sequence[ProofItem]) -> tuple[Any, ...]:
        """The contracts' struct Place."""
        fields = (leaf.account, leaf.role, leaf.cumulative, leaf.epoch_credit, leaf.receipts_root)
        return fields, index, encode_proof(proof)


def _is_posted(file: LeafFile, posted: PostedEpoch) -> Step:
    """A fraud is one only against what the chain holds of the epoch before."""
    root, total = file.root()
    ok = (root, total, file.count) == (posted.root, posted.total_cum, posted.leaves)
    return Step("epoch before", ok, f"{file.count} leaves, root {root.hex()[:16]}")


def _amounts(record: bytes) -> tuple[int, int]:
    """`cumulative` and `epoch_credit`."""
    return int.from_bytes(record[33:49]), int.from_bytes(record[49:65])


def _told(found: Sequence[object], what: str) -> str:
    return f"{len(found)} {what}" + (f", the first {found[0]}" if found else "")
