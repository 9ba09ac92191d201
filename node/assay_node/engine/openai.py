"""An engine of somebody else's: a server with OpenAI's or llama-server's completions, behind ours.

The server computes; this node draws. It asks for the likeliest tokens of one position at a time
and draws by the ticket's seed like any engine (rankings.py), so answers resume, replay and are
audited as everywhere. What it cannot tell is raw logits: its class ends in /L, and the leaves hold
logprobs (docs/decisions/0004-other-engines.md). It replays nothing, so it is asked for no audits.

    well --a call fails--> resting, 1 to 60 s --the next job's call works--> well
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from assay_node.engine import rankings
from assay_node.engine.benchmark import measure
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
from assay_node.engine.requests import check_generate
from assay_node.engine.upstream import Completions, Dialect, Http, LlamaServer, Place, make_client
from assay_protocol.adjustments import asked_logprobs
from assay_protocol.cards import ModelCard, TokenType
from assay_protocol.errors import AssayError
from assay_protocol.samplers import ends

KEY_BYTES_MAX: Final = 4_096
WAITING_MAX: Final = 16
REST_SECONDS: Final = (1.0, 60.0)  # after the first failure in a row, and at most
GROWTH: Final = 8  # a list that does not decide is asked for again, so much longer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server is and how to talk to it. The key stays out of every repr."""

    url: str
    key: str = field(default="", repr=False)
    model: str = ""  # the server's name for the model; empty: the card's
    slots: int = 4
    context: int = 2_048


class ServedEngine:
    """Open it with open_served_engine."""

    def __init__(self, card: ModelCard, settings: ServerSettings, dialect: Dialect) -> None:
        self.info = EngineInfo(
            model=card.model,
            n_vocab=card.n_vocab,
            context=min(settings.context, card.context),
            slots=settings.slots,
            class_id=f"openai/{dialect.name}/{card.quantization}/L",
            eog=frozenset(card.eog),
            device="another server",
        )
        self._dialect = dialect
        self._free = list(range(settings.slots))
        self._room = trio.Semaphore(settings.slots)
        self._jobs = self._running = self._salts = 0
        self._failures = self._restarts = 0
        self._rests_until = -1.0

    @property
    def load(self) -> Load:
        return Load(
            running=self._running,
            waiting=self._jobs - self._running,
            free_slots=self.info.slots - self._running,
            restarts=self._restarts,
        )

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Chunk]]:
        check_generate(self.info, request)
        count = rankings.ranks_needed(request.sampler, self.info.n_vocab)
        self._check_rested()
        if self._jobs >= self.info.slots + WAITING_MAX:
            raise AssayError("busy")
        self._jobs += 1
        try:
            async with self._room:
                slot = self._free.pop()
                self._running += 1
                try:
                    async with aclosing(self._answer(request, count, slot)) as answer:
                        yield answer
                finally:
                    self._running -= 1
                    self._free.append(slot)
        finally:
            self._jobs -= 1

    async def replay(self, request: Replay) -> Replayed:
        """Never: raises AssayError("class_refused"). The node declines audits before it asks."""
        raise AssayError("class_refused", "this engine cannot replay")

    async def benchmark(self) -> Benchmark:
        return await measure(self)

    async def check_bounds(self) -> None:
        """A slot the server lacks would wait for ever; raises AssayError("config_invalid")."""
        slots, context = await self._dialect.bounds()
        if slots is not None and slots < self.info.slots:
            raise AssayError("config_invalid", f"slots: the server has {slots}")
        if context is not None and context < self.info.context:
            raise AssayError("config_invalid", f"context: the server has {context} for each slot")

    async def _answer(
        self, request: Generate, count: int, slot: int
    ) -> AsyncGenerator[Chunk, None]:
        self._salts += 1
        text, last = list(request.prompt), ends(request.sampler, self.info.eog)
        for number in range(request.max_tokens):
            place = Place(slot, number == 0, str(self._salts))
            token, chunk_of = await self._draw(request, text, count, request.start + number, place)
            text.append(token)
            finish: Finish | None = "length" if number == request.max_tokens - 1 else None
            yield chunk_of("stop" if token in last else finish)
            if token in last:
                return

    async def _draw(
        self, request: Generate, text: list[int], count: int, position: int, place: Place
    ) -> tuple[int, _ChunkOf]:
        """One token, from as long a list as it takes."""
        sampler, n_vocab = request.sampler, self.info.n_vocab
        while True:
            ranked = await self._rank(text, count, place)
            drawn = rankings.draw(ranked, n_vocab, sampler, request.seed, position)
            if drawn is not None:
                token, row = drawn
                told = asked_logprobs(row, token, sampler)
                return token, _ChunkOf(token, row[token].astype("<f4").tobytes(), told)
            if count >= min(rankings.RANKED_MAX, n_vocab):
                raise AssayError("engine_failed", "the server's longest list does not decide")
            count = min(count * GROWTH, rankings.RANKED_MAX, n_vocab)
            place = Place(place.slot, False, place.salt)

    async def _rank(self, text: list[int], count: int, place: Place) -> rankings.Ranking:
        try:
            ranked = await self._dialect.rank(text, count, place)
            if len(ranked.tokens) < count:
                raise AssayError("engine_failed", "the server listed fewer tokens than asked for")
        except AssayError as error:
            if error.code == "engine_failed":
                self._rest()
            raise
        self._failures = 0
        return ranked

    def _rest(self) -> None:
        """Jobs at once would each count the same fault: while it rests, no more are counted."""
        now = trio.current_time()
        if now < self._rests_until:
            return
        shortest, longest = REST_SECONDS
        self._rests_until = now + min(shortest * 2.0 ** min(self._failures, 16), longest)
        self._failures += 1
        self._restarts += 1

    def _check_rested(self) -> None:
        left = self._rests_until - trio.current_time()
        if left > 0:
            raise AssayError("busy", "the server failed", retry_after_ms=1 + int(1_000 * left))


