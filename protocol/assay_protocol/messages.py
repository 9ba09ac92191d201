"""Every message of the network, grouped by the link it travels on.

Read top to bottom, this is the life of a job (protocol/spec/01-job.md). Field numbers follow from
the order of declaration (see codec.py): never reorder, never remove, only append optional fields.

Units: tokens are model vocabulary ids; `*_at` are microseconds since the Unix epoch; `*_ms` are
milliseconds; money is integer micro-credits; prices are micro-credits per 1,000 tokens; rates are
thousandths of tokens per second.
"""

from __future__ import annotations

from typing import Annotated, Final

from assay_protocol import limits
from assay_protocol.codec import Range, Size, message, struct

Key = Annotated[bytes, Size.exactly(32)]  # an Ed25519 public key; also names its owner
Digest = Annotated[bytes, Size.exactly(32)]
TicketId = Annotated[bytes, Size.exactly(16)]
AuditId = Annotated[bytes, Size.exactly(16)]
Nonce = Annotated[bytes, Size.exactly(32)]
Signed = Annotated[bytes, Size(65, limits.SIGNED_BYTES_MAX)]  # signature, then what was signed
Tokens = Annotated[bytes, Size(0, 4 * limits.PROMPT_TOKENS_MAX)]  # little-endian u32 each
Logits = Annotated[bytes, Size(0, 4 * limits.OUTPUT_TOKENS_MAX)]  # little-endian f32 each
# (u32 token, f32 logprob) pairs: of each drawn token, then of its `logprobs` likeliest rivals
Logprobs = Annotated[bytes, Size(8, 8 * (1 + limits.LOGPROBS_MAX) * limits.TOKENS_PER_FRAME_MAX)]
Grammar = Annotated[bytes, Size(1, limits.GRAMMAR_BYTES_MAX)]  # kind, newline, text (grammars.py)
Count = Annotated[int, Range(0, 1 << 31)]
Credit = Annotated[int, Range(0, (1 << 63) - 1)]
Time = Annotated[int, Range(0, (1 << 63) - 1)]
Rate = Annotated[int, Range(0, 1 << 40)]
Name = Annotated[str, Size(1, 128)]
Text = Annotated[str, Size(0, limits.TEXT_BYTES_MAX)]
Address = Annotated[str, Size(1, 256)]
Addresses = Annotated[tuple[Address, ...], Size(0, limits.ADDRESSES_PER_NODE_MAX)]

FINISH_REASONS: Final = ("stop", "length", "cancelled", "slow_reader")


# ---- parts of several messages ---------------------------------------------------------------


@struct
class TokenBias:
    """`bias` is added to the logit of `token`."""

    token: Count
    bias: float


@struct
class Sampler:
    """How tokens are drawn from logits (spec/sampler.md). Temperature 0 is argmax.

    The options, all off when left out, are ranged by samplers.validate. Penalties and biases
    change the logits, `stop_tokens` end the answer like the model's own end tokens, `logprobs`
    asks for that many likeliest tokens beside each drawn one and changes no draw. `grammar` commits
    to a text that travels like the prompt, from client to node and sealed to auditors.
    """

    temperature: float
    top_k: Count
    top_p: float
    min_p: float
    repetition_penalty: float | None = None
    repetition_window: Count | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[tuple[TokenBias, ...], Size(0, limits.LOGIT_BIAS_ENTRIES_MAX)] | None = (
        None
    )
    stop_tokens: Annotated[tuple[Count, ...], Size(0, limits.STOP_TOKENS_MAX)] | None = None
    logprobs: Annotated[int, Range(0, limits.LOGPROBS_MAX)] | None = None
    grammar: Digest | None = None  # salted hash of the grammar whose tokens alone may be drawn


@struct
class Offer:
    """One model as one node serves it, with measured rates."""

    model: Digest
    class_id: Name
    slots: Annotated[int, Range(1, 4_096)]
    context: Count
    prefill_rate: Rate
    decode_rate: Rate
    grammar: Name | None = None  # draws by grammars, their masks computed by this


@struct
class Route:
    """How to reach a node."""

    node: Key
    addresses: Addresses


@struct
class ResumePoint:
    """Continue `ticket`'s answer after its first `count` tokens, with the same seed.

    `progress` is the last `Progress` the first node signed, if any: evidence that it had begun. A
    node is paid by its receipt alone, which it can hand in whenever it is back.
    """

    ticket: TicketId
    count: Count
    progress: Signed | None = None


# ---- any link --------------------------------------------------------------------------------


@message(2)
class Error:
    """The answer to a request that failed. `code` is a key of errors.CODES."""

    code: Name
    detail: Text
    retry_after_ms: Count | None = None


@message(4)
class Done:
    """The answer to a request that needs no other."""


# ---- client -> coordinator -------------------------------------------------------------------


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


@message(12)
class TicketGrant:
    """A signed ticket and where to take it."""

    ticket: Signed
    route: Route


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


