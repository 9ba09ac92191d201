"""Epochs: every account's statement, and the tree whose root goes on the chain.

A line is written when credit is earned, into the running epoch, and joins its account's tree of
lines there and then. Closing makes the leaf file of all accounts over lifetime credit (L5: the root
is of exactly the ledger's credit, asserted against it) and asks for its root to be posted. Accounts
keep their index for life, so a leaf's place cannot be moved. Prices and shares are fixed within an
epoch: what is decided meanwhile begins with the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256

from assay_coordinator.core.events import Effect, PostEpoch, Save
from assay_coordinator.core.ledger import TREASURY, Ledger, Purse
from assay_coordinator.core.records import EpochRow, LeavesRow, LineRow, PricingRow
from assay_coordinator.core.statements import Statements
from assay_protocol import splits
from assay_protocol.codec import decode_as, encode
from assay_protocol.credit_tree import CreditLeaf, Frontier, leaf_hash
from assay_protocol.leaf_file import encode_leaves
from assay_protocol.messages import EpochClosed, ModelSplit, Pricing

_REASONS = {splits.COMPUTE: "pay", splits.AUDITOR: "audit", splits.TREASURY: "sweep"}


@dataclass(frozen=True, slots=True)
class Earning:
    """Why credit is earned: a line's kind, job or audit id (16 bytes) and digest (32)."""

    kind: str
    ref: bytes
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEpochs:
    """What the tables hold of epochs; `pricings` oldest first, from the running epoch's on."""

    last: EpochRow | None = None
    unposted: list[EpochRow] = field(default_factory=list)
    statements: Statements = field(default_factory=Statements)  # of the running epoch
    pricings: list[PricingRow] = field(default_factory=list)


class Epochs:
    """The running epoch and the last one closed."""

    def __init__(self, ledger: Ledger, fee_bps: int = 0) -> None:
        self._ledger, self._fee_bps = ledger, fee_bps
        self.running = 1
        self.opened_at = 0
        self.last: EpochRow | None = None
        self.statements = Statements()
        self.splits = splits.no_splits(fee_bps)
        self._unposted: dict[int, EpochRow] = {}
        self._next: splits.Splits | None = None  # decided, in force from the next epoch on
        self._written = False  # whether the rules in force are in the tables

    def restore(self, stored: StoredEpochs, now: int) -> None:
        """Become what the tables say."""
        last = stored.last
        self._unposted = {row.epoch: row for row in stored.unposted}
        self.last, self.running = last, last.epoch + 1 if last else 1
        self.opened_at = last.closed_at if last else now
        self.statements = stored.statements
        for row in stored.pricings:
            rules = splits.Splits(decode_as(Pricing, row.data))
            if row.epoch <= self.running:
                self.splits, self._written = rules, True
            else:
                self._next = rules

    # ---- within an epoch ----

    def earn(
        self, now: int, source: Purse, account: bytes, role: int, why: Earning, amount: int
    ) -> list[Effect]:
        """Credit an account in a role, and write the line of the running epoch that says why; of
        nothing no line is written."""
        if amount == 0:
            return []
        reason = _REASONS.get(role, "share")
        effects = self._ledger.earn(now, source, account, role, amount, reason, why.ref)
        position = self.statements.add(account, role, why.kind, why.ref, why.digest, amount)
        line = LineRow(self.running, account, role, position, why.kind, why.ref, why.digest, amount)
        return [*effects, *self._write_rules(), Save(line)]

    def decide(self, shares: tuple[ModelSplit, ...]) -> list[Effect]:
        """Stage who shares in jobs from the next epoch on; the same again changes nothing.
        Raises ProtocolError("malformed") if the shares contradict themselves."""
        ordered = tuple(sorted(shares, key=lambda one: one.model))
        wanted = splits.Splits(Pricing(fee_bps=self._fee_bps, splits=ordered))
        if wanted == (self._next or self.splits):
            return []
        self._next = wanted
        return [*self._write_rules(), Save(_pricing_row(self.running + 1, wanted))]

    # ---- its end ----

    def close(
        self, now: int, treasury: bytes = b"", reserve: int = 0
    ) -> tuple[EpochClosed, list[Effect]]:
        """Close the running epoch and open the next. An epoch without any credit still closes. What
        the treasury holds above `reserve` is first credited to the account `treasury`, if any."""
        effects = self._sweep(now, treasury, reserve)
        tree, records = Frontier(), []
        for leaf in self._leaves():
            record = leaf.encode()
            records.append(record)
            tree.add(leaf_hash(record), leaf.cumulative)
        total = sum(row.cumulative for row in self._ledger.credit.values())
        assert tree.total == total, "L5: the tree's sum is not the ledger's credit"
        data = encode_leaves(self.running, records)
        closed = EpochRow(
            epoch=self.running,
            closed_at=now,
            root=tree.root,
            total=total,
            jobs=self.statements.jobs,
            leaves=len(records),
            data_hash=sha256(data).digest(),
            pricing=self.splits.digest,
            state="queued",
        )
        effects += [*self._write_rules(), Save(closed), Save(LeavesRow(closed.epoch, data))]
        self._unposted[closed.epoch] = closed
        effects += self._open(now, closed)
        answer = EpochClosed(
            epoch=closed.epoch, root=closed.root, total=total, accounts=len(records)
        )
        return answer, [*effects, post(closed)]

    def posted(self, epoch: int) -> list[Effect]:
        """The chain holds it; told twice is told once."""
        row = self._unposted.pop(epoch, None)
        if row is None:
            return []
        row = replace(row, state="posted")
        if self.last is not None and self.last.epoch == epoch:
            self.last = row
        return [Save(row)]

    # ---- inside ----

    def _open(self, now: int, closed: EpochRow) -> list[Effect]:
        """The next epoch; the operator's fee and what was decided meanwhile begin to hold."""
        self.last, self.running, self.opened_at = closed, self.running + 1, now
        self.statements = Statements()
        shares = (self._next or self.splits).pricing.splits
        rules = splits.Splits(Pricing(fee_bps=self._fee_bps, splits=shares))
        changed = rules != self.splits or self._next is not None
        self.splits, self._next = rules, None
        return [Save(_pricing_row(self.running, rules))] if changed else []

    def _write_rules(self) -> list[Effect]:
        """Before the first thing they price: a restart must not price the epoch by others."""
        if self._written:
            return []
        self._written = True
        return [Save(_pricing_row(self.running, self.splits))]

    def _sweep(self, now: int, treasury: bytes, reserve: int) -> list[Effect]:
        above = self._ledger.balance("treasury") - reserve
        if not treasury or above <= 0:
            return []
        why = Earning("sweep", self.running.to_bytes(16), self.splits.digest)
        return self.earn(now, TREASURY, treasury, splits.TREASURY, why, above)

    def _leaves(self) -> Iterator[CreditLeaf]:
        for position, row in enumerate(self._ledger.credit.values()):
            assert row.position == position, "L5: a leaf keeps its place"
            root, total = self.statements.root(row.account, row.role)
            yield CreditLeaf(row.account, row.role, row.cumulative, total, root)


def post(row: EpochRow) -> PostEpoch:
    """The request to put a closed epoch on the chain."""
    return PostEpoch(
        row.epoch, row.root, row.total, row.jobs, row.leaves, row.data_hash, row.pricing
    )


def _pricing_row(epoch: int, rules: splits.Splits) -> PricingRow:
    return PricingRow(epoch, rules.digest, encode(rules.pricing))