@dataclass(frozen=True, slots=True)
class _ChunkOf:
    """A chunk of one token that lacks only its finish."""

    token: int
    logprob: bytes
    told: bytes

    def __call__(self, finish: Finish | None) -> Chunk:
        return Chunk((self.token,), self.logprob, finish, self.told)


@asynccontextmanager
async def open_served_engine(
    card: ModelCard, settings: ServerSettings
) -> AsyncIterator[ServedEngine]:
    """The engine in front of a server that was asked once whether it can serve.

    Raises AssayError: "engine_failed" saying why neither way of asking works, "config_invalid" if
    the server has fewer slots or less context than the settings say.
    """
    async with make_client(settings.url, settings.key, settings.slots + 2) as client:
        http = Http(client)
        dialects: tuple[Dialect, ...] = (
            LlamaServer(http, card.n_vocab, whole_token(card)),
            Completions(http, card.n_vocab, settings.model or card.name),
        )
        engine = ServedEngine(card, settings, await _spoken(dialects, card))
        await engine.check_bounds()
        yield engine


def read_key(file: str) -> str:
    """The server's key in `file`, or none if no file is named.

    Raises AssayError: "key_permissions" if others can read it, "config_invalid" if there is none.
    """
    if not file:
        return ""
    try:
        with Path(file).expanduser().open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                raise AssayError("key_permissions", f"{file} must have mode 0600")
            key = opened.read(KEY_BYTES_MAX + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AssayError("config_invalid", f"cannot read a key in {file}") from error
    if not 0 < len(key) <= KEY_BYTES_MAX or not key.isprintable() or " " in key:
        raise AssayError("config_invalid", f"{file} holds no key")
    return key


def whole_token(card: ModelCard) -> int:
    """A token that is one printable ASCII character and ends no answer.

    Raises AssayError("card_invalid") if there is none.
    """
    for token, piece in enumerate(card.pieces):
        ordinary = card.token_types[token] == TokenType.NORMAL and token not in card.eog
        if ordinary and len(piece) == 1 and piece.isalpha():
            return token
    raise AssayError("card_invalid", "the vocabulary has no letter")


async def _spoken(dialects: tuple[Dialect, ...], card: ModelCard) -> Dialect:
    """The first dialect that lists the likeliest tokens after a prompt of one."""
    reasons = []
    for dialect in dialects:
        try:
            await dialect.rank([whole_token(card)], 2, Place(0, True, "probe"))
        except AssayError as error:
            reasons.append(f"{dialect.name}: {error.message}")
        else:
            return dialect
    raise AssayError("engine_failed", "the server cannot serve: " + "; ".join(reasons))
