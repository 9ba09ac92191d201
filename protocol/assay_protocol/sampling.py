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

from assay_protocol.adjustments import Logits, adjusted
from assay_protocol.filters import Reals, Tokens, Values, at_least, kept
from assay_protocol.margins import Allowed, Watched, gaps, lead, lead_of_all, margin
from assay_protocol.noise import (
    gumbel_of,
    least_word,
    noise_of_rows,
    words_of_all,
    words_of_many,
)
from assay_protocol.samplers import SamplerLike, changes_logits, looks_back, repeats


@dataclass(frozen=True, slots=True)
class Replay:
    """One entry per position: the token drawn here, how far the given token was from winning, and
    how far the drawn one was from losing.

    The first is margins.margin, in logits, and 0.0 where both tokens are equal; the second
    margins.gap.
    """

    drawn: tuple[int, ...]
    margins: tuple[float, ...]
    gaps: tuple[float, ...]


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
    return _draw_rows(logits, samplers, seeds, positions, texts, masks, None)


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
    watched = Watched.of(count)
    samplers, seeds = [sampler] * count, [seed] * count
    drawn = _draw_rows(logits, samplers, seeds, positions, texts, masks, watched)
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
    return Replay(tuple(drawn), margins, gaps(watched, drawn, sampler, seed, start))


_MANY: Final = 1024  # candidates beyond which most are ruled out by the words of their noise
_NEAR: Final = 6.0  # temperatures below the best logit within which all noise is computed


def _draw_rows(
    logits: Logits,
    samplers: Sequence[SamplerLike],
    seeds: Sequence[bytes],
    positions: Sequence[int],
    texts: Sequence[Sequence[int]] | None,
    masks: Sequence[Allowed] | None,
    watched: Watched | None,
) -> list[int]:
    """The tokens; what their gaps depend on goes to `watched`."""
    tokens = [0] * len(samplers)
    greedy: list[int] = []  # rows whose best logit is drawn, all at once
    few: list[_Few] = []
    adjusts = any(map(changes_logits, samplers))
    page = np.empty(logits.shape[1]) if adjusts else None  # one for all rows: new memory is slow
    for row, sampler in enumerate(samplers):
        plain, text = logits[row], texts[row] if texts is not None else ()
        values = adjusted(plain, sampler, positions[row], text, page)
        allowed = masks[row] if masks is not None else None
        own = values if allowed is None else values[allowed]
        if sampler.temperature == 0.0:
            if allowed is not None:
                tokens[row] = int(allowed[own.argmax()])
            elif values is not plain:
                tokens[row] = int(own.argmax())
            else:
                greedy.append(row)
            if watched is not None:
                watched.leads[row] = lead_of_all(own)
            continue
        inside = kept(own, sampler)
        if watched is not None:
            watched.see(row, own, len(inside), sampler, allowed)
        if allowed is not None:
            inside = allowed[inside]
        if len(inside) == 1:
            tokens[row] = int(inside[0])  # whatever its noise
        elif len(inside) > _MANY:
            ids, scores = _contenders(values, inside, sampler, seeds[row], positions[row], watched)
            tokens[row] = _first_best(scores, ids)
            if watched is not None:
                watched.leads[row] = lead(scores)
        else:
            few.append(_Few(row, inside, values[inside]))
    if greedy:
        chosen = logits if len(greedy) == len(logits) else logits[greedy]
        for row, token in zip(greedy, chosen.argmax(axis=1), strict=True):
            tokens[row] = int(token)
    if few:
        _draw_of_few(tokens, few, samplers, seeds, positions, watched)
    return tokens


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
    watched: Watched | None,
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
        if watched is not None:
            watched.leads[one.row] = lead(scores)
        begin = end


def _contenders(
    values: Values,
    candidates: Tokens,
    sampler: SamplerLike,
    seed: bytes,
    position: int,
    watched: Watched | None,
) -> tuple[Tokens, Reals]:
    """Those who may win or, if `watched`, come second, and their scores.

    The logarithms of all others are not taken. The best score, or the second best, among those near
    the best logit is a bound from below on the one that is looked for. Whoever is farther away
    needs so much noise to reach it that its word alone tells of nearly all that they do not. The
    rounding of these sums is far below what is subtracted here.
    """
    temperature = sampler.temperature
    whole = len(candidates) == len(values)
    ids = np.arange(len(values)) if whole else np.sort(candidates)
    own = values if whole else values[ids]
    words = words_of_all(seed, position, len(ids)) if whole else words_of_many(seed, position, ids)
    best = float(own.max())
    near = np.flatnonzero(at_least(own, best - _NEAR * temperature))
    scores = own[near] + temperature * gumbel_of(words[near])
    bound = float(scores.max())
    if watched is not None:
        bound -= lead(scores)
    gap = bound - best - 1e-9 * (abs(bound) + abs(best))
    least = least_word(gap / temperature + _NEAR) if math.isfinite(bound) else 0
    far = np.flatnonzero(words >= least)
    live = np.concatenate([near, far[own[far] < own[near].min()]])
    return ids[live], own[live] + temperature * gumbel_of(words[live])


def _first_best(scores: Reals, candidates: Tokens) -> int:
    """The candidate of the highest score; the lower id among equals."""
    return int(candidates[scores == scores.max()].min())
