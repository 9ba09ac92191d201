"""The vocabulary of a client's job: what is asked, what happened, what to do, how it ended.

`core.JobMachine.handle(now, event)` takes the events and returns the effects. Every event and
effect that concerns a stream or a ticket request names the attempt it belongs to, so that whatever
comes late is known as such. Times are microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from assay_protocol.errors import AssayError
from assay_protocol.logprobs import TokenLogprobs
from assay_protocol.messages import (
    AbandonJob,
    Image,
    Route,
    Sampler,
    Standing,
    SubmitJob,
    SubmitReceipt,
    TicketGrant,
)


@dataclass(frozen=True, slots=True)
class Job:
    """What a client wants answered.

    `nonce` is 32 fresh random bytes: whoever runs the machine draws them. `stop_tokens` are the
    model's end-of-answer tokens and the sampler's, `vocabulary` how many tokens it has. A ticket
    dearer than the given prices is refused. `verify` is one of VERIFY_LEVELS; a job with a `twin`
    draws what that ticket of the same client's draws, on a node of another operator.
    """

    model: bytes
    prompt: tuple[int, ...]
    sampler: Sampler
    max_tokens: int
    nonce: bytes
    stop_tokens: frozenset[int] = frozenset()
    vocabulary: int = 1 << 32
    only: tuple[bytes, ...] = ()
    avoid: tuple[bytes, ...] = ()  # nodes it must not go to
    regions: tuple[str, ...] = ()  # where alone its nodes may say they are; empty: anywhere
    grammar: bytes | None = field(default=None, repr=False)  # packed; the sampler commits to it
    price_in_max: int | None = None
    price_out_max: int | None = None
    verify: str = "sample"
    twin: bytes | None = None
    dims: int = 0  # of the vectors, where the sampler has texts to embed
    images: tuple[Image, ...] = field(default=(), repr=False)  # those that the prompt spells


@dataclass(frozen=True, slots=True)
class JobLimits:
    """How long and how often a client tries; microseconds unless named otherwise.

    A verdict is asked for after `verdict_us`, then ever more rarely, and not after
    `verdict_total_us`: longer than a coordinator gives an audit (its `audit_case_us`).
    """

    attempts_max: int = 8
    ask_us: int = 10_000_000
    first_token_us: int = 60_000_000
    stall_us: int = 15_000_000
    total_us: int = 900_000_000
    backoff_us: int = 250_000
    backoff_max_us: int = 8_000_000
    cancel_us: int = 2_000_000
    verdict_us: int = 500_000
    verdict_most_us: int = 8_000_000
    verdict_total_us: int = 1_200_000_000


# ---- what happened ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The caller wants the job run."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The coordinator answered `AskTicket` with a ticket."""

    attempt: int
    grant: TicketGrant


@dataclass(frozen=True, slots=True)
class Refused:
    """The coordinator answered `AskTicket` with an error, or could not be asked."""

    attempt: int
    error: AssayError


@dataclass(frozen=True, slots=True)
class Received:
    """A frame came on the attempt's stream."""

    attempt: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The attempt's stream could not be opened, or ended."""

    attempt: int
    error: AssayError


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The caller wants no more tokens."""


@dataclass(frozen=True, slots=True)
class Tick:
    """`wake_at` has come."""


Event = Begin | Granted | Refused | Received | StreamLost | CancelAsked | Tick


# ---- what to do -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskTicket:
    """Send `body` to the coordinator; answer with Granted or Refused."""

    attempt: int
    body: SubmitJob


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a job stream to the node with `first` as its first frame; feed back every frame."""

    attempt: int
    route: Route
    first: bytes


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send `frame` on the attempt's stream; if that fails its end will be reported anyway."""

    attempt: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class CloseStream:
    """The attempt's stream is done with. `clean`: let what was sent arrive first."""

    attempt: int
    clean: bool


@dataclass(frozen=True, slots=True)
class HandIn:
    """Tell the coordinator; try again later if it cannot be reached. Idempotent there."""

    body: SubmitReceipt | AbandonJob


@dataclass(frozen=True, slots=True)
class TokensDrawn:
    """For the caller: answer tokens from `position` on, as `node` drew them."""

    position: int
    tokens: tuple[int, ...]
    node: bytes
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptTold:
    """For the caller, once and before the first token: logprobs of the prompt, as `node` told them;
    an entry for each token but the first."""

    entries: tuple[TokenLogprobs, ...]
    node: bytes


@dataclass(frozen=True, slots=True)
class Resumed:
    """For the caller: the answer goes on at `to_node` from token `at_token`, bit for bit."""

    from_node: bytes
    to_node: bytes
    at_token: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One node's share of an answer; `receipt` is None if the node vanished before signing one.

    `vectors` are those the receipt covers, packed f32, of a job that embeds, `prompt_logprobs`
    those that were told of the prompt, packed.
    """

    node: bytes
    ticket: bytes
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    receipt: bytes | None
    standing: Standing | None = None  # the coordinator's word of the node, with the ticket
    vectors: bytes = b""
    prompt_logprobs: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: `finish` is stop, length, cancelled or failed (then `error` says why).

    `twin`: the segments of the second drawing, if there was one.
    """

    tokens: tuple[int, ...]
    finish: str
    error: AssayError | None
    segments: tuple[Segment, ...]
    attempts: int
    twin: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """For the caller: nothing follows, except hand-ins of tickets that came too late."""

    outcome: Outcome


Effect = (
    AskTicket
    | OpenStream
    | SendFrame
    | CloseStream
    | HandIn
    | PromptTold
    | TokensDrawn
    | Resumed
    | Ended
)
