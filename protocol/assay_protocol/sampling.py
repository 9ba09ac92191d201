"""How a token is drawn from logits: a pure function of (logits, sampler, seed, position, text).

Noise is addressed by (position, token) and penalties look at nothing but the text, so any machine
that holds the seed draws the same token at any position without having drawn the ones before: a
job can be resumed on another node and replayed by an auditor. Normative text: spec/sampler.md;
vectors: spec/vectors/sampling.json.

The draw is the Gumbel-max trick: argmax(l + T*G), with G standard Gumbel, is one sample from
softmax(l / T) (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030). Under small numeric drift it
changes its mind far less often than inverting a cumulative distribution would.

`text` is prompt and answer so far; its last `position` tokens are the answer. It may be left empty
where `samplers.looks_back` is false. `allowed` is the mask of a grammar (masks.py): nothing else is
drawn, and the filters see nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.adjustments import Logits, adjusted, amplification
from assay_protocol.noise import (
    gumbel,
    gumbel_of,
    least_word,
    noise_of_rows,
    words_of_all,
    words_of_many,
)
from assay_protocol.samplers import SamplerLike, changes_logits, looks_back, repeats

Tokens = NDArray[np.int64]
Reals = NDArray[np.float64]
Allowed = Tokens | None  # the token ids a grammar allows, ascending, at least one; None: all
Values = Logits | Reals  # one row of logits, as the model gave them or adjusted


@dataclass(frozen=True, slots=True)
class Replay:
    """One entry per position: the token drawn here, and how far the given token was from winning.

    A margin is the robust margin rho of `margin`, in logits; 0.0 where both tokens are equal.
    """

    drawn: tuple[int, ...]
    margins: tuple[float, ...]


def draw(
    logits: Logits,
    sampler: SamplerLike,
    seed: bytes,
    position: int,
    text: Sequence[int] = (),
    allowed: Allowed = None,
) -> int:
    """The token at output position `position`, given float32[vocabulary] logits."""
    return draw_rows(logits[None, :], [sampler], [seed], [position], [text], [allowed])[0]


def draw_rows(
    logits: Logits,
    samplers: Sequence[SamplerLike],
    seeds: Sequence[bytes],
    positions: Sequence[int],
    texts: Sequence[Sequence[int]] | None = None,
    masks: Sequence[Allowed] | None = None,
) -> list[int]:
    """`draw` for every row of float32[rows, vocabulary]: same tokens, less time per row."""
    tokens = [0] * len(samplers)
    greedy: list[int] = []  # rows whose best logit is drawn, all at once
    few: list[_Few] = []
    adjusts = any(map(changes_logits, samplers))
    page = np.empty(logits.shape[1]) if adjusts else None  # one for all rows: new memory is slow
    for row, sampler in enumerate(samplers):
        plain, text = logits[row], texts[row] if texts is not None else ()
        values = adjusted(plain, sampler, positions[row], text, page)
        allowed = masks[row] if masks is not None else None
        if sampler.temperature == 0.0:
            if allowed is not None:
                tokens[row] = int(allowed[values[allowed].argmax()])
            elif values is not plain:
                tokens[row] = int(values.argmax())
            else:
                greedy.append(row)
            continue
        if allowed is None:
            inside = _kept(values, sampler)
        else:
            inside = allowed[_kept(values[allowed], sampler)]
        if len(inside) == 1:
            tokens[row] = int(inside[0])  # whatever its noise
        elif len(inside) > _MANY:
            tokens[row] = _draw_of_many(values, inside, sampler, seeds[row], positions[row])
        else:
            few.append(_Few(row, inside, values[inside]))
    if greedy:
        chosen = logits if len(greedy) == len(logits) else logits[greedy]
        for row, token in zip(greedy, chosen.argmax(axis=1), strict=True):
            tokens[row] = int(token)
    if few:
        _draw_of_few(tokens, few, samplers, seeds, positions)
    return tokens


def replay(
    logits: Logits,
    tokens: Sequence[int],
    sampler: SamplerLike,
    seed: bytes,
    start: int,
    before: Sequence[int] = (),
    masks: Sequence[Allowed] | None = None,
) -> Replay:
    """Draw again at positions start, start+1, ... and compare with `tokens`.

    `logits` is float32[len(tokens), vocabulary]: row i is what predicts tokens[i]. `before` is the
    prompt and the answer up to position `start`, `masks` what a grammar allows at each position.
    The margin of a token outside its mask is infinite.
    """
    assert len(logits) == len(tokens)
    count = len(tokens)
    positions = range(start, start + count)
    texts = _texts(before, tokens, positions, sampler) if looks_back(sampler) else None
    drawn = draw_rows(logits, [sampler] * count, [seed] * count, positions, texts, masks)
    margins = tuple(
        0.0
        if here == given
        else margin(
            logits[row],
            given,
            sampler,
            seed,
            start + row,
            texts[row] if texts else (),
            masks[row] if masks else None,
        )
        for row, (here, given) in enumerate(zip(drawn, tokens, strict=True))
    )
    return Replay(tuple(drawn), margins)


def margin(
    logits: Logits,
    token: int,
    sampler: SamplerLike,
    seed: bytes,
    position: int,
    text: Sequence[int] = (),
    allowed: Allowed = None,
) -> float:
    """The smallest change of logits (sup norm) that would have made `token` the drawn one.

    With s = l + T*G and a_v the distance of v inside (> 0) or outside (< 0) its tightest filter:
    rho = max(-a_t / 2, max over kept v with s_v > s_t of min((s_v - s_t) / 2, a_v / 2)). Dividing
    by two: both sides of a gap may move. A rival is either overtaken or filtered out. Honest drift
    of amplitude A gives rho <= A whatever the prompt, so no choice of prompts widens it. A
    repetition penalty of r multiplies drift by at most max(r, 1/r), so rho is divided by that. No
    drift takes a token into a grammar: outside `allowed` rho is infinite.
    """
    row = adjusted(logits, sampler, position, text)
    scale = 2 * amplification(sampler)
    ids = np.arange(len(row)) if allowed is None else allowed
    if token not in ids:
        return math.inf
    if sampler.temperature == 0.0:
        return float(row[ids].max() - row[token]) / scale
    order = ids[_descending(row[ids])]
    values = row[order].astype(np.float64)
    mine = int(np.flatnonzero(order == token)[0])
    slack = _slack(values, sampler, mine)
    rivals = np.flatnonzero(slack >= 0.0)
    scores = values + 0.0
    noisy = np.append(rivals, mine)
    scores[noisy] += sampler.temperature * gumbel(seed, position, order[noisy])
    rivals = rivals[scores[rivals] > scores[mine]]
    cost = np.minimum(scores[rivals] - scores[mine], slack[rivals])
    return float(max(0.0, -slack[mine], cost.max(initial=0.0))) / scale


_COLUMNS: Final = 512  # width of the coarse maxima that bound the k-th largest logit from below
_MANY: Final = 1024  # candidates beyond which most are ruled out by the words of their noise
_NEAR: Final = 6.0  # temperatures below the best logit within which all noise is computed
_DRIFT_MAX: Final = 64.0  # logits; no filter is farther away than that in practice
_HALVINGS: Final = 40
_ROUGH: Final = 1e-5  # the sum of float32 exponentials is off by 2e-6 at most: rounded arguments
_DEPTHS: Final = (4.0, *range(6, 20), math.inf)  # logits below the best in which top-p looks first


def _texts(
    before: Sequence[int], tokens: Sequence[int], positions: range, sampler: SamplerLike
) -> list[tuple[int, ...]]:
    """The text before each of `tokens`, as far back as the sampler looks."""
    whole = (*before, *tokens)
    ends = range(len(before), len(whole))
    reaches = [max(position, repeats(sampler)) for position in positions]
    return [whole[max(0, end - reach) : end] for end, reach in zip(ends, reaches, strict=True)]


@dataclass(frozen=True, slots=True)
class _Few:
    """What the filters left of one row, and its logits."""

    row: int
    candidates: Tokens
    values: Values


def _draw_of_few(
    tokens: list[int],
    few: Sequence[_Few],
    samplers: Sequence[SamplerLike],
    seeds: Sequence[bytes],
    positions: Sequence[int],
) -> None:
    """Set the `tokens` of the rows in `few`; all noise at once."""
    noise = noise_of_rows(
        [seeds[one.row] for one in few],
        [positions[one.row] for one in few],
        [one.candidates for one in few],
    )
    begin = 0
    for one in few:
        end = begin + len(one.candidates)
        scores = one.values + samplers[one.row].temperature * noise[begin:end]
        tokens[one.row] = _first_best(scores, one.candidates)
        begin = end


def _draw_of_many(
    values: Values, candidates: Tokens, sampler: SamplerLike, seed: bytes, position: int
) -> int:
    """The same token, without the logarithms of candidates that cannot win.

    The best score among those near the best logit is a bound from below on the winner's. Whoever is
    farther away needs so much noise to reach it that its word alone tells of nearly all that they
    do not. The rounding of these sums is far below what is subtracted here.
    """
    temperature = sampler.temperature
    whole = len(candidates) == len(values)
    ids = np.arange(len(values)) if whole else np.sort(candidates)
    own = values if whole else values[ids]
    words = words_of_all(seed, position, len(ids)) if whole else words_of_many(seed, position, ids)
    best = float(own.max())
    near = np.flatnonzero(_at_least(own, best - _NEAR * temperature))
    bound = float((own[near] + temperature * gumbel_of(words[near])).max())
    gap = bound - best - 1e-9 * (abs(bound) + abs(best))
    far = np.flatnonzero(words >= least_word(gap / temperature + _NEAR))
    live = np.concatenate([near, far])
    return _first_best(own[live] + temperature * gumbel_of(words[live]), ids[live])


def _kept(values: Values, sampler: SamplerLike) -> Tokens:
    """The tokens that pass top-k, then top-p, then min-p."""
    if sampler.top_k:
        return _kept_of_top(values, sampler)
    best = _finite(values.max())
    floor = _floor(best, sampler)
    if sampler.top_p < 1.0:
        return _top_p(values, best, floor, sampler.top_p)
    return np.flatnonzero(_at_least(values, floor))


def _kept_of_top(values: Values, sampler: SamplerLike) -> Tokens:
    order = _top(values, sampler.top_k)
    own = values[order].astype(np.float64)
    best = _finite(own[0])
    keep = own >= _floor(best, sampler)
    if sampler.top_p < 1.0:
        weights = np.exp(own - best)
        keep &= _nucleus(np.cumsum(weights), weights, sampler.top_p * float(weights.sum()))
    return order[keep]


def _floor(best: float, sampler: SamplerLike) -> float:
    """The least logit that passes min-p."""
    return best + math.log(sampler.min_p) if sampler.min_p > 0.0 else -math.inf


def _finite(best: float) -> float:
    assert math.isfinite(best), "logits must be finite"
    return float(best)


def _top_p(values: Values, best: float, floor: float, top_p: float) -> Tokens:
    """The nucleus of the whole vocabulary, down to `floor`; only as much is sorted as it needs.

    A token is kept while the sum before it is below the target, and sums never fall: once the sum
    over the best few reaches it, no token after them is kept. The target itself is needed exactly
    only where some sum comes so near to it that a rough one could not tell them apart.
    """
    below = (values - values.dtype.type(best)).astype(np.float32, copy=False)
    rough = top_p * float(np.exp(below).sum(dtype=np.float64))
    exact: float | None = None
    for depth in _DEPTHS:
        line = max(floor, best - depth)
        order = _descending(values, line)
        own = np.exp(values[order].astype(np.float64) - best)
        sums = np.cumsum(own)
        if exact is None and np.any(np.abs(sums - own - rough) <= _ROUGH * rough):
            exact = top_p * float(np.exp(values.astype(np.float64) - best).sum())
        target = rough if exact is None else exact
        if line == floor or sums[-1] >= target * (1 + _ROUGH):
            break
    return order[_nucleus(sums, own, target)]


def _nucleus(sums: Reals, weights: Reals, target: float) -> NDArray[np.bool_]:
    keep = sums - weights < target
    keep[0] = True
    return keep


def _top(values: Values, count: int) -> Tokens:
    """The `count` largest logits' tokens, largest first, the lower id first among equals.

    The count-th largest of the column maxima is a lower bound of the count-th largest logit: one
    pass over the vocabulary then leaves a handful of candidates, several times faster than
    partitioning all of it.
    """
    if count >= len(values):
        return _descending(values)
    rows = len(values) // _COLUMNS
    if count >= _COLUMNS or rows < 2:
        return _descending(values, float(np.partition(values, -count)[-count]))[:count]
    columns = values[: rows * _COLUMNS].reshape(rows, _COLUMNS).max(axis=0)
    columns.partition(_COLUMNS - count)
    _finite(columns[-1])  # where numpy puts what is not a number
    tokens: Tokens = (values >= columns[-count]).nonzero()[0]
    return tokens[(-values[tokens]).argsort(kind="stable")[:count]]


def _descending(values: Values, floor: float = -math.inf) -> Tokens:
    all_of_it = floor == -math.inf
    tokens = np.arange(len(values)) if all_of_it else np.flatnonzero(_at_least(values, floor))
    return tokens[np.argsort(-values[tokens], kind="stable")]


def _at_least(values: Values, floor: float) -> NDArray[np.bool_]:
    """Which values are >= `floor`, as reals: a float32 row is compared with the next float32 up."""
    if values.dtype == np.float32 and math.isfinite(floor):
        bound = np.float32(floor)
        if float(bound) < floor:
            bound = np.nextafter(bound, np.float32(np.inf))
        return values >= bound
    return values >= floor


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
