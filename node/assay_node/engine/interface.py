"""What a node asks of an inference engine: generate, replay, benchmark.

Engines know tokens and logits; they know nothing of tickets, peers or money. The same interface is
kept by the llama.cpp engine (a child process) and by the scripted engine of the tests, so a node
cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from assay_protocol.messages import Image
from assay_protocol.samplers import SamplerLike

Finish = Literal["stop", "length"]

# Classes of jobs: a higher one is begun first and, where every slot is taken, preempts a lower one.
PRIORITY_LOW: Final = 0
PRIORITY_NORMAL: Final = 1
PRIORITY_HIGH: Final = 2
PRIORITIES: Final = (PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_HIGH)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded and how it computes."""

    model: bytes  # its name: sha256 of its file, or of it with a projector (cards.seeing_model)
    n_vocab: int
    context: int  # tokens per sequence, prompt and answer together
    slots: int  # sequences decoded at once
    class_id: str  # numerics class: engine, commit, device, road, kv, quant, exact or float
    eog: frozenset[int]  # tokens that end an answer
    device: str
    grammar: str = ""  # what computes the masks of grammars (masks.DIALECT); "": none are kept
    adapters: tuple[bytes, ...] = ()  # sha256 of each LoRA adapter that may be asked for
    pieces: tuple[bytes, ...] = ()  # the bytes of each token, where no card says them
    dims: int = 0  # numbers in a vector, of a model that embeds texts and writes no answers
    tells_prompts: bool = False  # logprobs of a prompt may be asked for
    image_tokens: int = 0  # positions that an image takes in a prompt; 0: none are read


@dataclass(frozen=True, slots=True)
class Generate:
    """Draw up to `max_tokens` after `prompt`; the first one stands at output position `start`.

    On resume `start` > 0 and `prompt` already ends with the `start` tokens drawn elsewhere. Where
    the sampler has `texts` nothing is drawn: `prompt` is those texts, to be embedded.
    """

    prompt: tuple[int, ...]
    start: int
    max_tokens: int
    sampler: SamplerLike
    seed: bytes  # 32 bytes
    tenant: bytes = b""  # who asks: turns are fair and cached prefixes private between tenants
    shared: int = 0  # so many of the prompt's first tokens may be cached for every tenant
    priority: int = PRIORITY_NORMAL  # one of PRIORITIES; engines without classes serve all alike
    grammar: bytes | None = None  # packed (grammars.py): only what it allows is drawn
    adapter: bytes | None = None  # one of EngineInfo.adapters; None: the model as it is
    images: tuple[Image, ...] = ()  # those the prompt spells, in its order (images.py)

    @property
    def tells_prompt(self) -> bool:
        """Whether logprobs of the prompt come first: not where an answer goes on."""
        return self.sampler.prompt_logprobs is not None and self.start == 0


@dataclass(frozen=True, slots=True)
class Replay:
    """Recompute the draws of `output`, whose first token stands at output position `start`; or,
    where the sampler has `texts`, embed those that stand in `prompt`."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]
    start: int
    sampler: SamplerLike
    seed: bytes  # 32 bytes
    normalized: bool = False  # tell logprobs of the output tokens instead of raw logits
    grammar: bytes | None = None
    adapter: bytes | None = None
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next tokens of an answer. `finish` is set in the last chunk and only there.

    Where the prompt is told of, chunks with `prompt_logprobs` and nothing else come first.
    """

    tokens: tuple[int, ...]
    logits: bytes  # little-endian f32 each: the drawn token's raw logit, in a class /L its logprob
    finish: Finish | None  # "stop": the last token ends the answer; "length": max_tokens reached
    logprobs: bytes = b""  # adjustments.token_logprobs, if the sampler asks for them
    sketches: bytes = b""  # SKETCH_BYTES a token (sketches.py); none in a class /L
    vectors: bytes = b""  # of the next texts, instead of tokens: f32, EngineInfo.dims of them each
    prompt_logprobs: bytes = b""  # adjustments.prompt_pairs of the next prompt tokens


@dataclass(frozen=True, slots=True)
class Replayed:
    """One entry of each per output token."""

    drawn: tuple[int, ...]  # what this engine would have drawn there
    logits: (
        bytes  # little-endian f32 each: this engine's raw logit (or logprob) of the *output* token
    )
    margins: tuple[float, ...]  # sampling.replay: logits by which the output token lost, or 0.0;
    # infinite for the first token outside the grammar, after which nothing is constrained
    gaps: tuple[float, ...]  # sampling.replay: logits of drift that leave this engine's own draw
    sketches: bytes = b""  # SKETCH_BYTES a token; none if logprobs were asked for
    vectors: bytes = b""  # of each text, and nothing else, where texts were asked for


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Measured rates in tokens per second, all slots together."""

    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is now, and how often it had to be started again."""

    running: int
    waiting: int
    free_slots: int
    restarts: int


class Engine(Protocol):
    """One loaded model. Every method raises AssayError and nothing else of its own.

    Codes: "engine_failed" (it died; resume elsewhere), "busy" (no room now), "prompt_too_long",
    "malformed" (token outside the vocabulary, empty prompt), "sampler_refused", "grammar_refused",
    "adapter_unknown", "task_refused", "not_finite" (a text has no vector), "image_refused".
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def load(self) -> Load: ...

    def generate(self, request: Generate) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Stream an answer. Leaving the context cancels the job within one step."""
        ...

    async def replay(self, request: Replay) -> Replayed:
        """Teacher-force `output` in one prefill and draw again at every position."""
        ...

    async def benchmark(self) -> Benchmark:
        """Measure this machine with this model; raises "busy" while jobs run."""
        ...
