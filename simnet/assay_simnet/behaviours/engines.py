"""Engines that cheat: each is an honest one but for one thing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import numpy as np

from assay_node.engine.interface import Generate, Replay
from assay_protocol import sampling
from assay_protocol.adjustments import Logits
from assay_protocol.noise import gumbel
from assay_protocol.samplers import SamplerLike
from assay_simnet.engine import Engine, Text
from assay_simnet.language import VOCABULARY, variant_amplitude

ALWAYS: Final = range(1 << 30)


class OtherWeights(Engine):
    """Computes with a variant (language.DRIFT) at the answer's positions in `span`."""

    def __init__(self, honest: Engine, variant: str, span: range = ALWAYS) -> None:
        super().__init__(honest.language, honest.key, honest.noise)
        self.variant, self.span = variant, span

    def row(self, text: Text, count: int, loudness: float) -> Logits:
        if count not in self.span:
            return super().row(text, count, loudness)
        amplitude = variant_amplitude(self.variant)
        return self.heard(self.language.logits(text, self.variant, amplitude), text, loudness)


class ShownRight(OtherWeights):
    """Writes with a variant, then reads its text with the right model and shows that one's logits.

    `share`: how much of the way to the right logits it gets; 1 is what a prefill gives.
    """

    def __init__(self, honest: Engine, variant: str, share: float = 1.0) -> None:
        super().__init__(honest, variant)
        self.share = share

    def shown(self, text: Text, count: int, loudness: float, row: Logits) -> Logits:
        right = Engine.row(self, text, count, loudness)
        return (row + self.share * (right - row)).astype(np.float32)


class Louder(Engine):
    """Arithmetic `times` as noisy as an honest one's."""

    def __init__(self, honest: Engine, times: float) -> None:
        super().__init__(honest.language, honest.key, honest.noise * times)


class OtherPrompt(Engine):
    """Reads `changed(prompt)` instead of the prompt."""

    def __init__(self, honest: Engine, changed: Callable[[Text], Text]) -> None:
        super().__init__(honest.language, honest.key, honest.noise)
        self._changed = changed

    def prompt(self, request: Generate | Replay) -> Text:
        return self._changed(request.prompt)


class OtherSampler(Engine):
    """Draws by `changed(sampler)`."""

    def __init__(self, honest: Engine, changed: Callable[[SamplerLike], SamplerLike]) -> None:
        super().__init__(honest.language, honest.key, honest.noise)
        self._changed = changed

    def sampler(self, request: Generate) -> SamplerLike:
        return self._changed(request.sampler)


class OtherSeed(Engine):
    """Draws by a seed of its own; `tries` answers are drawn and the first is as good as any."""

    def seed(self, request: Generate) -> bytes:
        return hashlib.sha256(b"another seed" + request.seed).digest()


class LossyDrafts(OtherWeights):
    """Lets a variant draft each token, and accepts what the right model likes nearly as well."""

    def __init__(self, honest: Engine, variant: str, margin: float) -> None:
        super().__init__(honest, variant)
        self.margin = margin

    def row(self, text: Text, count: int, loudness: float) -> Logits:
        return Engine.row(self, text, count, loudness)

    def token(self, request: Generate, text: Text, count: int, drawn: int, row: Logits) -> int:
        drafts = OtherWeights.row(self, text, count, 1.0)
        position = request.start + count
        draft = sampling.draw(drafts, request.sampler, request.seed, position, text)
        both = np.array([drawn, draft])
        noise = request.sampler.temperature * gumbel(request.seed, position, both)
        ahead = float(row[drawn] + noise[0] - row[draft] - noise[1])
        return draft if ahead <= self.margin else drawn


class Edited(Engine):
    """Puts other tokens into the answer: `edit(count, drawn)`."""

    def __init__(self, honest: Engine, edit: Callable[[int, int], int]) -> None:
        super().__init__(honest.language, honest.key, honest.noise)
        self._edit = edit

    def token(self, request: Generate, text: Text, count: int, drawn: int, row: Logits) -> int:
        return self._edit(count, drawn)


class Endless(Engine):
    """Goes on after the end of the answer, up to the most that may be billed."""

    def goes_on(self, request: Generate, count: int, token: int) -> bool:
        return True


class Recited(Engine):
    """Recites `tokens`, and shows the logits it has for them.

    Where it has none (`computes` false) it makes them up.
    """

    def __init__(self, honest: Engine, tokens: Text, computes: bool) -> None:
        super().__init__(honest.language, honest.key, honest.noise)
        self.tokens, self.computes = tokens, computes

    def row(self, text: Text, count: int, loudness: float) -> Logits:
        if self.computes:
            return super().row(text, count, loudness)
        state = hashlib.sha256(self.key + repr(text[-3:]).encode()).digest()
        return made_up(state)

    def token(self, request: Generate, text: Text, count: int, drawn: int, row: Logits) -> int:
        return self.tokens[count] if count < len(self.tokens) else drawn


def made_up(state: bytes) -> Logits:
    """float32[VOCABULARY] that look like logits and are none."""
    words = np.frombuffer(hashlib.shake_128(state).digest(2 * VOCABULARY), "<u2")
    return (words.astype(np.float32) / 8_192 - 4.0).astype(np.float32)
