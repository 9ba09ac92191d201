"""What reaches the coordinator's core, and what it asks its runtime to do.

The runtime commits every `Save` of an event before it releases any other effect
of that event ("persist before send", invariant D1).
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_coordinator.core.records import Row
from assay_protocol.messages import ModelSplit, NetworkRules


@dataclass(frozen=True, slots=True)
class Received:
    """`peer` (its authenticated key) sent a message; `request` is 0 when no answer is awaited."""

    peer: bytes
    request: int
    message: object


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The last session of `peer` ended."""

    peer: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Sent every quarter of a second; late ticks are fine."""


@dataclass(frozen=True, slots=True)
class EpochPosted:
    """The chain holds the epoch's root."""

    epoch: int


@dataclass(frozen=True, slots=True)
class EpochVoided:
    """The contract voided this epoch and all after it; not `standing`: a fork took that back."""

    epoch: int
    standing: bool


@dataclass(frozen=True, slots=True)
class RoundMined:
    """The chain holds the round's root, and the block that decides it.

    `anchored` and `posted` are the hashes of the transactions of the links' anchor and of the root.
    """

    number: int
    anchored: bytes
    posted: bytes
    block: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class BlockToVote:
    """The block of the chain that bonded nodes should vote on now; None: there is none."""

    number: int | None


@dataclass(frozen=True, slots=True)
class SplitsDecided:
    """The chain says who shares in which model's jobs; in force from the next epoch on."""

    splits: tuple[ModelSplit, ...]


@dataclass(frozen=True, slots=True)
class RulesRead:
    """A final block's state of the contract ModelRegistry; `rules` lacks the policy's own bytes."""

    rules: NetworkRules


Event = (
    Received
    | PeerLost
    | Tick
    | EpochPosted
    | EpochVoided
    | RoundMined
    | BlockToVote
    | SplitsDecided
    | RulesRead
)


@dataclass(frozen=True, slots=True)
class Save:
    """Make this row durable."""

    row: Row


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request."""

    peer: bytes
    request: int
    message: object


@dataclass(frozen=True, slots=True)
class Notify:
    """Send a notice to a connected peer; lost if it is not."""

    peer: bytes
    message: object


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answer a `GetPart` from the stored documents; nothing of the core is needed."""

    peer: bytes
    request: int
    what: str
    key: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class LookupVerdict:
    """Answer a `GetVerdict` of `peer` from the tables."""

    peer: bytes
    request: int
    ticket: bytes


@dataclass(frozen=True, slots=True)
class CountVote:
    """Answer a `VoteBlock` of `peer`: the chain alone knows what its seal is worth."""

    peer: bytes
    request: int
    seal: bytes


@dataclass(frozen=True, slots=True)
class PostRound:
    """Put a closed round's note on the chain, exactly once, after the anchor of its links; then
    send `RoundMined`."""

    number: int
    note: bytes
    chain: int
    links: int
    anchor: bytes


@dataclass(frozen=True, slots=True)
class PostEpoch:
    """Put this epoch's root on the chain, exactly once; then send `EpochPosted`."""

    epoch: int
    root: bytes
    total: int
    jobs: int
    leaves: int
    data_hash: bytes
    pricing: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """Something an operator wants to see. Never holds a prompt, a token or a secret."""

    event: str
    fields: tuple[tuple[str, str | int], ...] = ()


Effect = Save | Reply | Notify | Lookup | LookupVerdict | CountVote | PostEpoch | PostRound | Log
