"""Every number the coordinator decides by, in one place. All integers; times in microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_protocol.lottery import audit_rate

SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's settings. docs/verification.md 4 has the reasons."""

    # leases
    heartbeat_us: int = 5 * SECOND
    lease_us: int = 20 * SECOND
    lost_max: int = 8  # tickets given up in a row, of those whose node was the scheduler's choice
    doubt_us: int = 600 * SECOND  # for so long others then go before that node

    # jobs
    ticket_lifetime_us: int = 600 * SECOND
    receipt_grace_us: int = 3_600 * SECOND  # how long a reservation waits for its receipt
    abandon_grace_us: int = 120 * SECOND  # the same, once the client gave the ticket up
    open_tickets_max: int = 256  # per client
    queue_per_slot: int = 2  # tickets a node may hold beyond its slots, per slot

    # the lottery
    round_us: int = 60 * SECOND  # a round is closed so long after its first receipt
    round_receipts: int = 1_024  # ... or at so many
    rounds_waiting_max: int = 1_024  # closed and not yet drawn; at so many no tickets are given
    draw_late_us: int = 2_400 * SECOND  # later draws may ask nodes for what they let go of
    links: int = 65_536  # rounds that one anchor on chain serves; fixed for a network's life

    # money
    fee_bps: int = 1_000  # the treasury's share of a released job, from the next epoch on
    treasury: bytes = b""  # the account that each epoch is credited what the treasury can spare
    treasury_reserve: int = 1_000_000_000  # ... above this, which pays auditors
    audit_pay_bps: int = 5_000  # an auditor earns this share of the audited job's price
    faucet: int = 0  # granted once to every new account; for networks without real value only

    # audits
    probation_audits: int = 20  # V0: every job is audited until this many passed
    audit_bps_min: int = 500  # p_min
    gain_bps: int = 8_000  # of a job's price: the most a cheat is taken to save
    vouching_us: int = 1_800 * SECOND  # pay in escrow counts as at risk for so long
    holdback_us: int = 3_600 * SECOND  # undrawn pay is held for so long after its receipt
    holdback_jobs: int = 60  # H: ... and until so many times as much was earned after it; 0: not
    holdback_epochs: int = 2  # ... but no longer than until this many epochs have closed
    audit_stage_us: int = 60 * SECOND  # each step of an audit
    audit_case_us: int = 900 * SECOND  # a drawn receipt has its verdict by then (L4)
    audit_alone_us: int = 30 * SECOND  # an undecided case with nobody left to ask ends after this
    audits_per_node: int = 2  # in flight on one auditor
    replays_max: int = 3  # auditors that one job can be shown to
    reaudit_bps: int = 500  # p2: so many passed audits are shown to a second auditor
    outvoted_max: int = 3  # an auditor contradicted so often by two others audits no more
    logprob_leaves: int = 0  # 1: take nodes whose engines tell logprobs only (classes ending in /L)
    experienced_audits: int = 200  # auditors with this many passed audits go first
    auditor_weight_max: int = 1_000  # passed audits beyond it make no likelier an auditor

    # after an alarm
    inquiry_jobs_max: int = 64  # jobs in escrow that an inquiry audits
    inquiry_us: int = 3_600 * SECOND  # each of them has its verdict by then (L4)
    convicting_jobs: int = 2  # found wrong by a quorum, and the node is convicted
    suspension_us: int = 3_600 * SECOND  # without jobs, after an inquiry that proved nothing

    # epochs
    epoch_us: int = 3_600 * SECOND

    # how many strangers are remembered (B1); beyond it newcomers are refused, nobody is forgotten
    nodes_max: int = 100_000
    faucet_accounts_max: int = 1_000_000

    # who may grant credit and close epochs
    operators: frozenset[bytes] = frozenset()

    def audit_due(self, verified: int) -> tuple[int, int]:
        """The audit rate after `verified` passed audits, as (numerator, denominator)."""
        return audit_rate(verified, self.probation_audits, self.audit_bps_min)

    def audit_due_for(self, verified: int, price: int, at_risk: int) -> tuple[int, int]:
        """The same for a job of `price`, of a node that has `at_risk` in escrow of late, `price`
        included.

        Never less than makes cheating on it a loss, with one auditor in ten a friend: who has
        little at stake, or is asked for much, is audited oftener.
        """
        numerator, denominator = self.audit_due(verified)
        least = -(-self.gain_bps * price * 10 // (9 * max(1, price, at_risk)))
        if least * denominator <= numerator * 10_000:
            return numerator, denominator
        return min(10_000, least), 10_000
