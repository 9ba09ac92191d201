"""Who gets how many jobs: the limit of production's scheduler for very many nodes.

The scheduler looks at SAMPLE nodes drawn at random and takes the one that would be done first, by
`expected_us` of the load it knows: what a node told with its last heartbeat, and the tickets given
and receipts booked since, which together are the jobs there are. For many nodes that is a flow
between shares of nodes of each profile and load (the power of two choices: Vvedenskaya, Dobrushin
and Karpelevich 1996; Mitzenmacher 2001). It is followed until it stands still. Costs of a place
come from production's own function, bounds of a queue from its policy. Service is taken to be
exponential, and the way of tickets and receipts to take no time.
"""

from __future__ import annotations

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
        most = self.slots * (1 + policy.queue_per_slot)
        loads = np.arange(int(most.max()) + 1)
        room = loads < most[:, None]
        asked = submitted(n_in, n_out)
        costs = np.full(room.shape, np.inf)
        for place, one in enumerate(speeds.values()):
            offer = _offer(one)
            for load in loads[room[place]].tolist():
                costs[place, load] = expected_us(asked, offer, load)
        self._order = np.argsort(costs, axis=None, kind="stable")[: int(room.sum())]
        served = np.minimum(loads, self.slots[:, None])  # beyond its slots it computes no faster
        self._ends = served / self.job_s[:, None]  # jobs a second that end, by load
        self._at = np.zeros(room.shape)
        self._at[:, 0] = 1.0

    def spread(self, present: Reals, jobs_per_s: float) -> Flow:
        """`present`: nodes of each profile that are there, one at least."""
        share = np.maximum(present / present.sum(), GHOST)
        share /= share.sum()
        at = self._at / self._at.sum(1, keepdims=True) * share[:, None]
        wanted = jobs_per_s / float(present.sum())
        looked = min(SAMPLE, max(1, round(float(present.sum()))))
        step = _MOVE / (SAMPLE * wanted + float(self._ends.max()))
        for _ in range(STEPS_MAX):
            up = self._taken(at, wanted, looked, step)
            down = at * self._ends
            moved = -up - down
            moved[:, 1:] += up[:, :-1]
            moved[:, :-1] += down[:, 1:]
            at = at + step * moved
            if float(np.abs(moved).sum()) < STILL:
                break
        self._at = at
        lost = max(0.0, 1 - float(up.sum()) / wanted) if wanted else 0.0
        return Flow(up.sum(1) / share, lost if lost > LOST_LEAST else 0.0)

    def _taken(self, at: Reals, wanted: float, looked: int, step: float) -> Reals:
        """Jobs a second (a node) that come to each place, the cheapest first."""
        there = at.ravel()[self._order]
        none_yet = np.maximum(0.0, 1 - there.cumsum()) ** looked
        best = np.concatenate([[1.0], none_yet[:-1]]) - none_yet
        free = float(there.sum())
        rest = float(none_yet[-1]) / free if free > 0 else 0.0  # all are looked at then
        flow = np.zeros(at.size)
        flow[self._order] = np.minimum(wanted * (best + rest * there), _MOVE * there / step)
        found: Reals = flow.reshape(at.shape)
        return found


def _offer(speed: Speed) -> Offer:
    return Offer(
        model=MODEL,
        class_id="",
        slots=speed.slots,
        context=0,
        prefill_rate=round(1e9 / speed.prefill_us),
        decode_rate=round(1e9 / speed.decode_us),
    )
