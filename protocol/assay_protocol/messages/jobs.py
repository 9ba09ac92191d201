"""The life of a job: ask for a ticket, stream, hand in the receipt."""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Range, Size, message, struct
from assay_protocol.messages.parts import (
    Count,
    Credit,
    Digest,
    Dims,
    Grammar,
    Images,
    Key,
    Logprobs,
    Name,
    Nonce,
    ResumePoint,
    Route,
    Sampler,
    Signed,
    TicketId,
    Time,
    Tokens,
)
from assay_protocol.regions import REGIONS_MAX


@message(10)
class SubmitJob:
    """Ask for a ticket. The prompt does not travel: only its salted hash does."""

    model: Digest
    prompt_hash: Digest
    n_in: Annotated[int, Range(1, limits.PROMPT_TOKENS_MAX)]
    sampler: Sampler
    max_tokens: Annotated[int, Range(1, limits.OUTPUT_TOKENS_MAX)]
    nonce_commitment: Digest
    exclude: Annotated[tuple[Key, ...], Size(0, 16)]
    only: Annotated[tuple[Key, ...], Size(0, 16)]
    resume: ResumePoint | None = None
    verify: Name | None = None  # one of VERIFY_LEVELS; None: "sample"
    twin: TicketId | None = None  # draw what this ticket of yours draws, on another operator's node
    regions: Annotated[tuple[Name, ...], Size(1, REGIONS_MAX)] | None = None  # where alone


@struct
class Standing:
    """What speaks for a node when a ticket is given: its record, and what it has to lose.

    With `audits_passed` = v and no failure, at 95 % at most about 3 / v of its jobs are bad.
    """

    state: Name
    audits_passed: Count
    audits_failed: Count
    audit_bps: Count  # the chance that a job of it is audited, in 1/10,000
    at_risk: Credit  # pay held back, which a conviction forfeits
    class_id: Name
    exact: bool  # auditors of its own class found its answers equal bit for bit
    region: Name | None = None  # where its owner says it is


@message(12)
class TicketGrant:
    """A signed ticket, where to take it, and what speaks for the node that is there."""

    ticket: Signed
    route: Route
    standing: Standing | None = None


@message(14)
class SubmitReceipt:
    """Hand in a node-signed receipt. Nodes add the client's last signed `Ack`."""

    receipt: Signed
    ack: Signed | None = None


@message(16)
class ReceiptBooked:
    """The receipt is durable. Sent again, it gets the same answer."""

    ticket: TicketId
    charged: Credit


@message(18)
class AbandonJob:
    """The client gives a ticket up unused, or its node vanished: the reservation ends.

    `progress` is the last thing the node signed, if anything. The reservation waits a little for
    the node's receipt, so that a client cannot take an answer and its money back.
    """

    ticket: TicketId
    progress: Signed | None = None


# ---- client <-> node: the job stream ----------------------------------------------------------


@message(90)
class StartJob:
    """Client -> node, first frame: the ticket, the nonce it commits to, and the prompt.

    `grammar` is there iff the ticket's sampler commits to one, `images` iff the prompt spells any.
    """

    ticket: Signed
    nonce: Nonce
    prompt: Tokens
    grammar: Grammar | None = None
    images: Images | None = None


@message(92)
class TokenChunk:
    """Node -> client: the tokens at output positions `position`, `position` + 1, ...

    `logprobs` are there if the ticket's sampler asks for them. No receipt covers them.
    """

    position: Count
    tokens: Annotated[bytes, Size(4, 4 * limits.TOKENS_PER_FRAME_MAX)]
    progress: Signed | None = None
    logprobs: Logprobs | None = None


@message(122)
class PromptChunk:
    """Node -> client, before the first token: logprobs of prompt tokens `position`, `position` + 1,
    ... of a ticket whose sampler asks for them. The first is of token 1: nothing comes before 0.

    The receipt has a hash of all of them.
    """

    position: Count
    logprobs: Logprobs


@message(108)
class VectorChunk:
    """Node -> client: the vectors of texts `position`, `position` + 1, ... of a job that embeds.

    `vectors` are little-endian f32, `dims` for each text, each vector of Euclidean length 1.
    """

    position: Count
    dims: Dims
    vectors: Annotated[bytes, Size(4, limits.VECTOR_FRAME_BYTES_MAX)]
    progress: Signed | None = None


@message(94)
class Progress:
    """Node-signed: `count` tokens of `ticket` have this running hash. Sent every 32 tokens."""

    ticket: TicketId
    count: Count
    output_hash: Digest


@message(96)
class Ack:
    """Client-signed: the client holds `count` tokens of `ticket` with this running hash."""

    ticket: TicketId
    count: Count
    output_hash: Digest


@message(98)
class SendAck:
    """Client -> node: a signed `Ack`."""

    ack: Signed


@message(100)
class Cancel:
    """Client -> node: stop; the receipt for what was sent follows."""


@message(102)
class Finished:
    """Node -> client, last frame: the signed receipt."""

    receipt: Signed


# ---- signed and kept ---------------------------------------------------------------------------


@message(110)
class Ticket:
    """Coordinator-signed right to run one job on one node.

    `start` is the output position of the first token to draw: 0, or on a resumed job the number of
    answer tokens at the end of the prompt. The noise is seeded from `seed_ticket` and the
    client's nonce; on a resumed job `seed_ticket` is the first ticket's id, so that the
    continuation is the one the first node would have given.
    """

    ticket: TicketId
    client: Key
    node: Key
    model: Digest
    prompt_hash: Digest
    n_in: Count
    sampler: Sampler
    max_tokens: Annotated[int, Range(1, limits.OUTPUT_TOKENS_MAX)]
    start: Count
    nonce_commitment: Digest
    seed_ticket: TicketId
    price_in: Credit
    price_out: Credit
    issued_at: Time
    expires_at: Time
    epoch: Count
    calibration: Count | None = None  # the table of honest noise that the receipt is judged by


@message(112)
class Receipt:
    """Node-signed account of the job of one ticket. Counts bill it; hash and root bind the answer.

    What the ticket says (model, prompt, seed, sampler) is not said again.
    """

    ticket: TicketId
    class_id: Name
    output_hash: Digest
    root: Digest
    n_in: Count
    n_out: Count
    finish: Name
    started_at: Time
    first_at: Time
    ended_at: Time
    calibration: Count | None = None  # the ticket's
    prompt_logprobs: Digest | None = None  # of all that was told of the prompt, where it was asked
