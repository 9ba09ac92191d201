"""What anyone may ask a coordinator, and what its operator may order."""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Range, Size, message, struct
from assay_protocol.messages.parts import (
    Count,
    Credit,
    Digest,
    Dims,
    Key,
    Name,
    Signed,
    Text,
    TicketId,
)


@message(20)
class GetAccount:
    """Ask for the caller's own balances."""


@message(22)
class Account:
    """Micro-credits of one key: as a client and as a contributor."""

    key: Key
    available: Credit
    reserved: Credit
    escrow: Credit
    earned: Credit


@message(24)
class GetModels:
    """Ask which models the network serves."""


@struct
class ModelSummary:
    """One model of the catalogue and how much of it is online."""

    name: Name
    model: Digest
    card: Digest
    context: Count
    price_in: Credit
    price_out: Credit
    nodes: Count
    free_slots: Count
    dims: Dims | None = None  # it embeds texts as vectors of so many numbers, and draws no answers
    image_tokens: Count | None = None  # places an image takes in a prompt; None: it reads none


@message(26)
class Models:
    """The catalogue."""

    models: Annotated[tuple[ModelSummary, ...], Size(0, 1_024)]


@message(28)
class GetPart:
    """Ask for a piece of a document.

    `what` is "card" (`key`: the model), "credit" (the account: its bundle of the latest epoch),
    "claimable" (the same of the latest that is final),
    "verdict" (the ticket and 16 zero bytes: an audit's transcript without any text), "draws" (the
    round as a 32-byte big-endian number: who was audited and why), "calibration" (the version
    likewise), "leaves" (the epoch likewise: its leaf file), "pricing" (its sha256), "rules" or
    "finality" (zeros), or "block" (the number likewise: a SealedBlock).
    """

    what: Name
    key: Digest
    offset: Count


@message(30)
class Part:
    """A piece of a long document, which is `total` bytes in all."""

    total: Count
    data: Annotated[bytes, Size(0, 512 * 1024)]


@message(36)
class GetVerdict:
    """Ask what became of a ticket of the caller's."""

    ticket: TicketId


@message(38)
class JobVerdict:
    """How a job stands: its state, and once it is audited how that ended and who says so.

    `outcome` is empty while nothing is decided. Of `statements` each is an auditor's signed
    AuditStatement, by the key of `auditors` in its place; the whole transcript is the part
    "verdict" (GetPart), a VerdictRecord.
    """

    ticket: TicketId
    state: Name
    outcome: Text
    statements: Annotated[tuple[Signed, ...], Size(0, limits.AUDITORS_PER_JOB_MAX)]
    auditors: Annotated[tuple[Key, ...], Size(0, limits.AUDITORS_PER_JOB_MAX)] | None = None


@message(32)
class GetNetwork:
    """Ask for the public state of the network."""


@struct
class NodeStatus:
    """What is public about one node."""

    node: Key
    operator: Key
    state: Name
    models: Annotated[tuple[Digest, ...], Size(0, limits.MODELS_PER_NODE_MAX)]
    jobs: Count
    audits_passed: Count
    audits_failed: Count
    running: Count
    free_slots: Count
    earned: Credit
    escrow: Credit


@message(34)
class Network:
    """The public state: nodes, totals and the newest epoch on chain."""

    nodes: Annotated[tuple[NodeStatus, ...], Size(0, limits.SESSIONS_MAX)]
    jobs: Count
    audits: Count
    epoch: Count
    epoch_root: Annotated[bytes, Size(0, 32)]
    treasury: Credit


# ---- operator -> coordinator -----------------------------------------------------------------


@message(40)
class Grant:
    """Give an account spendable credit. Only operators may."""

    account: Key
    amount: Annotated[int, Range(1, (1 << 53))]


@message(42)
class CloseEpoch:
    """Close the running epoch now and post its root. Only operators may."""


@message(44)
class EpochClosed:
    """The epoch's root is decided and queued for the chain."""

    epoch: Count
    root: Digest
    total: Credit
    accounts: Count
