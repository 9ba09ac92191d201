"""What must always hold of a simulated network, watched from outside (docs/INVARIANTS.md).

The checks read the rows the coordinator saves, the messages that pass and what nodes and clients
do; of the cores they read only what is public. They add up for themselves, so a core that is wrong
alike in its memory and in its rows is seen all the same.

    always       L1 L2 L3 L5 S1 S2 S3 V1 B1     with the row or message, or every `checks.every`
    eventually   L4                             within the policy's own deadlines
    at the end   L1 L5 L6 P1, and D1 after each crash
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any, Final

from assay.events import Outcome
from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.jobs import OPEN, Job
from assay_coordinator.core.lottery import UNDRAWN, entry_of
from assay_coordinator.core.records import (
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LeavesRow,
    NodeRow,
    PostingRow,
    RoundRow,
)
from assay_protocol import messages as m
from assay_protocol.codec import encode
from assay_protocol.credit_tree import CreditLeaf, SumTree, account_tree, fold
from assay_protocol.hashing import job_seed, pack_tokens
from assay_protocol.leaf_file import LeafFile
from assay_protocol.lottery import is_drawn, link_before, round_seed, round_tree
from assay_protocol.signing import peek
from assay_simnet.evidence import answer_tokens
from assay_simnet.seen import Seen
from assay_simnet.setting import CANARY

_REASONS: Final = ("reserve", "charge", "pay", "refund", "fee", "expire")
_BIT: Final = {reason: 1 << place for place, reason in enumerate(_REASONS)}
_ISSUED: Final = 1 << len(_REASONS)
_BEGAN: Final = _ISSUED << 1
_BOOKED: Final = _BEGAN << 1
_CANARY: Final = pack_tokens(CANARY)
_SLACK_US: Final = 60_000_000  # a verdict after its deadline waits for the next tick, and a restart
_SAMPLE: Final = 16  # one client's message in so many is searched for a prompt
_PROOFS: Final = 16  # leaves that are proven at the end


class Violated(Exception):
    """An invariant does not hold. `ident`: its id; `parties`: numbers of those involved."""

    def __init__(self, ident: str, why: str, parties: tuple[int, ...] = ()) -> None:
        super().__init__(f"{ident}: {why}")
        self.ident, self.why, self.parties = ident, why, parties


@dataclass(frozen=True)
class _Snapshot:
    """What a restart must not change."""

    balances: dict[Any, int]
    credit: dict[Any, Any]
    standing: dict[bytes, Any]
    jobs: dict[bytes, Any]
    epoch: int


class Checks:
    """All checkers of one run. Raises Violated where something does not hold."""

    def __init__(self, world: Seen) -> None:
        self._world = world
        self._of = frozenset(world.scenario.checks.of)
        self._tickets: dict[bytes, int] = {}  # what happened to each: bits
        self._sums: Counter[tuple[str, bytes]] = Counter()
        self._earned: Counter[bytes] = Counter()
        self._roles: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
        self._epoch: EpochRow | None = None  # closed, its leaves not added up yet
        self._leaves: list[CreditLeaf] = []
        self._tree: SumTree | None = None
        self._entries: defaultdict[int, dict[bytes, Any]] = defaultdict(dict)  # rounds not drawn
        self._rounds: list[RoundRow] = []  # drawn, not drawn again by us yet
        self._link: tuple[int, int, bytes] | None = None
        self._drawn: dict[bytes, int] = {}  # since when a verdict is awaited
        self._before: _Snapshot | None = None
        self._asked = 0
        self.frauds: Counter[str] = Counter()  # cheated answers by what became of them
        self._frauds: set[bytes] = set()

    # ---- rows ----

    def saved(self, row: object) -> None:
        match row:
            case PostingRow():
                self._posting(row)
            case BalanceRow():
                purse = (row.purse, row.owner)
                self._hold("L1", self._sums[purse] == row.amount, f"{row.purse} of its postings")
                self._hold("L1", row.amount >= 0 or row.purse == "mint", "a purse is negative")
            case CreditRow():
                self._credited(row)
            case JobRow():
                self._job(row)
            case NodeRow():
                self._standing(row)
            case EpochRow() if row.state == "queued":
                self._epoch, self._leaves = row, []
            case LeavesRow() if self._epoch is not None:
                self._leaves = list(LeafFile(row.data).leaves())
                self._root()
            case RoundRow() if row.state == "drawn":
                self._rounds.append(row)

    def _posting(self, row: PostingRow) -> None:
        self._hold("L1", row.amount > 0, "a transfer of nothing or less")
        self._sums[row.source, row.source_owner] -= row.amount
        self._sums[row.target, row.target_owner] += row.amount
        if row.target == "earned":
            self._earned[row.target_owner] += row.amount
        bit = _BIT.get(row.reason)
        if bit is None:
            return
        before = self._tickets.get(row.ref, 0)
        after = self._tickets[row.ref] = before | bit
        self._hold("L2", not before & bit, f"two postings '{row.reason}' of one ticket")
        both = _BIT["pay"] | _BIT["refund"]
        self._hold("L2", after & both != both, "one ticket was paid and refunded")
        if row.reason != "reserve":
            self._hold("L3", bool(before & _BIT["reserve"]), "money moved for no ticket")
        if row.reason == "charge":
            self._hold("L3", bool(before & _ISSUED), "a charge for a ticket nobody was given")
        if row.reason == "pay":
            self._hold("L3", bool(before & _BIT["charge"]), "pay without a charge")

    def _credited(self, row: CreditRow) -> None:
        self._roles[row.account][row.role] = row.cumulative
        same = self._roles[row.account].total() == self._earned[row.account]
        self._hold("L1", same, "lifetime credit is not what was earned", row.account)

    def _job(self, row: JobRow) -> None:
        now = self._world.now
        if row.state == "drawn":
            self._drawn.setdefault(row.ticket, now)
        else:
            self._drawn.pop(row.ticket, None)
        if row.receipt_blob:
            self._tickets[row.ticket] = self._tickets.get(row.ticket, 0) | _BOOKED
        if row.booked_at and (row.state in OPEN or row.ticket in self._entries[row.round]):
            self._entries[row.round][row.ticket] = row
        if row.ticket in self._frauds and row.state in ("released", "refunded", "expired"):
            self._frauds.discard(row.ticket)
            self.frauds[row.state] += 1

    def _standing(self, row: NodeRow) -> None:
        node = self._world.by_key[row.node]
        if node.cheat is not None:
            return
        key = row.node
        self._hold("S2", row.state != "convicted", "an honest node was convicted", key)
        barred = row.outvoted >= self._world.scenario.policy.outvoted_max
        self._hold("S2", not barred, "an honest auditor was barred", key)

    def _root(self) -> None:
        """L5: the root is of the leaves, and those of the ledger's credit."""
        row, self._epoch = self._epoch, None
        assert row is not None
        leaves = self._leaves
        tree = self._tree = account_tree(leaves)
        self._hold("L5", len(leaves) == row.leaves, "leaves are missing")
        self._hold("L5", tree.root == row.root, "the root is not of the leaves")
        self._hold("L5", tree.total == row.total == sum(self._earned.values()), "total of the root")
        for leaf in leaves:
            same = leaf.cumulative == self._roles[leaf.account][leaf.role]
            self._hold("L5", same, "a leaf is not its account's credit", leaf.account)

    # ---- messages ----

    def heard(self, body: bytes, party: int) -> None:
        """S3: what a node sends to the coordinator."""
        self._hold("S3", _CANARY not in body, "a prompt reached the coordinator", party)

    def heard_client(self, message: object, party: int) -> None:
        self._asked += 1
        if self._asked % _SAMPLE == 0:
            self.heard(encode(message), party)

    def forged(self, effects: list[Effect], party: int) -> None:
        """S1: a damaged receipt changed nothing."""
        changed = any(isinstance(effect, Save) for effect in effects)
        self._hold("S1", not changed, "a damaged receipt changed a row", party)

    def replied(self, message: object) -> None:
        """What the coordinator promises with an answer."""
        if isinstance(message, m.TicketGrant):
            ticket = peek(m.Ticket, message.ticket).ticket
            before = self._tickets.get(ticket, 0)
            self._hold("L3", bool(before & _BIT["reserve"]), "a ticket without a reservation")
            self._tickets[ticket] = before | _ISSUED
        elif isinstance(message, m.ReceiptBooked):
            booked = self._tickets.get(message.ticket, 0) & _BOOKED
            self._hold("D1", bool(booked), "a receipt was acknowledged and is in no table")

    def began(self, party: int, ticket: bytes) -> None:
        """L2: a node's engine begins a ticket's answer."""
        before = self._tickets.get(ticket, 0)
        self._hold("L3", bool(before & _ISSUED), "work for a ticket nobody was given", party)
        self._hold("L2", not before & _BEGAN, "a ticket runs twice", party)
        self._tickets[ticket] = before | _BEGAN

    def ended(self, outcome: Outcome, nonce: bytes, party: int) -> None:
        """P1: however many nodes gave it, a whole answer is the one that one node would give."""
        if outcome.finish != "length" or not outcome.segments:
            return
        first = peek(m.Ticket, outcome.segments[0].ticket)
        seed = job_seed(first.seed_ticket, nonce)
        whole = answer_tokens(seed, 0, len(outcome.tokens))
        self._hold("P1", outcome.tokens == whole, "a resumed answer is another", party)

    def cheated(self, ticket: bytes) -> None:
        """Not a check: what becomes of this answer is counted."""
        self._frauds.add(ticket)

    # ---- crashes ----

    def crashed(self, core: Coordinator) -> None:
        self._before = _snapshot(core)

    def restarted(self, core: Coordinator) -> None:
        """D1: the tables gave back what was running."""
        before, after = self._before, _snapshot(core)
        assert before is not None
        for name in ("balances", "credit", "standing", "jobs", "epoch"):
            same = getattr(before, name) == getattr(after, name)
            self._hold("D1", same, f"{name} after the restart are others than before the crash")

    # ---- from time to time ----

    def look(self) -> None:
        """What is to hold between any two events."""
        self._money()
        self._draws()
        self._deadlines()
        self._bounds()

    def _money(self) -> None:
        balances = self._world.coordinator.core.ledger.balances
        for purse in ("treasury", "mint"):
            known = sum(amount for key, amount in balances.items() if key.kind == purse)
            self._hold("L1", known == self._sums[purse, bytes(32)], f"{purse} of its postings")

    def _draws(self) -> None:
        """V1: we draw every round again."""
        rounds, self._rounds = self._rounds, []
        for row in rounds:
            entries = self._entries.pop(row.number, {})
            tree = round_tree(entry_of(job, UNDRAWN) for job in entries.values())
            same = (tree.root, tree.total) == (row.root, row.count)
            self._hold("V1", same, f"round {row.number}: the root is of other receipts")
            seed = round_seed(row.link, row.block_hash)
            for job in entries.values():
                one = entry_of(job, UNDRAWN)
                hit = is_drawn(seed, one.receipt, one.numerator, one.denominator)
                right = hit == bool(job.drawn_at) or job.state == "refunded"
                self._hold("V1", right, f"round {row.number}: a draw is another", job.node)
            if self._link is not None and self._link[:2] == (row.chain, row.number - 1):
                linked = link_before(row.link) == self._link[2]
                self._hold("V1", linked, f"round {row.number}: its link is not of the chain")
            self._link = (row.chain, row.number, row.link)

    def _deadlines(self) -> None:
        """L4: within the policy's own deadlines, and those again for each restart."""
        policy, starts = self._world.scenario.policy, self._world.coordinator.starts
        most = max(policy.audit_case_us, policy.inquiry_us) + _SLACK_US
        last = self._world.now - most * max(1, starts - 1)
        for ticket, since in self._drawn.items():
            self._hold("L4", since >= last, f"ticket {ticket.hex()} has no verdict in time")
            break  # oldest first

    def _bounds(self) -> None:
        """B1: what is public of every queue."""
        world, policy = self._world, self._world.scenario.policy
        core = world.coordinator.core
        cases, jobs = len(core.audits.cases), len(core.jobs.jobs)
        self._hold("B1", cases <= jobs, "more cases than jobs")
        audits = policy.audits_per_node
        busy = [key for key, node in core.registry.nodes.items() if node.auditing > audits]
        for key in busy:
            self._hold("B1", False, "too many audits", key)
        for client in world.clients:
            tickets = core.jobs.open_tickets(client.key)
            most = policy.open_tickets_max
            self._hold("B1", tickets <= most, "too many tickets", client.number)

    # ---- the end ----

    def end(self) -> None:
        """After the heal phase: nothing is open, and all adds up."""
        self.look()
        core = self._world.coordinator.core
        core.ledger.check()
        memory = {tuple(purse): amount for purse, amount in core.ledger.balances.items()}
        summed = {key: amount for key, amount in self._sums.items() if amount or key in memory}
        self._hold("L1", memory == summed, "purses in memory are not those of the postings")
        for row in self._world.coordinator.tables.rows(JobRow):
            over = row.state not in ("issued", "pending", "drawn")
            self._hold("P1", over, f"ticket {row.ticket.hex()} never ended: {row.state}", row.node)
        for node in self._world.nodes:
            left = len(node.saved)
            self._hold("D1", not left, f"{left} saved receipts never booked", node.number)
        for client in self._world.clients:
            ended = client.running == 0
            self._hold("P1", ended, "a client's job never ended", client.number)
        self._proofs()

    def _proofs(self) -> None:
        """L6: what can be proven against the last root is what stands in it."""
        tree = self._tree
        if tree is None or not self._leaves:
            return
        step = max(1, len(self._leaves) // _PROOFS)
        for place in range(0, len(self._leaves), step):
            leaf, proof = self._leaves[place], tree.proof(place)
            known = (tree.root, tree.total)
            right = fold(leaf.hash, leaf.cumulative, place, proof) == known
            self._hold("L6", right, "a leaf cannot be proven", leaf.account)
            more = fold(leaf.hash, leaf.cumulative + 1, place, proof) == known
            self._hold("L6", not more, "more than the leaf can be proven", leaf.account)

    def _hold(self, ident: str, holds: bool, why: str, who: bytes | int | None = None) -> None:
        if holds or ident not in self._of:
            return
        if isinstance(who, bytes):
            party = self._world.by_key.get(who)
            who = party.number if party is not None else None
        raise Violated(ident, why, () if who is None else (who,))


def _lasting(job: Job) -> JobRow:
    """Its row; a booked job's deadline is only when it is next looked at, and is not kept."""
    row = job.row()
    return row if row.state == "issued" else replace(row, deadline_at=0)


def _snapshot(core: Coordinator) -> _Snapshot:
    return _Snapshot(
        {key: amount for key, amount in core.ledger.balances.items() if amount},
        dict(core.ledger.credit),
        {key: node.row for key, node in core.registry.nodes.items()},
        {key: _lasting(job) for key, job in core.jobs.jobs.items() if job.state in OPEN},
        core.epochs.running,
    )
