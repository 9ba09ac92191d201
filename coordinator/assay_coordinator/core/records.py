"""The rows the coordinator lives by. Tables are the truth: `Coordinator.restore` builds on these.

Each class is one table; `KEY` names its primary key. Saving a row with the same key replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class NodeRow:
    """What must survive of a node: who it is and its standing. Leases do not."""

    KEY: ClassVar[tuple[str, ...]] = ("node",)
    node: bytes
    operator: bytes
    state: str  # see standing.py
    jobs: int
    verified: int  # audits passed as an executor
    failed: int  # jobs refunded by a verdict
    audits_done: int  # replays delivered as an auditor
    audit_faults: int  # late or malformed, or contradicted by two others
    evidence: int  # micro-nats: what `detectors` say together
    since: int  # when `state` began
    audited_at: int  # when an audit was last passed
    detectors: bytes  # evidence.py; empty: all at their start
    proof: bytes  # the same of what a quorum found
    disproved: int  # jobs that a quorum found wrong since it last became active
    outvoted: int  # times two auditors contradicted it, for life
    exact: int  # audits in a row that found its answers equal bit for bit
    offered: bytes  # digests of the models and classes it has offered


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """One purse: always the sum of its postings."""

    KEY: ClassVar[tuple[str, ...]] = ("purse", "owner")
    purse: str
    owner: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class PostingRow:
    """One movement of money; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("seq",)
    seq: int
    at: int
    source: str
    source_owner: bytes
    target: str
    target_owner: bytes
    amount: int
    reason: str
    ref: bytes


@dataclass(frozen=True, slots=True)
class CreditRow:
    """An account's lifetime credit in one role and its permanent index in every epoch's tree."""

    KEY: ClassVar[tuple[str, ...]] = ("account", "role")
    account: bytes
    role: int  # splits.ROLES
    position: int
    cumulative: int


@dataclass(frozen=True, slots=True)
class JobRow:
    """A ticket and what became of it."""

    KEY: ClassVar[tuple[str, ...]] = ("ticket",)
    ticket: bytes
    client: bytes
    node: bytes
    model: bytes
    state: str  # see jobs.py
    ticket_blob: bytes
    receipt_blob: bytes
    reserved: int
    charged: int
    deadline_at: int
    held_epoch: int
    verdict: str
    verify: str = "sample"  # messages.VERIFY_LEVELS
    round: int = 0  # of the lottery; 0 until its receipt is booked
    numerator: int = 0  # its chance to be drawn
    denominator: int = 0
    booked_at: int = 0
    drawn_at: int = 0  # 0: not drawn
    draw_seed: bytes = b""  # what chose its auditors


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One closed round of the lottery; what is empty is known once it is drawn."""

    KEY: ClassVar[tuple[str, ...]] = ("number",)
    number: int
    state: str  # closed | drawn
    closed_at: int
    root: bytes
    count: int
    probation_audits: int
    audit_bps_min: int
    chain: int
    link: bytes = b""
    anchored: bytes = b""  # the anchor's transaction
    posted: bytes = b""  # the root's
    block: int = 0
    block_hash: bytes = b""
    drawn_at: int = 0


@dataclass(frozen=True, slots=True)
class LineRow:
    """One line of an account's statement: what earned it how much in an epoch, in one role."""

    KEY: ClassVar[tuple[str, ...]] = ("epoch", "account", "role", "position")
    epoch: int
    account: bytes
    role: int
    position: int  # from 0, in the order booked
    kind: str  # credit_tree.LINE_KINDS
    ref: bytes
    digest: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class LeavesRow:
    """All leaves of one epoch's tree: its leaf file (protocol leaf_file.py)."""

    KEY: ClassVar[tuple[str, ...]] = ("epoch",)
    epoch: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PricingRow:
    """The rules that price epochs from this one on, until the next row's."""

    KEY: ClassVar[tuple[str, ...]] = ("epoch",)
    epoch: int
    digest: bytes
    data: bytes  # an encoded Pricing


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One closed epoch; `state` follows it onto the chain."""

    KEY: ClassVar[tuple[str, ...]] = ("epoch",)
    epoch: int
    closed_at: int
    root: bytes
    total: int
    jobs: int
    leaves: int
    data_hash: bytes
    pricing: bytes  # the digest of the rules that priced it
    state: str  # queued | posted


@dataclass(frozen=True, slots=True)
class VoidRow:
    """The contract voided this epoch, and all after it that were posted then."""

    KEY: ClassVar[tuple[str, ...]] = ("epoch",)
    epoch: int
    at: int
    standing: int  # 0: a fork of the chain took it back


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One finished replay of one job by one auditor."""

    KEY: ClassVar[tuple[str, ...]] = ("audit",)
    audit: bytes
    ticket: bytes
    executor: bytes
    auditor: bytes
    at: int
    replayed: int
    mismatches: int
    evidence: int  # micro-nats of this replay
    outcome: str  # good | doubtful | bad
    class_id: str  # the auditor's
    drift: int  # millionths: of its sketches from the executor's (in /L: of logprobs)
    equal: int  # 1: the same bits, 0: others, -1: of different classes
    candidates: int = 0  # among how many this auditor was drawn


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """How a drawn job's audit ended, with all it rests on."""

    KEY: ClassVar[tuple[str, ...]] = ("ticket",)
    ticket: bytes
    outcome: str
    at: int
    blob: bytes  # an encoded VerdictRecord


@dataclass(frozen=True, slots=True)
class RulesRow:
    """What governance decided, and what of it nodes are told; there is one row."""

    KEY: ClassVar[tuple[str, ...]] = ("number",)
    number: int  # 0
    state: bytes  # an encoded NetworkRules without the policy: what the chain said last
    document: bytes  # the last whole one; empty: none yet


Row = (
    NodeRow
    | BalanceRow
    | PostingRow
    | CreditRow
    | JobRow
    | RoundRow
    | LineRow
    | LeavesRow
    | PricingRow
    | EpochRow
    | VoidRow
    | AuditRow
    | VerdictRow
    | RulesRow
)
ROWS: tuple[type[Row], ...] = (
    NodeRow,
    BalanceRow,
    PostingRow,
    CreditRow,
    JobRow,
    RoundRow,
    LineRow,
    LeavesRow,
    PricingRow,
    EpochRow,
    VoidRow,
    AuditRow,
    VerdictRow,
    RulesRow,
)
