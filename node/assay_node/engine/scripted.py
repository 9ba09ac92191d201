"""A scripted engine: the engine interface over a language model that is only arithmetic.

For tests and simulations. Its logits are a pure function of (model seed, last tokens, place in the
text) over a small vocabulary, drawn by the same sampler as everywhere, so resume, replay, audit and
cheating behave as with a real model: a replay of an honest answer is exact to the bit, and one by
another script is not. Its class id and device say "scripted"; it never passes for a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import trio

from assay_node.engine.benchmark import measure
from assay_node.engine.grammar import Follower, Grammars, dialect
from assay_node.engine.interface import (
    Benchmark,
    Chunk,
    EngineInfo,
    Finish,
    Generate,
    Load,
    Replay,
    Replayed,
)
from assay_node.engine.requests import check_generate, check_replay
from assay_protocol import sampling
from assay_protocol.adjustments import Logits, asked_logprobs, logprobs_of, prompt_pairs
from assay_protocol.errors import AssayError
from assay_protocol.images import IMAGE_TOKEN
from assay_protocol.noise import Reals, philox
from assay_protocol.samplers import ends
from assay_protocol.sketches import sketch_rows

if TYPE_CHECKING:
    from assay_protocol.masks import Matcher

END: Final = 0  # the one end-of-generation token
_TOLD_TOKENS: Final = 48  # of a prompt, in one chunk
_MEMORY: Final = 4  # how many last tokens the next logits depend on
_SPREAD: Final = 8.0  # logits lie in [-_SPREAD / 2, _SPREAD / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A scripted language model and the ways it is told to misbehave."""

    model: bytes = b"scripted model".ljust(32, b".")  # its digest, and the seed of its logits
    n_vocab: int = 256
    end_bias: float = -4.0  # added to the end token's logit: lower means longer answers
    perturbation: float = 0.0  # > 0: a cheaper model, whose logits are off by up to this much
    seconds_per_token: float = 0.0
    seconds_per_prompt_token: float = 0.0
    grammars: bool = False  # token i is the byte i; needs the `grammar` extra
    image_tokens: int = 0  # places that an image takes in a prompt; 0: none are read
    die_at: int | None = None  # fail every running job when this many tokens were drawn in all


