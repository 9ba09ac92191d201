"""Who gets how many jobs: the limit of production's scheduler for very many nodes.

The scheduler looks at SAMPLE nodes drawn at random and takes the one that would be done first, by
`expected_us` of the load it knows: what a node told with its last heartbeat, and all tickets given
since. For many nodes that is a flow between shares of nodes of each profile, each load known and
each phase between two heartbeats (the power of two choices: Vvedenskaya, Dobrushin and Karpelevich
1996; Mitzenmacher 2001; with old news: Mitzenmacher 2000). It is followed until it stands still.
Costs of a place come from production's own function, bounds of a queue and the time between two
heartbeats from its policy. Service is taken to be exponential.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.scheduler import SAMPLE, expected_us
from assay_protocol.messages import Offer
from assay_simnet.epochs.asks import MODEL, submitted
from assay_simnet.epochs.chances import Reals
from assay_simnet.population import Speed

STEPS_MAX: Final = 20_000
STILL: Final = 1e-7  # a second: the sum of shares that still move
GHOST: Final = 1e-7  # share of nodes of a profile that nobody has: what one would get
LOST_LEAST: Final = 1e-5  # a smaller share of jobs without room is an inexact end of the flow
PHASES: Final = 8  # between two heartbeats
_MOVE: Final = 0.25  # of what is at a place, at most, in a step


@dataclass(frozen=True)
class Flow:
    """Of each profile: jobs a second that one present node gets. `lost`: the share of jobs that
    nobody had room for."""

    per_node: Reals
    lost: float


class Dispatch:
    """One model's jobs, all alike, among profiles."""

    def __init__(self, policy: Policy, speeds: Mapping[str, Speed], n_in: int, n_out: int) -> None:
        self.slots = np.array([one.slots for one in speeds.values()])
        seconds = [(n_in * s.prefill_us + n_out * s.decode_us) / 1e6 for s in speeds.values()]
        self.job_s = np.array(seconds)
        self._most = self.slots * (1 + policy.queue_per_slot)
        loads = np.arange(int(self._most.max()) + 1)
        room = loads < self._most[:, None]
        asked = submitted(n_in, n_out)
        costs = np.full(room.shape, np.inf)
        for place, one in enumerate(speeds.values()):
            offer = _offer(one)
            for load in loads[room[place]].tolist():
                costs[place, load] = expected_us(asked, offer, load)
        self._order = np.argsort(costs, axis=None, kind="stable")[: int(room.sum())]
        beat_s = policy.heartbeat_us / 1e6
        self._pace = PHASES / beat_s
        self._told = np.stack(
            [_told(len(loads), int(n), s, beat_s) for n, s in zip(self.slots, seconds, strict=True)]
        )
        self._at = np.zeros((len(seconds), PHASES, len(loads)))
        self._at[:, :, 0] = 1 / PHASES

    def spread(self, present: Reals, jobs_per_s: float) -> Flow:
        """`present`: nodes of each profile that are there, one at least."""
        share = np.maximum(present / present.sum(), GHOST)
        share /= share.sum()
        at = self._at / self._at.sum((1, 2), keepdims=True) * share[:, None, None]
        wanted = jobs_per_s / float(present.sum())
        looked = min(SAMPLE, max(1, round(float(present.sum()))))
        step = _MOVE / (SAMPLE * wanted + self._pace)
        for _ in range(STEPS_MAX):
            up = self._taken(at, wanted, looked, step)
            on = at * self._pace
            moved = -up - on
            moved[:, :, 1:] += up[:, :, :-1]
            moved[:, 1:] += on[:, :-1]
            moved[:, 0] += np.einsum("pl,plk->pk", on[:, -1], self._told)
            at = at + step * moved
            if float(np.abs(moved).sum()) < STILL:
                break
        self._at = at
        lost = max(0.0, 1 - float(up.sum()) / wanted) if wanted else 0.0
        return Flow(up.sum((1, 2)) / share, lost if lost > LOST_LEAST else 0.0)

    def _taken(self, at: Reals, wanted: float, looked: int, step: float) -> Reals:
        """Jobs a second (a node) that come to each place, the cheapest first."""
        known = at.sum(1)
        there = known.ravel()[self._order]
        none_yet = np.maximum(0.0, 1 - there.cumsum()) ** looked
        best = np.concatenate([[1.0], none_yet[:-1]]) - none_yet
        free = float(there.sum())
        rest = float(none_yet[-1]) / free if free > 0 else 0.0  # all are looked at then
        flow = np.zeros(known.size)
        flow[self._order] = np.minimum(wanted * (best + rest * there), _MOVE * there / step)
        each = flow.reshape(known.shape) / np.maximum(known, 1e-300)
        found: Reals = at * each[:, None, :]
        return found


def _told(loads: int, slots: int, job_s: float, beat_s: float) -> Reals:
    """[known, told]: how likely a node of a known load tells so many with its next heartbeat. What
    was given since the last one came at any time; beyond its slots it computes no faster."""
    rows = np.zeros((loads, loads))
    for known in range(loads):
        service = job_s * max(1.0, known / slots)
        there = service / beat_s * -math.expm1(-beat_s / service)
        for told in range(known + 1):
            ways = math.comb(known, told)
            rows[known, told] = ways * there**told * (1 - there) ** (known - told)
    return rows


def _offer(speed: Speed) -> Offer:
    return Offer(
        model=MODEL,
        class_id="",
        slots=speed.slots,
        context=0,
        prefill_rate=round(1e9 / speed.prefill_us),
        decode_rate=round(1e9 / speed.decode_us),
    )
