"""How much drift of the logits it takes to change a draw: to another token, or away from its own.

An auditor's arithmetic is not the executor's. `margin` says of a token that was not drawn here how
far it was from winning, `gap` of the token that was how far it was from losing. Both are in logits
of the sup norm, and neither is larger than the least drift that does it, whatever the prompt, the
temperature and the filters (edges.py): near-ties explain themselves, and nothing else does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from assay_protocol.adjustments import Logits, adjusted, amplification
from assay_protocol.edges import Rim, rim_of, slack
from assay_protocol.filters import Reals, Tokens, Values, descending, kept
from assay_protocol.noise import gumbel, noise_of_rows
from assay_protocol.samplers import SamplerLike

Allowed = Tokens | None  # the token ids a grammar allows, ascending, at least one; None: all


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
    order = ids[descending(row[ids])]
    values = row[order].astype(np.float64)
    mine = int(np.flatnonzero(order == token)[0])
    apart = slack(values, sampler, mine)
    rivals = np.flatnonzero(apart >= 0.0)
    scores = values + 0.0
    noisy = np.append(rivals, mine)
    scores[noisy] += sampler.temperature * gumbel(seed, position, order[noisy])
    rivals = rivals[scores[rivals] > scores[mine]]
    cost = np.minimum(scores[rivals] - scores[mine], apart[rivals])
    return float(max(0.0, -apart[mine], cost.max(initial=0.0))) / scale


def gap(
    logits: Logits,
    sampler: SamplerLike,
    seed: bytes,
    position: int,
    text: Sequence[int] = (),
    allowed: Allowed = None,
) -> float:
    """The largest change of logits (sup norm) known to leave the drawn token as it is.

    With s, a_v and the drawn token w as in `margin`: the least of a_w / 2, of (s_w - s_v) / 2 over
    the other kept v, and of max((s_w - s_v) / 2, -a_v / 2) over those filtered out. Only so many of
    these are looked at (edges.py); how near the next one could be bounds it, too. Divided by what a
    repetition penalty multiplies drift by. Infinite where nothing else can be drawn.
    """
    watched = Watched.of(1)
    row = adjusted(logits, sampler, position, text)
    own = row if allowed is None else row[allowed]
    if sampler.temperature == 0.0:
        watched.leads[0] = lead_of_all(own)
        return gaps(watched, [0], sampler, seed, position)[0]
    inside = kept(own, sampler)
    ids = inside if allowed is None else allowed[inside]
    scores = own[inside] + sampler.temperature * gumbel(seed, position, ids)
    watched.see(0, own, len(inside), sampler, allowed)
    watched.leads[0] = lead(scores)
    token = int(ids[scores == scores.max()].min())
    return gaps(watched, [token], sampler, seed, position)[0]


@dataclass(slots=True)
class Watched:
    """What is kept of each row that is drawn to tell its gap afterwards.

    `leads`: by how much the drawn token's score is the best. `rims`: who is near the filters, None
    where nothing is filtered.
    """

    leads: list[float]
    rims: list[Rim | None]

    @classmethod
    def of(cls, rows: int) -> Watched:
        return cls([math.inf] * rows, [None] * rows)

    def see(
        self, row: int, values: Values, kept: int, sampler: SamplerLike, allowed: Allowed
    ) -> None:
        """A row's `values`, of the tokens a grammar allows; so many of them pass the filters."""
        if kept == len(values) and sampler.top_p == 1.0 and sampler.min_p == 0.0:
            return
        rim = rim_of(values, kept, sampler)
        self.rims[row] = rim if allowed is None else replace(rim, tokens=allowed[rim.tokens])


def gaps(
    watched: Watched, tokens: Sequence[int], sampler: SamplerLike, seed: bytes, start: int
) -> tuple[float, ...]:
    """`gap` of every row: `tokens` were drawn at positions start, start + 1, ...

    The noise of all those near the filters is computed at once.
    """
    found = list(watched.leads)
    close: list[_Close] = []
    for row, (rim, token) in enumerate(zip(watched.rims, tokens, strict=True)):
        if rim is not None:
            place = int(np.flatnonzero(rim.tokens == token)[0])
            found[row] = rim.inside(place, found[row])
            close.append(_Close(row, rim, place, rim.outside(found[row])))
    if close:
        noise = noise_of_rows(
            [seed] * len(close),
            [start + one.row for one in close],
            [one.asked() for one in close],
        )
        begin = 0
        for one in close:
            end = begin + 1 + len(one.apart)
            found[one.row] = one.least(noise[begin:end], found[one.row])
            begin = end
    scale = 2 * amplification(sampler)
    return tuple(max(0.0, least) / scale for least in found)


def lead(scores: Values) -> float:
    """By how much the best score is ahead of the next one."""
    if len(scores) < 2:
        return math.inf
    second, first = np.partition(scores, -2)[-2:].tolist()
    return float(first - second)


def lead_of_all(values: Values) -> float:
    """The same of a whole vocabulary, in less time than it takes to partition it."""
    place = int(values.argmax())
    others = [part.max() for part in (values[:place], values[place + 1 :]) if len(part)]
    return float(values[place]) - float(max(others)) if others else math.inf


@dataclass(frozen=True, slots=True)
class _Close:
    """A row, its drawn token's place, and how far the next places are outside top-k and min-p."""

    row: int
    rim: Rim
    place: int
    apart: Reals

    def asked(self) -> Tokens:
        """The tokens whose noise is needed: the drawn one's, then those outside."""
        begin = self.rim.kept
        outside = self.rim.tokens[begin : begin + len(self.apart)]
        return np.append(self.rim.tokens[self.place], outside)

    def least(self, noise: Reals, most: float) -> float:
        """The least distance over those outside, and no more than `most`."""
        rim, temperature = self.rim, self.rim.sampler.temperature
        score = float(rim.values[self.place] + temperature * noise[0])
        begin = rim.kept
        values = rim.values[begin : begin + len(self.apart)]
        behind = np.maximum(score - (values + temperature * noise[1:]), self.apart)
        for number in np.flatnonzero(behind < most):
            far = float(behind[number])
            if far < most:
                most = min(most, max(far, rim.outside_nucleus(begin + int(number), most)))
        return rim.beyond(score, most)