class ScriptedEngine:
    """Open it with open_scripted_engine."""

    def __init__(self, script: Script, *, slots: int, context: int, waiting_max: int) -> None:
        letters = [bytes([i]) if i < 256 and i != END else b"" for i in range(script.n_vocab)]
        self.info = EngineInfo(
            model=script.model,
            n_vocab=script.n_vocab,
            context=context,
            slots=slots,
            class_id="scripted",
            eog=frozenset({END}),
            device="scripted",
            grammar=dialect() if script.grammars else "",
            pieces=tuple(letters),
            tells_prompts=True,
            image_tokens=script.image_tokens,
        )
        self.grammars = Grammars(lambda: letters, self.info.eog)
        self._script = script
        self._waiting_max = waiting_max
        self._slots = trio.Semaphore(slots)
        self._jobs = 0
        self._running = 0
        self._drawn = 0
        self._restarts = 0

    @property
    def load(self) -> Load:
        return Load(
            running=self._running,
            waiting=self._jobs - self._running,
            free_slots=self.info.slots - self._running,
            restarts=self._restarts,
        )

    def die(self) -> None:
        """Fail every running job with "engine_failed"; jobs begun later are served."""
        self._restarts += 1

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Chunk]]:
        check_generate(self.info, request)
        if self._jobs >= self.info.slots + self._waiting_max:
            raise AssayError("busy")
        self._jobs += 1
        try:
            async with self._slots:
                self._running += 1
                try:
                    yield _Answer(self, request, self._restarts)
                finally:
                    self._running -= 1
        finally:
            self._jobs -= 1

    async def replay(self, request: Replay) -> Replayed:
        check_replay(self.info, request)
        life = self._restarts
        length = len(request.prompt) + len(request.output)
        await trio.sleep(self._script.seconds_per_prompt_token * length)
        self._check_alive(life)
        text = request.prompt + request.output
        rows = np.stack([self.logits(text[:end]) for end in range(len(request.prompt), len(text))])
        masks = None
        if request.grammar is not None:
            masks = Follower(self.grammars.matcher(request)).along(request.output)
        compared = sampling.replay(
            rows,
            request.output,
            request.sampler,
            request.seed,
            request.start,
            request.prompt,
            masks,
        )
        output, sketches = request.output, b""
        if request.normalized:
            own = logprobs_of(rows, output)
        else:
            own = rows[np.arange(len(rows)), output]
            positions = range(request.start, request.start + len(output))
            sketches = sketch_rows(rows, [request.seed] * len(output), positions)
        logits = own.astype("<f4").tobytes()
        return Replayed(compared.drawn, logits, compared.margins, compared.gaps, sketches)

    async def benchmark(self) -> Benchmark:
        return await measure(self)

    def logits(self, text: Sequence[int]) -> Logits:
        """float32[n_vocab]: what the script says comes after `text`."""
        logits: Reals = _SPREAD * (self._uniform(text, b"") - 0.5)
        if self._script.perturbation:
            logits += 2 * self._script.perturbation * (self._uniform(text, b"cheaper") - 0.5)
        logits[END] += self._script.end_bias
        return logits.astype(np.float32)

    async def tell(self, request: Generate, begin: int, life: int) -> Chunk:
        """Of the prompt's next tokens, those after token `begin`."""
        end = min(begin + _TOLD_TOKENS, len(request.prompt) - 1)
        await trio.sleep((end - begin) * self._script.seconds_per_prompt_token)
        self._check_alive(life)
        rows = np.stack([self.logits(request.prompt[: at + 1]) for at in range(begin, end)])
        tokens = request.prompt[begin + 1 : end + 1]
        told = prompt_pairs(rows, tokens, request.sampler)
        return Chunk((), b"", None, prompt_logprobs=told)

    async def advance(
        self, request: Generate, drawn: list[int], life: int, matcher: Matcher | None
    ) -> Chunk:
        """Draw the next token after `drawn` and append it."""
        script = self._script
        reading = len(request.prompt) * script.seconds_per_prompt_token if not drawn else 0.0
        await trio.sleep(reading + script.seconds_per_token)
        if script.die_at is not None and self._drawn == script.die_at:
            self._drawn += 1  # once
            self.die()
        self._check_alive(life)
        sampler, text = request.sampler, request.prompt + tuple(drawn)
        logits = self.logits(text)
        allowed = None if matcher is None else matcher.allowed()
        position = request.start + len(drawn)
        token = sampling.draw(logits, sampler, request.seed, position, text, allowed)
        if matcher is not None:
            matcher.advance(token)
        drawn.append(token)
        self._drawn += 1
        finish: Finish | None
        stops = token in ends(sampler, self.info.eog)
        finish = "stop" if stops else "length" if len(drawn) == request.max_tokens else None
        value = np.float32(logits[token]).astype("<f4").tobytes()
        told = asked_logprobs(logits, token, sampler)
        sketches = sketch_rows(logits[None, :], [request.seed], [position])
        return Chunk((token,), value, finish, told, sketches)

    def _uniform(self, text: Sequence[int], salt: bytes) -> Reals:
        """float64[n_vocab] in [0, 1) from the last tokens and their place, and all images."""
        reads = self._script.image_tokens
        seen = [token for token in text[:-_MEMORY] if token >= IMAGE_TOKEN] if reads else []
        state = np.array([len(text), *text[-_MEMORY:], *seen], "<u8").tobytes()
        digest = hashlib.blake2b(state, key=self._script.model, person=salt, digest_size=16)
        words = np.frombuffer(digest.digest(), "<u4").astype(np.uint64)
        blocks = np.arange((self._script.n_vocab + 3) // 4, dtype=np.uint64)
        counter = np.zeros((4, len(blocks)), np.uint64)
        counter[0], counter[1], counter[2] = words[0], words[1], blocks
        noise = philox(counter, words[2:].reshape(2, 1))
        uniform = noise.T.reshape(-1)[: self._script.n_vocab]
        return uniform.astype(np.float64) * 2.0**-32

    def _check_alive(self, life: int) -> None:
        if life != self._restarts:
            raise AssayError("engine_failed", "the script told the engine to die")


class _Answer:
    """One answer being drawn, one token a chunk, after what is told of the prompt."""

    def __init__(self, engine: ScriptedEngine, request: Generate, life: int) -> None:
        self._engine, self._request, self._life = engine, request, life
        self._drawn: list[int] = []
        self._over = False
        self._told = 0 if request.tells_prompt else len(request.prompt) - 1
        self._matcher = None if request.grammar is None else engine.grammars.matcher(request)

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> Chunk:
        if self._over:
            raise StopAsyncIteration
        if self._told < len(self._request.prompt) - 1:
            chunk = await self._engine.tell(self._request, self._told, self._life)
            self._told += _TOLD_TOKENS
            return chunk
        chunk = await self._engine.advance(self._request, self._drawn, self._life, self._matcher)
        self._over = chunk.finish is not None
        return chunk


@asynccontextmanager
async def open_scripted_engine(
    script: Script | None = None, *, slots: int = 4, context: int = 2048, waiting_max: int = 16
) -> AsyncIterator[ScriptedEngine]:
    """An engine that lives in this process; nothing to start, nothing to stop."""
    yield ScriptedEngine(script or Script(), slots=slots, context=context, waiting_max=waiting_max)