@message(26)
class Models:
    """The catalogue."""

    models: Annotated[tuple[ModelSummary, ...], Size(0, 1_024)]


@message(28)
class GetPart:
    """Ask for a piece of a document: a "card" (`key`: model) or "credit" (`key`: account), the
    latest epoch's bundle."""

    what: Name
    key: Digest
    offset: Count


@message(30)
class Part:
    """A piece of a long document, which is `total` bytes in all."""

    total: Count
    data: Annotated[bytes, Size(0, 512 * 1024)]


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


# ---- node -> coordinator ---------------------------------------------------------------------


@message(50)
class Register:
    """Join, or renew. The key is the connection's own; all offers share the node's slots."""

    operator: Key
    offers: Annotated[tuple[Offer, ...], Size(1, limits.MODELS_PER_NODE_MAX)]
    addresses: Annotated[tuple[Address, ...], Size(1, limits.ADDRESSES_PER_NODE_MAX)]
    software: Name
    device: Name


@message(52)
class Registered:
    """The lease: heartbeats keep it alive."""

    heartbeat_ms: Count
    lease_ms: Count
    state: Name
    now_at: Time


@struct
class ModelLoad:
    """One of several models of a node."""

    model: Digest
    jobs: Count  # running and waiting
    wait_ms: Count  # until it should be loaded; 0 if it is


@message(54)
class Heartbeat:
    """The node's load now. Sent every `heartbeat_ms` and on any change of `draining`."""

    running: Count
    waiting: Count
    free_slots: Count
    draining: bool
    models: Annotated[tuple[ModelLoad, ...], Size(0, limits.MODELS_PER_NODE_MAX)] | None = None


@message(56)
class HeartbeatAck:
    """The lease is renewed; the node's standing."""

    state: Name
    audits_passed: Count
    audits_failed: Count
    earned: Credit
    escrow: Credit
    drawn: Count | None = None  # its jobs under audit: a node that leaves now cannot show them


# ---- audits: coordinator <-> node; all idempotent by audit id ---------------------------------


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


@message(70)
class AuditCommit:
    """Auditor -> coordinator: bound to its result before the executor's leaves are opened."""

    audit: AuditId
    commitment: Digest


@message(72)
class OpenLeaves:
    """Coordinator -> executor: open the leaves of this ticket's receipt."""

    audit: AuditId
    ticket: TicketId


@message(74)
class LeavesOpened:
    """Executor -> coordinator: the leaves' preimages; they must hash to the receipt's root."""

    audit: AuditId
    hashes: Annotated[bytes, Size(0, 32 * (limits.OUTPUT_TOKENS_MAX // limits.LEAF_TOKENS))]
    logits: Logits


@message(76)
class RevealRequest:
    """Coordinator -> auditor: the leaves are open, now show what you committed to."""

    audit: AuditId


@message(78)
class AuditReveal:
    """Auditor -> coordinator: the commitment's preimage.

    `mismatches` are output positions (from 0) whose token is not the one the model draws;
    `margins` are, for each of them, how far the drawn token was ahead, in thousandths of a logit.
    `fault` is set, and the rest empty, when the transcript contradicts the ticket or receipt.
    """

    audit: AuditId
    nonce: Nonce
    mismatches: Annotated[tuple[Count, ...], Size(0, limits.OUTPUT_TOKENS_MAX)]
    margins: Annotated[tuple[Count, ...], Size(0, limits.OUTPUT_TOKENS_MAX)]
    logits: Logits
    fault: Name | None = None


@message(80)
class AuditDecline:
    """Either side -> coordinator: cannot take part (`busy`, `transcript_lost`, ...)."""

    audit: AuditId
    code: Name


@message(81)
class StandingChanged:
    """Coordinator -> node: its state changed, and why. For the owner; needs no answer."""

    state: Name
    reason: Text


# ---- client <-> node: the job stream ----------------------------------------------------------


@message(90)
class StartJob:
    """Client -> node, first frame: the ticket, the nonce it commits to, and the prompt.

    `grammar` is there iff the ticket's sampler commits to one.
    """

    ticket: Signed
    nonce: Nonce
    prompt: Tokens
    grammar: Grammar | None = None


@message(92)
class TokenChunk:
    """Node -> client: the tokens at output positions `position`, `position` + 1, ...

    `logprobs` are there if the ticket's sampler asks for them. No receipt covers them.
    """

    position: Count
    tokens: Annotated[bytes, Size(4, 4 * limits.TOKENS_PER_FRAME_MAX)]
    progress: Signed | None = None
    logprobs: Logprobs | None = None


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


@message(112)
class Receipt:
    """Node-signed account of one job. Counts bill it; hashes and the root bind it."""

    ticket: TicketId
    model: Digest
    class_id: Name
    prompt_hash: Digest
    seed_hash: Digest
    output_hash: Digest
    root: Digest
    n_in: Count
    n_out: Count
    finish: Name
    started_at: Time
    first_at: Time
    ended_at: Time
