"""What must hold of a coordinator after every event, checked from its tables and its memory.

The ids are those of docs/INVARIANTS.md. Tables and memory are summed up apart, so a change that
reaches one of them only is seen at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.evidence import ALARM
from assay_coordinator.core.jobs import OPEN, UNPAID
from assay_coordinator.core.lottery import UNDRAWN, entry_of
from assay_coordinator.core.records import (
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LeavesRow,
    LineRow,
    NodeRow,
    PostingRow,
    PricingRow,
    RoundRow,
    VerdictRow,
)
from assay_coordinator.core.standing import CLOSED
from assay_protocol.codec import decode_as
from assay_protocol.credit_tree import CreditLeaf, CreditLine, account_tree, receipts_root
from assay_protocol.leaf_file import LeafFile
from assay_protocol.lottery import is_drawn, link_before, round_seed, round_tree
from assay_protocol.messages import Pricing
from assay_protocol.splits import COMPUTE, Splits
from coordinator.core.coordinator_world import START, World


def check_all(world: World) -> None:
    check_money(world)
    check_charges(world)
    check_deadlines(world)
    check_held(world)
    check_root(world)
    check_bounds(world)
    check_verdicts(world)


def check_money(world: World) -> None:
    """L1: balances are what was posted, in memory and in the tables; credit is what was earned."""
    ledger = world.coordinator.ledger
    ledger.check()
    sums: Counter[tuple[str, bytes]] = Counter()
    earned: Counter[bytes] = Counter()
    postings = world.store.rows(PostingRow)
    for p in postings:
        assert p.amount > 0
        sums[p.source, p.source_owner] -= p.amount
        sums[p.target, p.target_owner] += p.amount
        if p.target == "earned":
            earned[p.target_owner] += p.amount
    assert sorted(p.seq for p in postings) == list(range(1, len(postings) + 1))
    rows = {(b.purse, b.owner): b.amount for b in world.store.rows(BalanceRow)}
    assert rows == {tuple(purse): amount for purse, amount in ledger.balances.items()}
    assert all(sums[key] == rows.get(key, 0) for key in {*sums, *rows})
    credit = {(c.account, c.role): c.cumulative for c in world.store.rows(CreditRow)}
    lines: Counter[tuple[bytes, int]] = Counter()
    booked: Counter[bytes] = Counter()
    for line in world.store.rows(LineRow):
        lines[line.account, line.role] += line.amount
        booked[line.account] += line.amount
    assert credit == dict(lines), "each role's credit is that of its lines"
    assert booked == earned
    check_escrow(world)


def check_escrow(world: World) -> None:
    """A purse that holds money for jobs holds exactly those jobs' money."""
    escrow: Counter[bytes] = Counter()
    reserved: Counter[bytes] = Counter()
    for job in world.store.rows(JobRow):
        if job.state in UNPAID:
            escrow[job.node] += job.charged
        elif job.state == "issued":
            reserved[job.client] += job.reserved
    for purse, amount in world.coordinator.ledger.balances.items():
        if purse.kind == "escrow":
            assert amount == escrow[purse.owner]
        elif purse.kind == "reserved":
            assert amount == reserved[purse.owner]


def check_charges(world: World) -> None:
    """L2: at most one charge a ticket. L3: every charge has a ticket that was issued."""
    by_ticket: defaultdict[bytes, Counter[str]] = defaultdict(Counter)
    for p in world.store.rows(PostingRow):
        if p.reason in ("charge", "pay", "refund", "fee", "expire", "reserve"):
            by_ticket[p.ref][p.reason] += 1
    for ticket, reasons in by_ticket.items():
        assert max(reasons.values()) == 1, reasons
        assert ticket in world.issued, "L3: money moved for a ticket nobody was given"
        assert not (reasons["pay"] and reasons["refund"])
        assert not reasons["pay"] or reasons["charge"]


def check_deadlines(world: World) -> None:
    """L4 and P1, given that a tick has just happened or time has not passed since the last one."""
    now, policy = world.now, world.policy
    for case in world.coordinator.audits.cases.values():
        assert case.deadline_at <= now + max(policy.audit_case_us, policy.inquiry_us)
    for job in world.coordinator.jobs.jobs.values():
        assert job.deadline_at <= now + policy.ticket_lifetime_us + policy.receipt_grace_us
        if job.state == "drawn":
            assert job.ticket.ticket in world.coordinator.audits.cases, "L4: nobody decides it"


