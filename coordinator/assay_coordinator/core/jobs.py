"""A job from ticket to pay. MOVES has its states and what leads from one to another; there is no
other move.

A receipt is booked once (L2), and then the price is in escrow; a reservation that no receipt comes
for goes back (P1). No credit without a valid ticket (L3): only jobs that are known here can be
booked, and only a ticket signed here makes one. Signatures are checked before any state changes
(S1).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.epochs import Earning, Epochs
from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.holdback import Held, Holdback
from assay_coordinator.core.ledger import TREASURY, Ledger, Purse
from assay_coordinator.core.lottery import UNDRAWN, Draw, Lottery
from assay_coordinator.core.oversight import Oversight
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.recalled import drawn_by_price
from assay_coordinator.core.recent import RecentPay
from assay_coordinator.core.records import JobRow
from assay_coordinator.core.registry import Node, Registry
from assay_protocol.errors import AssayError
from assay_protocol.messages import Ack, DrawEntry, Receipt, SubmitReceipt, Ticket
from assay_protocol.receipts import check_receipt, payable_tokens
from assay_protocol.signing import Verifier, digest, open_signed, peek
from assay_protocol.splits import COMPUTE
from assay_protocol.tickets import job_price, reserve_price

MOVES: Final[Mapping[tuple[str, str], str]] = {
    ("issued", "pending"): "its receipt is booked",
    ("issued", "drawn"): "booked, and its audit is certain",
    ("issued", "expired"): "no receipt in time, or given up",
    ("issued", "refunded"): "booked, but its node is convicted",
    ("pending", "held"): "its round was drawn, it was not",
    ("pending", "drawn"): "drawn, or its node is under inquiry",
    ("held", "drawn"): "its node is under inquiry, or withheld work",
    ("held", "released"): "later jobs or epochs went by",
    ("drawn", "released"): "its audit passed",
    ("drawn", "refunded"): "its audit failed, or nobody could say",
    ("pending", "refunded"): "its node was convicted",
    ("held", "refunded"): "convicted, or outvoted as an auditor",
}
UNPAID: Final = ("pending", "held", "drawn")
OPEN: Final = ("issued", *UNPAID)
FINAL: Final = ("released", "refunded", "expired")
RECEIPTS_KNOWN: Final = 4_096  # booked receipts, some 2 kB each, that are not decoded again


@dataclass(slots=True)
class Job:
    """One ticket in memory."""

    ticket: Ticket
    blob: bytes
    state: str
    reserved: int
    deadline_at: int
    charged: int = 0
    receipt_blob: bytes = b""
    held_epoch: int = 0
    verdict: str = ""
    verify: str = "sample"
    round: int = 0
    numerator: int = 0
    denominator: int = 0
    booked_at: int = 0
    drawn_at: int = 0
    draw_seed: bytes = b""
    named: bool = True  # whether its client had a say in which node has it; not kept

    def move(self, state: str) -> None:
        """One of the moves there are."""
        assert (self.state, state) in MOVES, f"no job goes from {self.state} to {state}"
        self.state = state

    def row(self) -> JobRow:
        t = self.ticket
        return JobRow(
            t.ticket,
            t.client,
            t.node,
            t.model,
            self.state,
            self.blob,
            self.receipt_blob,
            self.reserved,
            self.charged,
            self.deadline_at,
            self.held_epoch,
            self.verdict,
            self.verify,
            self.round,
            self.numerator,
            self.denominator,
            self.booked_at,
            self.drawn_at,
            self.draw_seed,
        )

    @classmethod
    def of_row(cls, row: JobRow) -> Job:
        """The job of a row of the table."""
        ticket = peek(Ticket, row.ticket_blob)
        return cls(
            ticket,
            row.ticket_blob,
            row.state,
            row.reserved,
            row.deadline_at,
            row.charged,
            row.receipt_blob,
            row.held_epoch,
            row.verdict,
            row.verify,
            row.round,
            row.numerator,
            row.denominator,
            row.booked_at,
            row.drawn_at,
            row.draw_seed,
        )

    @property
    def receipt(self) -> Receipt:
        """Its booked receipt (checked when it was booked)."""
        return _receipt_in(self.receipt_blob)


@lru_cache(maxsize=RECEIPTS_KNOWN)
def _receipt_in(blob: bytes) -> Receipt:
    """An audit looks into its job's receipt half a dozen times."""
    return peek(Receipt, blob)


