"""Draws our token from the likeliest few another server lists, or says that they do not decide.

A server that tells logprobs leaves out one constant a position, which no draw depends on, and all
tokens below a line. A draw from such a list is made only where none of the tokens left out could
have been drawn, so it is the draw of spec/sampler.md, not nearly that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay_protocol import sampling
from assay_protocol.adjustments import Logits
from assay_protocol.errors import AssayError
from assay_protocol.noise import GUMBEL_MOST, gumbel
from assay_protocol.samplers import SamplerLike, changes_logits

RANKED_FIRST: Final = 64  # asked for where the filters do not say how many can be drawn
RANKED_MAX: Final = 4_096
_SUM_DRIFT: Final = 1e-2  # servers add their probabilities up in float32
_REST_MIN: Final = 1e-30


@dataclass(frozen=True, slots=True)
class Ranking:
    """The likeliest tokens of one position, best first, each with its logprob (ln softmax)."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


def ranking(pairs: list[tuple[int, float]], n_vocab: int) -> Ranking:
    """Order and check what a server listed; raises AssayError("engine_failed")."""
    pairs = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    tokens, logprobs = tuple(t for t, _ in pairs), tuple(p for _, p in pairs)
    _require(bool(tokens) and len(set(tokens)) == len(tokens), "a token twice, or none")
    _require(all(0 <= token < n_vocab for token in tokens), "a token outside the vocabulary")
    _require(all(math.isfinite(p) and p <= _SUM_DRIFT for p in logprobs), "no logprobs")
    _require(math.fsum(map(math.exp, logprobs)) <= 1 + _SUM_DRIFT, "logprobs of no distribution")
    return Ranking(tokens, logprobs)


def ranks_needed(sampler: SamplerLike, n_vocab: int) -> int:
    """How many tokens to ask for at first.

    Raises AssayError("sampler_refused") for a sampler that cannot be drawn from a list: penalties
    and biases reorder what is left out, and without a filter everything can be drawn.
    """
    if changes_logits(sampler):
        raise AssayError("sampler_refused", "this engine takes no penalties and no biases")
    least = 1 + (sampler.logprobs or 0)
    if sampler.temperature > 0.0:
        filtered = sampler.top_k or sampler.top_p < 1.0 or sampler.min_p > 0.0
        if not filtered or sampler.top_k > RANKED_MAX:
            raise AssayError("sampler_refused", f"this engine needs a top_k up to {RANKED_MAX}")
        least = max(least, sampler.top_k or RANKED_FIRST)
    return min(max(least, 2), n_vocab)


def draw(
    ranked: Ranking, n_vocab: int, sampler: SamplerLike, seed: bytes, position: int
) -> tuple[int, Logits] | None:
    """The token and float32[n_vocab] logprobs, or None if a token left out might be drawn.

    Tokens left out share what probability is left, so the row is whole for top-p and logprobs.
    """
    row = _row(ranked, n_vocab)
    token = sampling.draw(row, sampler, seed, position)
    return (token, row) if _decides(ranked, row, token, sampler, seed, position) else None


def _row(ranked: Ranking, n_vocab: int) -> Logits:
    values = np.array(ranked.logprobs, np.float32)
    left = n_vocab - len(values)
    rest = max(1.0 - math.fsum(map(math.exp, ranked.logprobs)), _REST_MIN) / max(left, 1)
    below = np.nextafter(values[-1], np.float32(-np.inf))
    row = np.full(n_vocab, min(np.float32(math.log(rest)), below), np.float32)
    row[list(ranked.tokens)] = values
    return row


def _decides(
    ranked: Ranking, row: Logits, token: int, sampler: SamplerLike, seed: bytes, position: int
) -> bool:
    listed, last = len(ranked.tokens), ranked.logprobs[-1]
    if listed == len(row) or sampler.temperature == 0.0 or 0 < sampler.top_k <= listed:
        return True
    if sampler.top_k:
        return False  # top-p counts what is left of top-k, and that is not listed
    if sampler.min_p > 0.0 and last < ranked.logprobs[0] + math.log(sampler.min_p):
        return True
    if sampler.top_p < 1.0 and math.fsum(map(math.exp, ranked.logprobs)) >= (
        sampler.top_p * (1 + _SUM_DRIFT)
    ):
        return True
    if token not in ranked.tokens:
        return False
    noise = float(gumbel(seed, position, np.array([token]))[0])
    score = float(row[token]) + sampler.temperature * noise
    return last + sampler.temperature * GUMBEL_MOST < score


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssayError("engine_failed", f"the server listed {what}")