def check_held(world: World) -> None:
    """No undrawn pay is out before its time, whatever was earned since, and only recent pay of jobs
    that may be audited speaks for its node."""
    now, policy = world.now, world.policy
    epochs = {line.ref: line.epoch for line in world.store.rows(LineRow) if line.kind == "job"}
    paid = {p.ref: p.at for p in world.store.rows(PostingRow) if p.reason == "pay"}
    recent: Counter[bytes] = Counter()
    for job in world.store.rows(JobRow):
        if job.state == "released" and job.verdict == UNDRAWN and job.ticket in paid:
            aged = paid[job.ticket] - job.booked_at >= policy.holdback_us
            assert aged or job.held_epoch + policy.holdback_epochs <= epochs[job.ticket]
        if (
            job.state in UNPAID
            and job.verify != "none"
            and now - job.booked_at < policy.vouching_us
        ):
            recent[job.node] += job.charged
    known = world.coordinator.jobs._recent
    assert {key: one.value(now, policy.vouching_us) for key, one in known.items()} == {
        key: recent[key] for key in known
    }
    assert set(+recent) <= set(known)
    assert set(known) <= set(world.coordinator.jobs._unpaid)


def check_root(world: World) -> None:
    """L5: the last root is of the leaves in the tables, and they of the lines and lifetimes."""
    epochs = sorted(world.store.rows(EpochRow), key=lambda row: row.epoch)
    assert [row.epoch for row in epochs] == list(range(1, len(epochs) + 1))
    if not epochs:
        return
    last = epochs[-1]
    cumulative: Counter[tuple[bytes, int]] = Counter()
    lines: defaultdict[tuple[bytes, int], list[CreditLine]] = defaultdict(list)
    for line in world.store.rows(LineRow):
        if line.epoch <= last.epoch:
            cumulative[line.account, line.role] += line.amount
    for line in world.store.lines(last.epoch):
        booked = CreditLine(line.kind, line.ref, line.digest, line.amount)
        lines[line.account, line.role].append(booked)
    files = {row.epoch: LeafFile(row.data) for row in world.store.rows(LeavesRow)}
    leaves = list(files[last.epoch].leaves())
    made = []
    for leaf in leaves:
        owner = leaf.account, leaf.role
        root, total = receipts_root(lines[owner])
        made.append(CreditLeaf(*owner, cumulative[owner], total, root))
    assert {(leaf.account, leaf.role) for leaf in leaves} == set(cumulative)
    assert leaves == made
    tree = account_tree(made)
    assert (tree.root, tree.total) == (last.root, last.total)
    assert files[last.epoch].digest == last.data_hash
    for older, newer in pairwise(epochs):
        places = [[leaf.encode()[:33] for leaf in files[e.epoch].leaves()] for e in (older, newer)]
        assert places[1][: len(places[0])] == places[0], "a leaf keeps its place"
    check_prices(world, epochs)


def check_prices(world: World, epochs: list[EpochRow]) -> None:
    """Every epoch was priced by the rules its row names, and every released job by them exactly."""
    rules = {row.epoch: row for row in world.store.rows(PricingRow)}
    parts: defaultdict[bytes, Counter[tuple[bytes, int]]] = defaultdict(Counter)
    priced_in: dict[bytes, int] = {}
    for line in world.store.rows(LineRow):
        if line.kind == "job":
            parts[line.ref][line.account, line.role] += line.amount
            priced_in[line.ref] = line.epoch
    for epoch in epochs:
        newest = max(start for start in rules if start <= epoch.epoch)
        assert rules[newest].digest == epoch.pricing
    for job in world.store.rows(JobRow):
        if job.state == "released" and job.ticket in priced_in:
            start = max(start for start in rules if start <= priced_in[job.ticket])
            split = Splits(decode_as(Pricing, rules[start].data)).divide(job.model, job.charged)
            wanted = Counter({(job.node, COMPUTE): split.node})
            for part in split.others:
                wanted[part.account, part.role] += part.amount
            assert parts[job.ticket] == +wanted


def check_verdicts(world: World) -> None:
    """Who was drawn has a case or a record of how it ended, and a convicted node has no escrow."""
    recorded = {row.ticket for row in world.store.rows(VerdictRow)}
    decided = {"passed", "failed", "unequal", "withheld", "unproven", "unaudited"}
    for job in world.store.rows(JobRow):
        assert (job.ticket in recorded) >= (job.verdict in decided)
    for one in world.coordinator.registry.nodes.values():
        if one.row.state == "convicted":
            assert not world.coordinator.jobs.unpaid(one.key)
        if one.row.state == "inquiry":
            assert world.coordinator.audits.of(one.key), "an inquiry waits for something"


def check_bounds(world: World) -> None:
    """B1: every map is explained by open jobs and cases."""
    jobs, audits, registry = (
        world.coordinator.jobs,
        world.coordinator.audits,
        world.coordinator.registry,
    )
    drawn = {key for key, job in jobs.jobs.items() if job.state == "drawn"}
    assert set(audits.cases) == drawn
    running = {c.replay.audit for c in audits.cases.values() if c.replay is not None}
    assert set(audits._by_audit) == running
    waiting = {key for key, c in audits.cases.items() if c.replay is None}
    assert waiting <= {*audits._waiting, *(ticket for _, ticket in audits._later)}
    assert len(audits._waiting) + len(audits._later) <= 2 * len(jobs.jobs) + 2
    at_work = Counter(c.replay.auditor for c in audits.cases.values() if c.replay is not None)
    for key, one in registry.nodes.items():
        assert one.auditing == at_work[key] <= world.policy.audits_per_node
    held = {key: job for key, job in jobs.jobs.items() if job.state == "held"}
    queued = [ticket for queue in jobs._held.values() for ticket in queue]
    assert sorted(queued) == sorted(held)
    unpaid = {ticket for tickets in jobs._unpaid.values() for ticket in tickets}
    pending = {key for key, job in jobs.jobs.items() if job.state == "pending"}
    assert unpaid == drawn | set(held) | pending
    check_rounds(world, pending)
    for queue in jobs._held.values():
        held_value = sum(jobs.jobs[ticket].charged for ticket in queue)
        assert held_value == queue._value
    issued = Counter(job.ticket.client for job in jobs.jobs.values() if job.state == "issued")
    assert jobs._open == dict(issued)
    assert len(jobs._deadlines) <= 3 * len(jobs.jobs) + 3


