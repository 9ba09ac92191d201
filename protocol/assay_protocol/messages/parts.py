"""Types and parts that messages of several links share."""

from __future__ import annotations

from typing import Annotated, Final

from assay_protocol import limits
from assay_protocol.codec import Range, Size, struct

Key = Annotated[bytes, Size.exactly(32)]  # an Ed25519 public key; also names its owner
Digest = Annotated[bytes, Size.exactly(32)]
TicketId = Annotated[bytes, Size.exactly(16)]
AuditId = Annotated[bytes, Size.exactly(16)]
Nonce = Annotated[bytes, Size.exactly(32)]
Signed = Annotated[bytes, Size(65, limits.SIGNED_BYTES_MAX)]  # signature, then what was signed
Tokens = Annotated[bytes, Size(0, 4 * limits.PROMPT_TOKENS_MAX)]  # little-endian u32 each
Logits = Annotated[bytes, Size(0, 4 * limits.OUTPUT_TOKENS_MAX)]  # little-endian f32 each
LeafDigests = Annotated[bytes, Size(0, 32 * limits.LEAVES_MAX)]  # 32 bytes a leaf
Sketches = Annotated[bytes, Size(0, limits.SKETCH_BYTES * limits.OUTPUT_TOKENS_MAX)]  # sketches.py
# (u32 token, f32 logprob) pairs: of each drawn token, then of its `logprobs` likeliest rivals
Logprobs = Annotated[bytes, Size(8, 8 * (1 + limits.LOGPROBS_MAX) * limits.TOKENS_PER_FRAME_MAX)]
Grammar = Annotated[bytes, Size(1, limits.GRAMMAR_BYTES_MAX)]  # kind, newline, text (grammars.py)
Count = Annotated[int, Range(0, 1 << 31)]
TextLengths = Annotated[
    tuple[Annotated[int, Range(1, limits.PROMPT_TOKENS_MAX)], ...], Size(1, limits.TEXTS_MAX)
]
Dims = Annotated[int, Range(1, limits.DIMS_MAX)]
Credit = Annotated[int, Range(0, (1 << 63) - 1)]
Time = Annotated[int, Range(0, (1 << 63) - 1)]
Rate = Annotated[int, Range(0, 1 << 40)]
Name = Annotated[str, Size(1, 128)]
Text = Annotated[str, Size(0, limits.TEXT_BYTES_MAX)]
Address = Annotated[str, Size(1, 256)]
Addresses = Annotated[tuple[Address, ...], Size(0, limits.ADDRESSES_PER_NODE_MAX)]

Side = Annotated[int, Range(1, limits.IMAGE_SIDE_MAX)]

FINISH_REASONS: Final = ("stop", "length", "cancelled", "slow_reader")


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
    to a text that travels like the prompt, from client to node and sealed to auditors. With `texts`
    nothing is drawn and all else is off: the prompt is those texts, one after the other, and the
    answer is a vector for each (embeddings.py). `prompt_logprobs` asks for the logprobs of the
    prompt's tokens, each with that many likeliest (prompt_logprobs.py).
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
    texts: TextLengths | None = None  # nothing is drawn: embed texts of so many tokens each
    prompt_logprobs: Annotated[int, Range(0, limits.LOGPROBS_MAX)] | None = None


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
    dims: Dims | None = None  # embeds, as vectors of so many numbers, and does nothing else
    prompt_logprobs: bool | None = None  # tells logprobs of prompts, too


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


@struct
class Image:
    """Pixels, row by row from the top, three bytes each: red, green, blue (images.py)."""

    width: Side
    height: Side
    pixels: Annotated[bytes, Size(3, limits.IMAGES_BYTES_MAX)]


Images = Annotated[tuple[Image, ...], Size(1, limits.IMAGES_MAX)]
