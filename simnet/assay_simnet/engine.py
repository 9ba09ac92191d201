"""What computes a simulated node's answers and replays: a language, drawn by the real sampler.

The methods in the middle are what cheats override, each one thing: which prompt is read, by which
weights, how a token is drawn, what is shown of it. All of it is deterministic: an engine's noise is
fixed by its key, the text and the job's seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from assay_node.engine.interface import Chunk, Finish, Generate, Replay, Replayed
from assay_protocol import sampling
from assay_protocol.adjustments import Logits
from assay_protocol.hashing import pack_tokens
from assay_protocol.samplers import SamplerLike, ends
from assay_protocol.sketches import sketch_rows
from assay_simnet.language import END, NOISE, Language, Reals, noisy

CHUNK_TOKENS: Final = 16  # drawn between two looks at the clock
EOG: Final = frozenset({END})
_LOUDNESS: Final = 0.2  # by so much, up or down at most, one job's noise differs from another's
Text = tuple[int, ...]


class Engine:
    """An honest engine. `noise` is its arithmetic's amplitude in logits; 0 is an exact class."""

    def __init__(self, language: Language, key: bytes, noise: float = NOISE) -> None:
        self.language, self.key, self.noise = language, key, noise

    # ---- what a cheat may change ----

    def prompt(self, request: Generate | Replay) -> Text:
        """The text the model reads before the answer."""
        return request.prompt

    def sampler(self, request: Generate) -> SamplerLike:
        """The sampler that tokens are drawn by."""
        return request.sampler

    def seed(self, request: Generate) -> bytes:
        """The seed of the noise that tokens are drawn by."""
        return request.seed

    def row(self, text: Text, count: int, loudness: float) -> Logits:
        """The logits after `text`, which ends with `count` tokens of the answer."""
        return self.heard(self.language.logits(text), text, loudness)

    def shown(self, text: Text, count: int, loudness: float, row: Logits) -> Logits:
        """The logits that the leaves are made of; `row` is what the token was drawn from."""
        return row

    def token(self, request: Generate, text: Text, count: int, drawn: int, row: Logits) -> int:
        """The token that is sent where `drawn` was drawn from `row`."""
        return drawn

    def goes_on(self, request: Generate, count: int, token: int) -> bool:
        """Whether the answer goes on after its token number `count`."""
        return token not in ends(request.sampler, EOG)

    # ---- what it does with them ----

    def answer(self, request: Generate) -> Iterator[Chunk]:
        """The answer in chunks of CHUNK_TOKENS."""
        prompt, loudness = self.prompt(request), self._loudness(request.seed)
        sampler, seed = self.sampler(request), self.seed(request)
        output: list[int] = []
        tokens: list[int] = []
        rows: list[Logits] = []
        for count in range(request.max_tokens):
            text = prompt + tuple(output)
            row = self.row(text, count, loudness)
            drawn = sampling.draw(row, sampler, seed, request.start + count, text)
            token = self.token(request, text, count, drawn, row)
            output.append(token)
            tokens.append(token)
            rows.append(self.shown(text, count, loudness, row))
            finish = self._finish(request, count + 1, token)
            if finish is not None or len(tokens) == CHUNK_TOKENS:
                place = request.start + count + 1 - len(tokens)
                yield _chunk(tuple(tokens), np.stack(rows), request.seed, place, finish)
                tokens, rows = [], []
            if finish is not None:
                return

    def replay(self, request: Replay) -> Replayed:
        """Teacher-force the output and draw again."""
        prompt, loudness = self.prompt(request), self._loudness(request.seed)
        texts = [prompt + request.output[:count] for count in range(len(request.output))]
        rows = np.stack([self.row(text, n, loudness) for n, text in enumerate(texts)])
        compared = sampling.replay(
            rows, request.output, request.sampler, request.seed, request.start, prompt
        )
        chunk = _chunk(request.output, rows, request.seed, request.start, None)
        return Replayed(
            drawn=compared.drawn,
            logits=chunk.logits,
            margins=compared.margins,
            sketches=chunk.sketches,
            gaps=compared.gaps,
        )

    def heard(self, row: Reals, text: Text, loudness: float) -> Logits:
        """The row as this engine's arithmetic gives it."""
        place = len(text).to_bytes(4, "little") + pack_tokens(text[-8:])
        return noisy(row, self.key, place, self.noise * loudness)

    def _finish(self, request: Generate, count: int, token: int) -> Finish | None:
        if not self.goes_on(request, count, token):
            return "stop"
        return "length" if count == request.max_tokens else None

    def _loudness(self, seed: bytes) -> float:
        word = hashlib.blake2b(self.key + seed, digest_size=4).digest()
        return 1.0 + _LOUDNESS * (int.from_bytes(word, "little") / 2**31 - 1.0)


def _chunk(tokens: Text, rows: Logits, seed: bytes, place: int, finish: Finish | None) -> Chunk:
    return Chunk(
        tokens=tokens,
        logits=rows[np.arange(len(tokens)), tokens].astype("<f4").tobytes(),
        finish=finish,
        sketches=sketch_rows(rows, [seed] * len(tokens), range(place, place + len(tokens))),
    )