def check_rounds(world: World, pending: set[bytes]) -> None:
    """V1: draws are what links, blocks and receipts say; each receipt is in one round."""
    lottery, drawn_links = world.coordinator.lottery, dict[int, tuple[int, bytes]]()
    waiting = [entry for _, entries in lottery._closed.values() for entry in entries]
    assert pending <= {entry.ticket for entry in [*waiting, *lottery._entries]}
    entries: defaultdict[int, list[JobRow]] = defaultdict(list)
    for job in world.store.rows(JobRow):
        assert bool(job.round) == bool(job.booked_at), "a booked receipt is in a round"
        entries[job.round].append(job)
    rounds = world.store.rows(RoundRow)
    assert sorted(row.number for row in rounds) == list(range(1, lottery.running))
    for row in rounds:
        tree = round_tree(entry_of(job, UNDRAWN) for job in entries[row.number])
        assert (tree.root, tree.total) == (row.root, row.count)
        if row.state != "drawn":
            assert not row.link, "a link is told only when its round is drawn"
            continue
        drawn_links[row.number] = row.chain, row.link
        seed = round_seed(row.link, row.block_hash)
        for job in entries[row.number]:
            entry = entry_of(job, UNDRAWN)
            hit = is_drawn(seed, entry.receipt, entry.numerator, entry.denominator)
            assert hit == bool(job.drawn_at) or job.state == "refunded"
    for number, (chain, link) in drawn_links.items():
        before = drawn_links.get(number - 1)
        assert before is None or before[0] != chain or link_before(link) == before[1]


def check_honest(world: World) -> None:
    """S2: no honest node is under inquiry, suspended or convicted, or near it."""
    for row in world.store.rows(NodeRow):
        node = world.nodes[row.node]
        if not (node.wrong or node.lies or node.copies or node.spites):
            assert row.state not in CLOSED
            assert row.evidence < ALARM
            assert not row.disproved


def fingerprint(coordinator: Coordinator, now: int) -> dict[str, Any]:
    """What a restart must not change (D1)."""
    jobs = {
        key: (j.state, j.charged, j.reserved, j.receipt_blob, j.verdict, j.held_epoch)
        for key, j in coordinator.jobs.jobs.items()
        if j.state in OPEN or j.deadline_at > now
    }
    held = {key: set(queue) for key, queue in coordinator.jobs._held.items() if queue}
    return {
        "balances": coordinator.ledger.balances,
        "credit": coordinator.ledger.credit,
        "next_seq": coordinator.ledger.next_seq,
        "standing": {key: one.row for key, one in coordinator.registry.nodes.items()},
        "jobs": jobs,
        "held": held,
        "open": coordinator.jobs._open,
        "booked": coordinator.jobs.booked,
        "epoch": (coordinator.epochs.running, coordinator.epochs.last),
        "statements": coordinator.epochs.statements.summary(),
        "released": coordinator.epochs.statements.jobs,
        "rules": (coordinator.epochs.splits, coordinator.epochs._next),
        "unposted": coordinator.epochs._unposted,
        "cases": set(coordinator.audits.cases),
        "audits": coordinator.audits.finished,
        "running round": coordinator.lottery.running,
        "entries": {entry.receipt for entry in coordinator.lottery._entries},
        "undrawn": {n: len(entries) for n, (_, entries) in coordinator.lottery._closed.items()},
    }


def check_restart(world: World) -> None:
    """D1: what the tables give is what was running."""
    before = fingerprint(world.coordinator, world.now)
    world.crash()
    after = fingerprint(world.coordinator, world.now)
    for name, value in before.items():
        assert after[name] == value, name


def check_all_ended(world: World) -> None:
    """P1 and L4: long after the last event nothing is open and nothing is kept."""
    assert world.now > START
    assert {job.state for job in world.store.rows(JobRow)} <= {"released", "refunded", "expired"}
    coordinator = world.coordinator
    assert not coordinator.audits.cases
    assert not coordinator.audits._by_audit
    assert not coordinator.audits._waiting
    assert not coordinator.audits._later
    assert not coordinator.jobs.jobs
    assert not coordinator.jobs._deadlines
    assert not coordinator.jobs._open
