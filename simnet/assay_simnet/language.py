"""A language that is only arithmetic: logits as a pure function of the text, cheap for sweeps.

What comes next depends on the last tokens, and a little on every earlier block of the text, as a
system prompt does. Other weights give logits that are off by some amplitude (a variant); other
arithmetic gives logits that are off by noise. Amplitudes are counted in `NOISE`, the honest noise
of one engine, so that a cheat can be given the drift measured of a real one: `variant_amplitude`.

The figures of DRIFT are hidden states' drift of SmolLM2-135M beside the honest one's (declared
Q8_0; docs/verification.md). Honest draws then differ on about 3 % of tokens, as measured there.
What real models do is measured by bench/verify; this stands in where thousands of jobs are wanted.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.adjustments import Logits
from assay_protocol.hashing import pack_tokens

Reals = NDArray[np.float64]

VOCABULARY: Final = 64
END: Final = 0
# What each token writes: a character from "@" to "~", so that prompts can hold words.
PIECES: Final = (b"", *(bytes([ord("@") + token - 1]) for token in range(1, VOCABULARY)))
NOISE: Final = 0.05  # logits: the most that an honest engine's arithmetic is off
BLOCK: Final = 8  # tokens of the text that lean on all later logits together
LEAN: Final = 1.5 * NOISE
_MEMORY: Final = 4  # last tokens that decide most
_SPREAD: Final = 8.0  # logits lie in [-_SPREAD / 2, _SPREAD / 2)
_LEANINGS_MAX: Final = 4_096  # remembered sums over blocks

DRIFT: Final = {
    "Q6_K": 2.3,
    "Q5_K_M": 5.8,
    "Q4_K_M": 5.3,
    "Q4_0": 11.9,
    "Q3_K_M": 7.9,
    "Q2_K": 13.1,
    "layer_1": 9.3,
    "layer_3": 15.9,
    "kv_q8_0": 1.1,
    "kv_q4_0": 4.4,
    "lora_off": 3.4,
    "other_model": 40.0,
}


def variant_amplitude(name: str) -> float:
    """How far the variant's logits are off, so that replays see DRIFT times the honest drift.

    Two honest engines differ by two noises; a variant's adds to these as independent errors do.
    """
    return NOISE * math.sqrt(2.0 * (DRIFT[name] ** 2 - 1.0))


class Language:
    """One model: `model` is its digest and the seed of all its logits."""

    def __init__(self, model: bytes, end_bias: float = -1.0) -> None:
        """`end_bias` is added to the end token's logit: lower means longer answers."""
        self.model, self._end_bias = model, end_bias
        self._leanings: OrderedDict[bytes, Reals] = OrderedDict()

    def logits(self, text: Sequence[int], variant: str = "", amplitude: float = 0.0) -> Reals:
        """float64[VOCABULARY]: what comes after `text`, by a variant that is off by `amplitude`."""
        state = pack_tokens(text[-_MEMORY:])
        row: Reals = _SPREAD * self._uniform(b"next", state) + self._leaning(text)
        if amplitude:
            row = row + 2 * amplitude * self._uniform(b"variant " + variant.encode(), state)
        row[END] += self._end_bias
        return row

    def _leaning(self, text: Sequence[int]) -> Reals:
        """What all whole blocks of the text add."""
        whole = len(text) - len(text) % BLOCK
        if not whole:
            return np.zeros(VOCABULARY)
        key = hashlib.blake2b(pack_tokens(text[:whole]), digest_size=16).digest()
        known = self._leanings.get(key)
        if known is None:
            block = pack_tokens(text[whole - BLOCK : whole])
            place = (whole // BLOCK).to_bytes(4, "little")
            own = 2 * LEAN * self._uniform(b"lean", place + block)
            known = self._leaning(text[: whole - BLOCK]) + own
            self._leanings[key] = known
            if len(self._leanings) > _LEANINGS_MAX:
                self._leanings.popitem(last=False)
        return known

    def _uniform(self, label: bytes, data: bytes) -> Reals:
        return uniform(self.model + label + data)


def uniform(data: bytes) -> Reals:
    """float64[VOCABULARY] in [-0.5, 0.5), fixed by `data`."""
    words = np.frombuffer(hashlib.shake_128(data).digest(2 * VOCABULARY), "<u2")
    return words.astype(np.float64) / 65_536 - 0.5


def noisy(row: Reals, key: bytes, place: bytes, amplitude: float) -> Logits:
    """float32: the row as one engine's arithmetic gives it, off by `amplitude` at most."""
    if amplitude:
        row = row + 2 * amplitude * uniform(key + place)
    return row.astype(np.float32)
