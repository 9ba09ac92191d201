"""How a token is drawn from logits: a pure function of (logits, sampler, seed, position).

Noise is addressed by (position, token), so any machine that holds the seed draws the same token at
any position without having drawn the ones before: a job can be resumed on another node and replayed
by an auditor. Normative text: spec/sampler.md; vectors: spec/vectors/sampling.json.

The draw is the Gumbel-max trick: argmax(l + T*G), with G standard Gumbel, is one sample from
softmax(l / T) (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030). Under small numeric drift it
changes its mind far less often than inverting a cumulative distribution would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import TEMPERATURE_MAX, TOP_K_MAX

SEED_BYTES: Final = 32

Logits = NDArray[np.float32]
Tokens = NDArray[np.int64]
Reals = NDArray[np.float64]
_Words = NDArray[np.uint64]


class SamplerLike(Protocol):
    """The settings of a draw. 0 switches top_k and min_p off, 1 switches top_p off."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Replay:
    """One entry per position: the token drawn here, and how far the given token was from winning.

    A margin is the robust margin rho of `margin`, in logits; 0.0 where both tokens are equal.
    """

    drawn: tuple[int, ...]
    margins: tuple[float, ...]


def validate(sampler: SamplerLike) -> None:
    """Raise ProtocolError("sampler_refused") unless every setting is in range."""
    ranges = (
        ("temperature", sampler.temperature, 0.0, TEMPERATURE_MAX),
        ("top_k", sampler.top_k, 0, TOP_K_MAX),
        ("top_p", sampler.top_p, 0.0, 1.0),
        ("min_p", sampler.min_p, 0.0, 1.0),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:  # false for NaN, too
            raise ProtocolError("sampler_refused", f"{name} must be in [{low}, {high}]")
    if sampler.top_p == 0.0:
        raise ProtocolError("sampler_refused", "top_p must be above 0")


def gumbel(seed: bytes, position: int, tokens: NDArray[np.integer]) -> Reals:
    """Standard Gumbel noise of `tokens` at `position`, same shape as `tokens`.

    u = (word + 1/2) / 2^32 is in (0, 1), where word is lane `token & 3` of Philox4x32-10 with key
    seed[0:8] (two little-endian words) and counter (position, 0, token >> 2, 0).
    """
    assert len(seed) == SEED_BYTES, len(seed)
    wide = tokens.astype(np.uint64)
    key = np.frombuffer(seed, "<u4", 2).astype(np.uint64).reshape(2, *(1,) * wide.ndim)
    return _noise(key, np.full_like(wide, position), wide)


def draw(logits: Logits, sampler: SamplerLike, seed: bytes, position: int) -> int:
    """The token at output position `position`, given float32[vocabulary] logits."""
    return draw_rows(logits[None, :], [sampler], [seed], [position])[0]


def draw_rows(
    logits: Logits,
    samplers: Sequence[SamplerLike],
    seeds: Sequence[bytes],
    positions: Sequence[int],
) -> list[int]:
    """`draw` for every row of float32[rows, vocabulary]: same tokens, less time per row."""
    tokens = [int(token) for token in logits.argmax(axis=1)]
    warm = [row for row, sampler in enumerate(samplers) if sampler.temperature > 0.0]
    if not warm:
        return tokens
    kept = [_kept(logits[row], samplers[row]) for row in warm]
    sizes = [len(candidates) for candidates in kept]
    flat = np.concatenate(kept).astype(np.uint64)
    noise = _noise(
        np.repeat(_keys([seeds[row] for row in warm]), sizes, axis=1),
        np.repeat(np.array([positions[row] for row in warm], np.uint64), sizes),
        flat,
    )
    begin = 0
    for row, candidates in zip(warm, kept, strict=True):
        end = begin + len(candidates)
        scores = logits[row][candidates] + samplers[row].temperature * noise[begin:end]
        tokens[row] = _first_best(scores, candidates)
        begin = end
    return tokens


def replay(
    logits: Logits, tokens: Sequence[int], sampler: SamplerLike, seed: bytes, start: int
) -> Replay:
    """Draw again at positions start, start+1, ... and compare with `tokens`.

    `logits` is float32[len(tokens), vocabulary]: row i is what predicts tokens[i].
    """
    assert len(logits) == len(tokens)
    count = len(tokens)
    drawn = draw_rows(logits, [sampler] * count, [seed] * count, range(start, start + count))
    margins = tuple(
        0.0 if here == given else margin(logits[row], given, sampler, seed, start + row)
        for row, (here, given) in enumerate(zip(drawn, tokens, strict=True))
    )
    return Replay(tuple(drawn), margins)


def margin(logits: Logits, token: int, sampler: SamplerLike, seed: bytes, position: int) -> float:
    """The smallest change of logits (sup norm) that would have made `token` the drawn one.

    With s = l + T*G and a_v the distance of v inside (> 0) or outside (< 0) its tightest filter:
    rho = max(-a_t / 2, max over kept v with s_v > s_t of min((s_v - s_t) / 2, a_v / 2)). Dividing
    by two: both sides of a gap may move. A rival is either overtaken or filtered out. Honest drift
    of amplitude A gives rho <= A whatever the prompt, so no choice of prompts widens it.
    """
    if sampler.temperature == 0.0:
        return float(logits.max() - logits[token]) / 2
    order = _descending(logits)
    values = logits[order].astype(np.float64)
    mine = int(np.flatnonzero(order == token)[0])
    slack = _slack(values, sampler, mine)
    rivals = np.flatnonzero(slack >= 0.0)
    scores = values + 0.0
    noisy = np.append(rivals, mine)
    scores[noisy] += sampler.temperature * gumbel(seed, position, order[noisy])
    rivals = rivals[scores[rivals] > scores[mine]]
    cost = np.minimum(scores[rivals] - scores[mine], slack[rivals])
    return float(max(0.0, -slack[mine], cost.max(initial=0.0))) / 2


def philox(counter: _Words, key: _Words) -> _Words:
    """Philox4x32-10 (Salmon et al., SC 2011): uint64[4, ...] of 32-bit words from counter and key.

    `counter` is uint64[4, ...] and `key` uint64[2, ...] (broadcast), all below 2^32.
    """
    even, odd = counter[::2], counter[1::2]
    multipliers = _MULTIPLIERS.reshape(2, *(1,) * (counter.ndim - 1))
    weyl = _WEYL.reshape(2, *(1,) * (key.ndim - 1))
    for _ in range(_ROUNDS):
        product = multipliers * even
        even = (product >> _HALF)[::-1] ^ odd ^ key
        odd = (product & _LOW)[::-1]
        key = (key + weyl) & _LOW
    out = np.empty(np.broadcast_shapes(counter.shape, (4, *even.shape[1:])), np.uint64)
    out[::2], out[1::2] = even, odd
    return out


_ROUNDS: Final = 10
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_MULTIPLIERS: Final = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL: Final = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_COLUMNS: Final = 512  # width of the coarse maxima that bound the k-th largest logit from below


def _keys(seeds: Sequence[bytes]) -> _Words:
    """uint64[2, len(seeds)]: the two key words of each seed."""
    assert all(len(seed) == SEED_BYTES for seed in seeds)
    joined = b"".join(seed[:8] for seed in seeds)
    return np.frombuffer(joined, "<u4").astype(np.uint64).reshape(-1, 2).T


def _noise(key: _Words, positions: _Words, tokens: _Words) -> Reals:
    counter = np.zeros((4, *tokens.shape), np.uint64)
    counter[0] = positions
    counter[2] = tokens >> np.uint64(2)
    lanes = (tokens & np.uint64(3)).astype(np.intp)
    words = np.take_along_axis(philox(counter, key), lanes[None], axis=0)[0]
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    noise: Reals = -np.log(-np.log(uniform))
    return noise


def _kept(logits: Logits, sampler: SamplerLike) -> Tokens:
    """The tokens that pass top-k, then top-p, then min-p, best first."""
    best = float(logits.max())
    assert math.isfinite(best), "logits must be finite"
    floor = best + math.log(sampler.min_p) if sampler.min_p > 0.0 else -math.inf
    if sampler.top_k:
        order = _top(logits, sampler.top_k)
        weights = np.exp(logits[order].astype(np.float64) - best)
        mass = float(weights.sum())
    elif sampler.top_p < 1.0:
        mass = float(np.exp(logits.astype(np.float64) - best).sum())
        order = _descending(logits, floor)
        weights = np.exp(logits[order].astype(np.float64) - best)
    else:
        return np.flatnonzero(logits >= floor)
    keep = logits[order] >= floor
    if sampler.top_p < 1.0:
        keep &= np.cumsum(weights) - weights < sampler.top_p * mass
        keep[0] = True
    return order[keep]


def _top(logits: Logits, count: int) -> Tokens:
    """The `count` largest logits' tokens, largest first, the lower id first among equals.

    The count-th largest of the column maxima is a lower bound of the count-th largest logit: one
    pass over the vocabulary then leaves a handful of candidates, several times faster than
    partitioning all of it.
    """
    rows = len(logits) // _COLUMNS
    if count >= _COLUMNS or rows < 2:
        return _descending(logits)[:count]
    columns = logits[: rows * _COLUMNS].reshape(rows, _COLUMNS).max(axis=0)
    return _descending(logits, float(np.partition(columns, -count)[-count]))[:count]


def _descending(logits: Logits, floor: float = -math.inf) -> Tokens:
    tokens = np.flatnonzero(logits >= floor) if floor > -math.inf else np.arange(len(logits))
    return tokens[np.argsort(-logits[tokens], kind="stable")]


def _first_best(scores: Reals, candidates: Tokens) -> int:
    """The candidate of the highest score; the lower id among equals."""
    return int(candidates[scores == scores.max()].min())


def _slack(values: Reals, sampler: SamplerLike, mine: int) -> Reals:
    """Distance in logits of each of `values` (descending) inside (+) or outside (-) its filters.

    top-k: to the first excluded, or the last included, logit. min-p: to the floor. top-p: see
    `_nucleus_slack`; outside it only `mine` gets its distance. The best is not safe: drift may put
    another token in its place.
    """
    slack = np.full(len(values), np.inf)
    limit = min(sampler.top_k or len(values), len(values))
    if limit < len(values):
        slack[:limit] = values[:limit] - values[limit]
        slack[limit:] = np.minimum(values[limit:] - values[limit - 1], -np.finfo(np.float64).tiny)
    if sampler.top_p < 1.0:
        slack = np.minimum(slack, _nucleus_slack(values, limit, sampler.top_p, mine))
    if sampler.min_p > 0.0:
        slack = np.minimum(slack, values - values[0] - math.log(sampler.min_p))
    return slack


def _nucleus_slack(values: Reals, limit: int, top_p: float, mine: int) -> Reals:
    """Twice the least drift A that could move a value across the edge of top-p, with its sign.

    What drift can do at most: sorted weights each move by a factor within exp(-A) and exp(A), and
    a token changes places only with those within 2A of it. So one outside gets in at the earliest
    when those more than 2A above it, weighed down, leave room; one inside falls out at the earliest
    when all but those more than 2A below it, weighed up, fill the nucleus. The least such A is
    found by bisection and rounded down.
    """
    weights = np.exp(values - values[0])
    mass = np.append(0.0, np.cumsum(weights[:limit]))
    total = mass[-1]
    before = mass[np.minimum(np.arange(len(values)), limit)]
    kept = before < top_p * total
    slack = np.where(kept, np.inf, -np.finfo(np.float64).tiny)
    asked = np.append(np.flatnonzero(kept), mine)
    inside = kept[asked]
    low, high = np.zeros(len(asked)), np.full(len(asked), _DRIFT_MAX)
    for _ in range(_HALVINGS):
        drift = (low + high) / 2
        edge = values[asked] + np.where(inside, -2 * drift, 2 * drift)
        ahead = mass[np.minimum(np.searchsorted(-values, -edge), limit)]
        ahead -= np.where(inside, np.minimum(weights[asked], ahead), 0.0)
        sign = np.where(inside, drift, -drift)
        filled = ahead * np.exp(sign)
        crossed = (filled >= top_p * (filled + (total - ahead) * np.exp(-sign))) == inside
        low, high = np.where(crossed, low, drift), np.where(crossed, drift, high)
    slack[asked] = np.where(inside, 2 * low, -2 * low)
    return slack


_DRIFT_MAX: Final = 64.0  # logits; no filter is farther away than that in practice
_HALVINGS: Final = 40
