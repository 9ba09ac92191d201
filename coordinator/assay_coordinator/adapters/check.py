"""Checks the books from the tables alone: what an auditor of the coordinator would recompute."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

from assay_coordinator.adapters.credit import PRICED_BEFORE
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.jobs import UNPAID
from assay_coordinator.core.lottery import UNDRAWN, entry_of
from assay_coordinator.core.records import (
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LeavesRow,
    LineRow,
    PostingRow,
    PricingRow,
    RoundRow,
    VoidRow,
)
from assay_coordinator.core.statements import Statements
from assay_protocol.credit_tree import CreditLeaf
from assay_protocol.leaf_file import LeafFile
from assay_protocol.lottery import is_drawn, link_before, round_seed, round_tree


def check_books(url: str) -> list[str]:
    """What is wrong, one line each, named by invariant; empty when all is well."""
    store = Store(url)
    try:
        postings: list[PostingRow] = store.rows(PostingRow)
        findings = _balances(store, postings) + _jobs(store, postings) + _credit(store, postings)
        findings += _voids(store)
        return findings + _epochs(store) + _rounds(store)
    finally:
        store.close()


def _balances(store: Store, postings: list[PostingRow]) -> list[str]:
    sums: Counter[tuple[str, bytes]] = Counter()
    for posting in postings:
        sums[posting.source, posting.source_owner] -= posting.amount
        sums[posting.target, posting.target_owner] += posting.amount
    rows = {(row.purse, row.owner): row.amount for row in store.rows(BalanceRow)}
    wrong = [key for key in set(sums) | set(rows) if sums[key] != rows.get(key, 0)]
    found = [
        f"L1: purse {kind} of {owner.hex()} is not the sum of its postings" for kind, owner in wrong
    ]
    found += [
        f"L1: purse {k} of {o.hex()} is negative"
        for (k, o), n in sums.items()
        if n < 0 and k != "mint"
    ]
    numbers = [posting.seq for posting in postings]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append("L1: postings are not numbered without gaps")
    return found


def _jobs(store: Store, postings: list[PostingRow]) -> list[str]:
    jobs: dict[bytes, JobRow] = {row.ticket: row for row in store.rows(JobRow)}
    charges = Counter(p.ref for p in postings if p.reason == "charge")
    found = [f"L2: ticket {ref.hex()} charged {n} times" for ref, n in charges.items() if n > 1]
    found += [f"L3: charge without ticket {ref.hex()}" for ref in charges if ref not in jobs]
    amounts = {p.ref: p.amount for p in postings if p.reason == "charge"}
    for row in jobs.values():
        if row.charged != amounts.get(row.ticket, 0):
            found.append(f"L3: ticket {row.ticket.hex()} is not charged what its posting says")
        if row.charged and not row.receipt_blob:
            found.append(f"L3: ticket {row.ticket.hex()} charged without a receipt")
    escrow: Counter[bytes] = Counter()
    for row in jobs.values():
        escrow[row.node] += row.charged if row.state in UNPAID else 0
    for balance in store.rows(BalanceRow):
        if balance.purse == "escrow" and balance.amount != escrow[balance.owner]:
            found.append(f"L1: escrow of {balance.owner.hex()} is not what its open jobs hold")
    return found


def _credit(store: Store, postings: list[PostingRow]) -> list[str]:
    earned: Counter[bytes] = Counter()
    for posting in postings:
        if posting.target == "earned":
            earned[posting.target_owner] += posting.amount
    lines: Counter[tuple[bytes, int]] = Counter()
    booked: Counter[bytes] = Counter()
    for line in store.rows(LineRow):
        lines[line.account, line.role] += line.amount
        booked[line.account] += line.amount
    rows: list[CreditRow] = store.rows(CreditRow)
    credit = Counter({(row.account, row.role): row.cumulative for row in rows})
    found = [
        f"L1: credit of {account.hex()} in role {role} is not that of its lines"
        for account, role in {*credit, *lines}
        if credit[account, role] != lines[account, role]
    ]
    found += [
        f"L1: credit of {account.hex()} is not what was paid to it"
        for account in {*booked, *earned}
        if booked[account] != earned[account]
    ]
    if sorted(row.position for row in rows) != list(range(len(rows))):
        found.append("L5: accounts do not each have a place of their own")
    return found


def _voids(store: Store) -> list[str]:
    return [
        f"L5: epoch {row.epoch} and what followed it were voided on the chain"
        for row in store.rows(VoidRow)
        if row.standing
    ]


def _epochs(store: Store) -> list[str]:
    files = {row.epoch: row.data for row in store.rows(LeavesRow)}
    rules = {row.digest for row in store.rows(PricingRow)}
    before: list[CreditLeaf] = []
    found = []
    for number, epoch in enumerate(store.rows(EpochRow), 1):
        if epoch.epoch != number:
            found.append(f"L5: epoch {number} is missing")
            break
        if number not in files:
            found.append(f"L5: the leaves of epoch {number} are missing")
            break
        file = LeafFile(files[number])
        if file.root() != (epoch.root, epoch.total) or file.epoch != number:
            found.append(f"L5: epoch {number} has another root than its leaves")
        if epoch.pricing != PRICED_BEFORE:  # by such rules were no leaf files either
            if file.digest != epoch.data_hash:
                found.append(f"L5: epoch {number} has another leaf file than its hash says")
            if epoch.pricing not in rules:
                found.append(f"L5: the rules that priced epoch {number} are missing")
        leaves = list(file.leaves())
        rows: list[LineRow] = store.rows(LineRow, TABLES[LineRow].c.epoch == number)
        booked = Statements()
        for row in rows:
            booked.add(row.account, row.role, row.kind, row.ref, row.digest, row.amount)
        if not _follow(before, leaves, booked):
            found.append(f"L5: the leaves of epoch {number} are not the credit of its lines")
        before = leaves
    return found


def _follow(before: list[CreditLeaf], leaves: list[CreditLeaf], booked: Statements) -> bool:
    """Whether each leaf is the one before it and what its lines of the epoch add."""
    places = {(leaf.account, leaf.role) for leaf in leaves}
    own = booked.summary()
    whole = len(places) == len(leaves) >= len(before) and own.keys() <= places
    return whole and all(
        (leaf.receipts_root, leaf.epoch_credit) == booked.root(leaf.account, leaf.role)
        and leaf.cumulative - leaf.epoch_credit == (old.cumulative if old else 0)
        and (old is None or (old.account, old.role) == (leaf.account, leaf.role))
        for old, leaf in zip_longest(before, leaves)
    )


def _rounds(store: Store) -> list[str]:
    """V1: each draw is the function of link, block and receipt."""
    entries: dict[int, list[JobRow]] = {}
    for job in store.rows(JobRow):
        entries.setdefault(job.round, []).append(job)
    found: list[str] = []
    link, chain = b"", 0
    for number, row in enumerate(store.rows(RoundRow), 1):
        if row.number != number:
            return [*found, f"V1: round {number} is missing"]
        mine = entries.get(number, [])
        if (round_tree(entry_of(job, UNDRAWN) for job in mine).root, len(mine)) != (
            row.root,
            row.count,
        ):
            found.append(f"V1: round {number} has another root than its receipts")
        if row.state != "drawn":
            continue
        if link and row.chain == chain and link_before(row.link) != link:
            found.append(f"V1: the link of round {number} does not follow")
        link, chain = row.link, row.chain
        found += [
            f"V1: ticket {job.ticket.hex()} was drawn against the lottery"
            for job in mine
            if not _drawn_rightly(row, job)
        ]
    return found


def _drawn_rightly(row: RoundRow, job: JobRow) -> bool:
    entry = entry_of(job, UNDRAWN)
    seed = round_seed(row.link, row.block_hash)
    hit = is_drawn(seed, entry.receipt, entry.numerator, entry.denominator)
    gone = job.state == "refunded" and not job.drawn_at  # with all of its node's, before the draw
    return gone or hit == bool(job.drawn_at)
