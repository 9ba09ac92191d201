"""What governance decided, as the coordinator publishes it and nodes obey it; and seals of blocks.

The truth is on the chain; these documents are its content in a form that nodes can hash and keep.
"""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Range, Size, message, struct
from assay_protocol.messages.parts import Count, Credit, Digest, Key, Name, Signed, Time

Phrase = Annotated[str, Size(1, limits.PHRASE_BYTES_MAX)]


@struct
class Share:
    """`bps` ten-thousandths of what the treasury leaves of a price, for `account` in `role`."""

    account: Key
    role: Annotated[int, Range(0, 255)]
    bps: Annotated[int, Range(1, 10_000)]


@struct
class ModelSplit:
    """Who shares in the jobs of a model."""

    model: Digest
    shares: Annotated[tuple[Share, ...], Size(1, limits.SHARES_MAX)]


@message(46)
class Pricing:
    """The rules that priced an epoch: the part "pricing" (GetPart; key: its sha256)."""

    fee_bps: Annotated[int, Range(0, 10_000)]
    splits: Annotated[tuple[ModelSplit, ...], Size(0, limits.RULED_MODELS_MAX)]


@struct
class ModelRule:
    """Whether a model may be served."""

    model: Digest
    allowed: bool


@message(48)
class NetworkRules:
    """What nodes obey: the part "rules" (GetPart; key: 32 zero bytes). Its sha256 is in heartbeats.

    `version`, `open`, `models` and `moderation` are those of the contract ModelRegistry at `block`:
    `open` says whether a model that is not listed may be served. `moderation` is the sha256 of
    `policy`, a ModerationPolicy signed by `policy_author`; zero: there is none.
    """

    chain: Count
    registry: Annotated[bytes, Size.exactly(20)]
    block: Count
    version: Count
    open: bool
    models: Annotated[tuple[ModelRule, ...], Size(0, limits.RULED_MODELS_MAX)]
    moderation: Digest
    policy: Annotated[bytes, Size(0, limits.POLICY_BYTES_MAX)]
    policy_author: Annotated[bytes, Size(0, 32)]


@message(114)
class ModerationPolicy:
    """Signed by its author: a node refuses a prompt that contains one of these phrases.

    Both are compared as NFKC, case folded, runs of white space as one space; nothing else is read
    into a prompt, and answers are not looked at.
    """

    name: Name
    version: Count
    issued_at: Time
    phrases: Annotated[tuple[Phrase, ...], Size(0, limits.PHRASES_MAX)]


@message(116)
class Seal:
    """Signed: of all that could stand at `subject`, it is `digest` and nothing else.

    Two seals of one key on one subject with different digests prove that it said two things, to
    anybody and to the contract SlashCourt. Block `n` of chain `c` has the subject `b"block"`, 11
    zero bytes, c and n as 8 bytes big-endian each; `digest` is its hash.
    """

    subject: Digest
    digest: Digest


@struct
class VoterSeal:
    """A bonded node's seal of a block."""

    voter: Key
    seal: Signed


@message(118)
class SealedBlock:
    """A block of the local chain: its RLP, and the producer's seal."""

    raw: Annotated[bytes, Size(1, limits.CHAIN_BLOCK_BYTES_MAX)]
    seal: Signed


@message(58)
class VoteBlock:
    """Bonded node -> coordinator: I executed the chain up to this block and got its hash."""

    seal: Signed


@message(120)
class FinalityProof:
    """Seals of more than two thirds of the bonded weight on one block.

    The part "finality" (GetPart; key: 32 zero bytes). Weights are bonds at that block.
    """

    number: Count
    hash: Digest
    bonded: Credit
    seals: Annotated[tuple[VoterSeal, ...], Size(0, limits.VOTERS_MAX)]