class Equivocation(Exception):
    """The node signed two different receipts for one ticket."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.ticket.ticket.hex())
        self.job = job


class Jobs:
    """All jobs whose money or idempotency still matters."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        registry: Registry,
        epochs: Epochs,
        entropy: Entropy,
        verifier: Verifier,
        lottery: Lottery,
        oversight: Oversight,
    ) -> None:
        self._policy, self._ledger, self._registry = policy, ledger, registry
        self._lottery, self._oversight = lottery, oversight
        self._epochs, self._entropy, self._verifier = epochs, entropy, verifier
        self.jobs: dict[bytes, Job] = {}
        self._deadlines: list[tuple[int, bytes]] = []
        # by node, and apart those never audited: they must not push out what is at risk
        self._held: dict[tuple[bytes, bool], Holdback] = {}
        self._unpaid: dict[bytes, dict[bytes, None]] = {}  # tickets in escrow by node
        self._recent: dict[bytes, RecentPay] = {}  # by node, of jobs that audits can cost it
        self._open: dict[bytes, int] = {}  # issued tickets by client
        self.booked = 0

    def restore(self, rows: Iterable[JobRow]) -> None:
        """Take open jobs and those that may still be asked about. A table keeps no order: held pay
        is queued by the epoch of its draw, then by when it was booked."""
        for row in rows:
            self._add(Job.of_row(row))
        unpaid = [job for job in self.jobs.values() if job.state in UNPAID]
        for job in sorted(unpaid, key=lambda job: job.booked_at):
            self._add_unpaid(job)
        held = [job for job in self.jobs.values() if job.state == "held"]
        for job in sorted(held, key=lambda job: (job.held_epoch, job.round, job.booked_at)):
            self._held.setdefault(_queue(job), Holdback()).add(_held(job))

    # ---- issuing ----

    def open_tickets(self, client: bytes) -> int:
        return self._open.get(client, 0)

    def issue(
        self, now: int, ticket: Ticket, blob: bytes, verify: str = "sample", *, named: bool = True
    ) -> list[Effect]:
        """Reserve the most the job can cost. `named`: its client had a say in which node has it.
        Raises AssayError("insufficient_credit")."""
        price = reserve_price(ticket)
        self._afford(ticket.client, price)
        job = Job(ticket, blob, "issued", price, ticket.expires_at + self._policy.receipt_grace_us)
        job.verify, job.named = verify, named
        self._add(job)
        effects = self._spend_earned(now, ticket.client, price)
        available, reserved = _purses(ticket.client)
        effects += self._ledger.transfer(now, available, reserved, price, "reserve", ticket.ticket)
        return [*effects, Save(job.row())]

    def abandon(self, now: int, client: bytes, ticket: bytes) -> list[Effect]:
        """The client gave the ticket up: wait only a little longer for the node's receipt."""
        job = self.jobs.get(ticket)
        if job is None or job.ticket.client != client:
            raise AssayError("unknown_ticket")
        sooner = now + self._policy.abandon_grace_us
        if job.state != "issued" or job.deadline_at <= sooner:
            return []
        self._set_deadline(job, sooner)
        if not job.named:
            self._registry.nodes[job.ticket.node].lose(self._policy, now)
        return [Save(job.row())]

    # ---- booking ----

    def book(self, now: int, peer: bytes, message: SubmitReceipt) -> tuple[Job, list[Effect]]:
        """Book a receipt, once. Raises AssayError, or Equivocation when the node signed two."""
        claimed = peek(Receipt, message.receipt)
        job = self.jobs.get(claimed.ticket)
        if job is None or peer not in (job.ticket.node, job.ticket.client):
            raise AssayError("unknown_ticket")
        receipt = open_signed(Receipt, message.receipt, job.ticket.node, self._verifier)
        check_receipt(receipt, job.ticket)
        if job.state != "issued":
            if job.receipt_blob and job.receipt_blob != message.receipt:
                raise Equivocation(job)
            if job.state == "expired":
                raise AssayError("ticket_expired")
            return job, []
        acked = receipt.n_out if peer == job.ticket.client else self._acked(job, message.ack)
        return job, self._book(now, job, receipt, message.receipt, acked)

    def owed_verdicts(self, node: bytes) -> int:
        """How many of its jobs in escrow may be or are audited."""
        tickets = self._unpaid.get(node)
        if tickets is None:
            return 0
        return sum(self.jobs[ticket].state in ("pending", "drawn") for ticket in tickets)

    def unpaid(self, node: bytes) -> list[Job]:
        """Its jobs in escrow: pending, held and drawn."""
        return [self.jobs[ticket] for ticket in self._unpaid.get(node, ())]

    def _acked(self, job: Job, blob: bytes | None) -> int | None:
        """The tokens the client signed for; None if it signed nothing."""
        if blob is None:
            return None
        ack = open_signed(Ack, blob, job.ticket.client, self._verifier)
        if ack.ticket != job.ticket.ticket:
            raise AssayError("receipt_mismatch", "the acknowledgement is of another ticket")
        return ack.count

    def _book(
        self, now: int, job: Job, receipt: Receipt, blob: bytes, acked: int | None
    ) -> list[Effect]:
        ticket, node = job.ticket, self._registry.nodes[job.ticket.node]
        price = job_price(ticket, payable_tokens(receipt.n_out, acked or 0))
        if receipt.n_out == 0 and acked is None:
            price = 0  # no token shows that the prompt was read, nor does the client say so
        assert price <= job.reserved
        job.receipt_blob = blob
        effects = self._unreserve(now, job, job.reserved - price, "unused")
        self._close_ticket(job)
        node.end(ticket.model)
        if receipt.n_out:
            node.lost = 0
        if node.row.state == "convicted":
            job.move("refunded")
            job.verdict = "convicted"
            return [*effects, *self._unreserve(now, job, price, "refund"), Save(job.row())]
        job.charged, job.held_epoch, job.booked_at = price, self._epochs.running, now
        _, reserved = _purses(ticket.client)
        effects += self._ledger.transfer(
            now, reserved, Purse("escrow", ticket.node), price, "charge", ticket.ticket
        )
        self._add_unpaid(job)
        self.booked += 1
        effects.append(Save(self._registry.update(node, jobs=node.row.jobs + 1)))
        self._enter(now, job, node)
        return [*effects, Save(job.row())]

    # ---- the lottery ----

    def _enter(self, now: int, job: Job, node: Node) -> None:
        """Into the running round. What is certain to be audited is not kept waiting for it."""
        job.numerator, job.denominator = self._rate(now, job, node)
        receipt = digest(job.receipt_blob)
        entry = DrawEntry(
            ticket=job.ticket.ticket,
            receipt=receipt,
            node=node.key,
            numerator=job.numerator,
            denominator=job.denominator,
            asked=job.verify,
            outcome=UNDRAWN,
        )
        job.round = self._lottery.enter(now, entry)
        certain = job.numerator == job.denominator
        job.move("drawn" if certain else "pending")
        if certain:
            job.drawn_at = now
            job.draw_seed = self._entropy.keyed(b"auditor", receipt)

    def _rate(self, now: int, job: Job, node: Node) -> tuple[int, int]:
        """The chance that the job is audited: the client's wish comes before the node's record.

        Of what is in escrow only what an audit can cost the node and what is not out before a
        verdict falls counts: recent pay, and not of waived jobs.
        """
        if job.verify == "none":
            return 0, 1
        if job.verify == "now" or node.row.state == "inquiry":
            return 1, 1
        recent = self._recent.get(node.key)
        at_risk = recent.value(now, self._policy.vouching_us) if recent else 0
        return self._oversight.rate(now, node.row, job.charged, at_risk)

    def draw(self, now: int, draw: Draw) -> tuple[Job | None, list[Effect]]:
        """Carry out what the lottery says of a pending job; the job if it is to be audited."""
        job = self.jobs.get(draw.ticket)
        if job is None:
            return None, []
        if job.state != "pending":
            if not draw.hit or job.drawn_at:
                return None, []
            job.drawn_at = now  # an inquiry was first; its verdict is the draw's
            return None, [Save(job.row())]
        if draw.hit:
            job.move("drawn")
            job.drawn_at, job.draw_seed = now, draw.seed
            return job, [Save(job.row())]
        job.move("held")
        job.held_epoch = self._epochs.running
        return None, [*self._hold(now, job), Save(job.row())]

    # ---- settling ----

    def release(self, now: int, job: Job, verdict: str) -> list[Effect]:
        """Divide the price among the node, those who share in the model's jobs, and the treasury;
        the lines go into the running epoch, whose rules these are."""
        self._settle(job, "released", verdict)
        ticket, node = job.ticket.ticket, job.ticket.node
        parts = self._epochs.splits.divide(job.ticket.model, job.charged)
        escrow, why = Purse("escrow", node), Earning("job", ticket, digest(job.receipt_blob))
        effects = self._ledger.transfer(now, escrow, TREASURY, parts.treasury, "fee", ticket)
        effects += self._epochs.earn(now, escrow, node, COMPUTE, why, parts.node)
        for other in parts.others:
            effects += self._epochs.earn(now, escrow, other.account, other.role, why, other.amount)
        return [*effects, Save(job.row())]

    def refund(self, now: int, job: Job, verdict: str) -> list[Effect]:
        """Give the client its money back in full."""
        self._settle(job, "refunded", verdict)
        available, _ = _purses(job.ticket.client)
        escrow = Purse("escrow", job.ticket.node)
        effects = self._ledger.transfer(
            now, escrow, available, job.charged, "refund", job.ticket.ticket
        )
        return [*effects, Save(job.row())]

    def recall(self, node: bytes, most: int) -> list[Job]:
        """Unpaid jobs of it that were not drawn, to be audited now; the rest stays as it is.
        What its client wants nobody to see is not among them, nor is it drawn by the lottery."""
        undrawn = [j for j in self.unpaid(node) if j.state != "drawn" and j.verify != "none"]
        chances = [(j, j.charged, self._entropy.keyed(b"recall", j.ticket.ticket)) for j in undrawn]
        recalled = drawn_by_price(chances, most)
        for job in recalled:
            job.move("drawn")
            job.draw_seed = self._entropy.keyed(b"auditor", digest(job.receipt_blob))
        self._unhold(node, {job.ticket.ticket for job in recalled})
        return recalled

    def forfeit_held(self, now: int, node: bytes, verdict: str) -> list[Effect]:
        """Give its held pay back to the clients it came from."""
        effects: list[Effect] = []
        for audited in (True, False):
            for ticket in self._held.pop((node, audited), ()):
                effects += self.refund(now, self.jobs[ticket], verdict)
        return effects

    def refund_all(self, now: int, node: bytes, verdict: str) -> list[Effect]:
        """Forfeit a convicted node's escrow to the clients it came from."""
        effects: list[Effect] = []
        for job in self.unpaid(node):
            effects += self.refund(now, job, verdict)
        for audited in (True, False):
            self._held.pop((node, audited), None)
        assert self._ledger.balance("escrow", node) == 0, "escrow is what its open jobs hold"
        return effects

    def release_old(self, now: int) -> list[Effect]:
        """At an epoch's close: pay out what is due or has seen `holdback_epochs` of them."""
        effects: list[Effect] = []
        for key, queue in list(self._held.items()):
            if self._registry.nodes[key[0]].row.state == "inquiry":
                continue
            while queue and (self._due(now, queue) or self._held_long(self.jobs[queue.oldest])):
                effects += self.release(now, self.jobs[queue.take()], UNDRAWN)
            if not queue:
                del self._held[key]
        return effects

    def expire(self, now: int) -> list[Effect]:
        """End what waited too long; forget what is final and past asking."""
        effects: list[Effect] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            at, ticket = heapq.heappop(self._deadlines)
            job = self.jobs.get(ticket)
            if job is None or job.deadline_at != at:
                continue
            if job.state == "issued":
                job.move("expired")
                job.verdict = "no_receipt"
                effects += self._unreserve(now, job, job.reserved, "expire")
                self._close_ticket(job)
                self._set_deadline(job, now + self._policy.receipt_grace_us)
                effects.append(Save(job.row()))
            elif job.state in FINAL:
                del self.jobs[ticket]
            else:
                self._set_deadline(job, now + self._policy.receipt_grace_us)
        return effects

    # ---- inside ----

    def _add(self, job: Job) -> None:
        self.jobs[job.ticket.ticket] = job
        heapq.heappush(self._deadlines, (job.deadline_at, job.ticket.ticket))
        if job.state == "issued":
            client = job.ticket.client
            self._open[client] = self._open.get(client, 0) + 1

    def _add_unpaid(self, job: Job) -> None:
        node = job.ticket.node
        self._unpaid.setdefault(node, {})[job.ticket.ticket] = None
        if job.verify != "none":
            recent = self._recent.setdefault(node, RecentPay())
            recent.add(job.ticket.ticket, job.charged, job.booked_at)

    def _settle(self, job: Job, state: str, verdict: str) -> None:
        job.move(state)
        job.verdict = verdict
        unpaid = self._unpaid[job.ticket.node]
        del unpaid[job.ticket.ticket]
        if job.verify != "none":
            self._recent[job.ticket.node].remove(job.ticket.ticket)
        if not unpaid:
            del self._unpaid[job.ticket.node]
            self._recent.pop(job.ticket.node, None)

    def _set_deadline(self, job: Job, at: int) -> None:
        job.deadline_at = at
        heapq.heappush(self._deadlines, (at, job.ticket.ticket))

    def _close_ticket(self, job: Job) -> None:
        left = self._open[job.ticket.client] - 1
        if left:
            self._open[job.ticket.client] = left
        else:
            del self._open[job.ticket.client]

    def _afford(self, client: bytes, price: int) -> None:
        have = self._ledger.balance("available", client) + self._ledger.balance("earned", client)
        if have < price:
            raise AssayError("insufficient_credit", f"the job may cost {price}, you have {have}")

    def _spend_earned(self, now: int, client: bytes, price: int) -> list[Effect]:
        """A contributor pays with what it earned once nothing else is left."""
        short = max(0, price - self._ledger.balance("available", client))
        available, _ = _purses(client)
        return self._ledger.transfer(
            now, Purse("earned", client), available, short, "spend", client[:16]
        )

    def _unreserve(self, now: int, job: Job, amount: int, reason: str) -> list[Effect]:
        available, reserved = _purses(job.ticket.client)
        ticket = job.ticket.ticket
        return self._ledger.transfer(now, reserved, available, amount, reason, ticket)

    def _hold(self, now: int, job: Job) -> list[Effect]:
        """Hold its pay, and pay what is due by that; nothing is while an inquiry is on."""
        queue = self._held.setdefault(_queue(job), Holdback())
        queue.add(_held(job))
        effects: list[Effect] = []
        if self._registry.nodes[job.ticket.node].row.state == "inquiry":
            return effects
        while self._due(now, queue):
            effects += self.release(now, self.jobs[queue.take()], UNDRAWN)
        return effects

    def _unhold(self, node: bytes, tickets: set[bytes]) -> None:
        queue = self._held.get((node, True))
        if queue is None:
            return
        queue.drop(tickets)
        if not queue:
            del self._held[node, True]

    def _due(self, now: int, queue: Holdback) -> bool:
        return queue.due(now, self._policy.holdback_jobs, self._policy.holdback_us)

    def _held_long(self, job: Job) -> bool:
        return job.held_epoch + self._policy.holdback_epochs <= self._epochs.running


def _queue(job: Job) -> tuple[bytes, bool]:
    return job.ticket.node, job.verify != "none"


def _held(job: Job) -> Held:
    return Held(job.ticket.ticket, job.charged, job.booked_at)


def _purses(client: bytes) -> tuple[Purse, Purse]:
    return Purse("available", client), Purse("reserved", client)


def audit_pay(policy: Policy, job: Job, verified: int, replays: int, treasury: int) -> int:
    """What each of `replays` replays earns: a share of the job's price. On average audits of a node
    cost no more than its fees bring in (fee / audit rate), else fresh keys that serve and audit one
    another would empty the treasury; and never more than the treasury holds."""
    fee = job.charged * policy.fee_bps // 10_000
    own = (job.numerator, job.denominator)
    numerator, denominator = own if job.numerator else policy.audit_due(verified)
    affordable = fee * denominator // max(1, numerator)
    share = min(job.charged * policy.audit_pay_bps // 10_000, affordable)
    return min(share // replays, treasury)
