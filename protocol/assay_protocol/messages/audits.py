"""Audits: coordinator <-> node; all idempotent by audit id."""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Size, message, struct
from assay_protocol.messages.parts import (
    AuditId,
    Count,
    Digest,
    Grammar,
    Images,
    Key,
    LeafDigests,
    Logits,
    Name,
    Nonce,
    Sampler,
    Signed,
    Sketches,
    Text,
    TicketId,
    Time,
    Tokens,
)


@message(60)
class AuditTask:
    """Coordinator -> auditor: replay a job. Names neither the executor nor the client.

    The transcript that follows must match `prompt_hash`, `nonce_commitment` and `output_hash`.
    """

    audit: AuditId
    ticket: TicketId
    seed_ticket: TicketId
    model: Digest
    sampler: Sampler
    max_tokens: Count
    start: Count
    n_in: Count
    n_out: Count
    prompt_hash: Digest
    nonce_commitment: Digest
    output_hash: Digest
    finish: Name
    deadline_at: Time
    leaves: Name | None = None  # "logprob": reveal logprobs of the tokens, not raw logits
    replay: Count | None = None  # how many of the first tokens; None: all


@message(62)
class AuditAccept:
    """Auditor -> coordinator: ready; seal the transcript to this one-time X25519 key."""

    audit: AuditId
    box_key: Key


@message(64)
class TranscriptRequest:
    """Coordinator -> executor: seal this ticket's transcript to `box_key`."""

    audit: AuditId
    ticket: TicketId
    box_key: Key


@message(66)
class Transcript:
    """Executor -> coordinator -> auditor: a sealed `TranscriptBody` only the auditor can read."""

    audit: AuditId
    sealed: Annotated[bytes, Size(48, limits.FRAME_BYTES_MAX - 4_096)]


@message(68)
class TranscriptBody:
    """What an auditor needs besides its task to replay a job; travels only in a sealed box."""

    nonce: Nonce
    prompt: Tokens
    output: Tokens
    grammar: Grammar | None = None
    images: Images | None = None


@message(70)
class AuditCommit:
    """Auditor -> coordinator: bound to its result before the executor's leaves are opened."""

    audit: AuditId
    commitment: Digest
    statement: Signed | None = None  # an AuditStatement, so that others can check who said it


@message(72)
class OpenLeaves:
    """Coordinator -> executor: open the leaves of this ticket's receipt."""

    audit: AuditId
    ticket: TicketId


@message(74)
class LeavesOpened:
    """Executor -> coordinator: the leaves' preimages; they must hash to the receipt's root.

    `hashes` are the running output hashes at the leaves' ends. Then either `raws` and `sketches`,
    or, in a class ending in /L, `logits`: the drawn tokens' logprobs.
    """

    audit: AuditId
    hashes: LeafDigests
    logits: Logits
    raws: LeafDigests | None = None  # of each leaf's raw logits (hashing.raw_hash)
    sketches: Sketches | None = None


@message(76)
class RevealRequest:
    """Coordinator -> auditor: the leaves are open, now show what you committed to."""

    audit: AuditId


@message(78)
class AuditReveal:
    """Auditor -> coordinator: the commitment's preimage.

    `mismatches` are output positions (from 0) whose token is not the one the model draws;
    `margins` are, for each of them, how far the drawn token was ahead, in thousandths of a logit.
    `gaps` tell of each token how little drift would have changed the auditor's own draw
    (sketches.gap_code). `fault` is set, and the rest empty, when the transcript contradicts the
    ticket or receipt.
    """

    audit: AuditId
    nonce: Nonce
    mismatches: Annotated[tuple[Count, ...], Size(0, limits.OUTPUT_TOKENS_MAX)]
    margins: Annotated[tuple[Count, ...], Size(0, limits.OUTPUT_TOKENS_MAX)]
    logits: Logits
    fault: Name | None = None
    raws: LeafDigests | None = None
    sketches: Sketches | None = None
    gaps: Annotated[bytes, Size(0, limits.OUTPUT_TOKENS_MAX)] | None = None  # one byte a token


@message(80)
class AuditDecline:
    """Either side -> coordinator: cannot take part (`busy`, `transcript_lost`, ...).

    Coordinator -> auditor (`cancelled`): the audit is over without it.
    """

    audit: AuditId
    code: Name


@message(81)
class StandingChanged:
    """Coordinator -> node: its state changed, and why. For the owner; needs no answer."""

    state: Name
    reason: Text


@message(82)
class AuditStatement:
    """Auditor-signed: for this audit of this ticket's answer, I am bound to this commitment.

    With the reveal it is proof to anybody of what the auditor found.
    """

    audit: AuditId
    ticket: TicketId
    output_hash: Digest
    commitment: Digest


@struct
class FindingRecord:
    """One auditor's word on an answer: what it bound itself to, and what that was."""

    auditor: Key
    statement: Signed  # an AuditStatement
    reveal: Annotated[bytes, Size(1, limits.REVEAL_BYTES_MAX)]  # the encoded AuditReveal
    class_id: Name | None = None  # the numerics class it had offered


@message(84)
class VerdictRecord:
    """How a ticket's audit ended and all it rests on, for anybody to check; no text, no tokens.

    `opened` is the encoded LeavesOpened, if the executor opened its leaves. `findings` are in the
    order in which they came.
    """

    ticket: Signed
    receipt: Signed
    outcome: Name
    findings: Annotated[tuple[FindingRecord, ...], Size(0, limits.AUDITORS_PER_JOB_MAX)]
    opened: Annotated[bytes, Size(1, limits.REVEAL_BYTES_MAX)] | None = None
