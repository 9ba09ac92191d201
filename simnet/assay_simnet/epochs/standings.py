"""How often a node's jobs are audited, as tables that production's own function filled.

The rate of a job depends on the node's record (passed audits) and on what it has in escrow of the
last `vouching_us`, its own price included (`Policy.audit_due_for`). Here that function is asked for
every record and for every number of jobs in escrow, their prices drawn from the workload. How many
those are follows from how many jobs a node gets: undrawn ones stay until `holdback_epochs` of the
policy's epochs have closed, or until `holdback_us` went by and `holdback_jobs` times as much was
earned, which for jobs from one workload is after so many more in the mean. So for each pace (jobs
in one of the policy's epochs) there is a mean rate for each record, the one that agrees with
itself, as what is audited does not stay.

    rate[pace, record]    mean share of jobs audited
    reach[pace, record]   jobs until a fresh key has that many passed audits, in the mean
    pay[pace, record]     what one audit pays, in prices of a job
    kept[pace, record]    jobs in escrow at the end of an epoch
    ramp[stage, record]   mean share audited of the first jobs of a node that has nothing in escrow,
                          who is audited oftener until that fills; stages are STAGES jobs long
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from assay_coordinator.core.jobs import Job, audit_pay
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.standing import aged, fresh_row
from assay_protocol.messages import Ticket
from assay_simnet.epochs.chances import Reals, Wholes

RECORDS_MAX: Final = 4_096  # passed audits; who has more is audited as often as with these
ESCROW_MAX: Final = 256  # jobs; who has more in escrow, as with these
PACES: Final = 96
PACE_MAX: Final = 1e5  # jobs in an epoch of the policy
STAGES: Final = (1, 1, 2, 4, 8, 16)  # jobs
_SAMPLES: Final = 48  # of prices
_PHASES: Final = 8  # of the policy's epoch, in which a job may be drawn
_ROUNDS: Final = 12  # until a rate agrees with the escrow it leaves
_GRID: Final = 1.12  # records between which rates are interpolated grow so
_RICH: Final = 1 << 62

Due = Callable[[int, int, int], tuple[int, int]]  # record, price, at risk -> the chance


class Standings:
    """The tables of one policy."""

    def __init__(
        self, policy: Policy, prices: Wholes, ticket: Ticket, due: Due, *, grows: bool = True
    ) -> None:
        """`prices`: of some jobs, in an order of no meaning. `due`: the rate of one job. `grows`:
        whether audits add to records."""
        self.policy, self._grows = policy, grows
        self.records = _flat(due)
        pays = _Pays(policy, ticket)
        some = prices[: _SAMPLES * (len(prices) // _SAMPLES)].reshape(_SAMPLES, -1)
        others = np.concatenate([np.zeros((_SAMPLES, 1), np.int64), some[:, 1:].cumsum(1)], 1)
        grid = _grid(self.records)
        depth = min(ESCROW_MAX, others.shape[1])
        rates, shares = np.empty((2, len(grid), depth))
        for place, record in enumerate(grid):
            for escrow in range(depth):
                at = [
                    due(record, int(p), int(p + o))
                    for p, o in zip(some[:, 0], others[:, escrow], strict=True)
                ]
                rates[place, escrow] = sum(n / d for n, d in at) / len(at)
                shares[place, escrow] = pays.mean(record, at, some[:, 0])
                if escrow > 1 and _same(rates[place], escrow):
                    rates[place, escrow:] = rates[place, escrow]
                    shares[place, escrow:] = shares[place, escrow]
                    break
        self._fill(grid, rates, shares)

    def _fill(self, grid: list[int], rates: Reals, shares: Reals) -> None:
        """From rates by what is in escrow to rates by pace."""
        policy = self.policy
        self._steps = (PACES - 1) / math.log1p(PACE_MAX)
        mixed = _mixing(rates.shape[1])
        by_mean, pay_by_mean = rates @ mixed.T, shares @ mixed.T
        phases = (np.arange(_PHASES) + 0.5) / _PHASES
        waiting = policy.round_us / 2 / policy.epoch_us
        aged, recent = (us / policy.epoch_us for us in (policy.holdback_us, policy.vouching_us))
        records = np.arange(self.records + 1)
        self.rate = np.empty((PACES, len(records)))
        self.pay, self.kept = np.empty_like(self.rate), np.empty_like(self.rate)
        last = mixed.shape[0] - 1
        for pace in range(PACES):
            jobs = math.expm1(pace / self._steps)
            rate = rates[:, 0].copy()
            for _ in range(_ROUNDS):
                stays = (policy.holdback_epochs + phases) * (1 - rate)[:, None]
                undrawn = jobs * (1 - rate)[:, None]
                enough = np.maximum(policy.holdback_jobs, undrawn * aged)
                held = np.minimum(enough if policy.holdback_jobs else 0.0, jobs * stays)
                counted = np.minimum(undrawn * recent, held) + jobs * waiting
                means = np.minimum(last, np.rint(4 * counted)).astype(np.int64)
                found = np.minimum(1.0, np.take_along_axis(by_mean, means, 1).mean(1))
                rate = (rate + found) / 2
            pay = np.take_along_axis(pay_by_mean, means, 1).mean(1)
            self.rate[pace] = np.interp(records, grid, rate)
            self.pay[pace] = np.interp(records, grid, pay)
            self.kept[pace] = np.interp(records, grid, held.mean(1))
        self.ramp = np.array([np.interp(records, grid, one) for one in _ramp(rates)])
        gained = np.array(STAGES) @ self.ramp - sum(STAGES) * self.rate
        self.extra = np.maximum(0.0, gained)  # audits, of who comes with nothing in escrow
        before = np.zeros((PACES, 1))
        steps = 1 / np.maximum(self.rate[:, :-1], 1e-9)
        self.reach = np.concatenate([before, steps.cumsum(1)], 1)
        self._offsets = np.arange(PACES) * (float(self.reach.max()) + 1.0)
        self._reached = (self.reach + self._offsets[:, None]).ravel()

    def paces(self, jobs: Reals) -> Wholes:
        """The place in the tables of so many jobs in one of the policy's epochs."""
        places = np.rint(np.log1p(jobs) * self._steps).astype(np.int64)
        return np.minimum(places, PACES - 1)

    def after(self, paces: Wholes, records: Wholes, jobs: Reals) -> Reals:
        """The mean record after so many more jobs, all of them done well; where audits add nothing,
        what it would be if they did."""
        if not self._grows:
            return records + jobs * self.look(self.rate, paces, records)
        known = np.minimum(records, self.records)
        width = self.records + 1
        flat = paces * width
        came = self.reach.ravel()[flat + known] + jobs
        top = self.reach[:, -1][paces]
        beyond = np.maximum(0.0, came - top) * self.rate[:, -1][paces]
        place = np.searchsorted(
            self._reached, np.minimum(came, top) + self._offsets[paces], "right"
        )
        low = np.clip(place - 1 - flat, 0, self.records - 1)
        at = self.reach.ravel()[flat + low]
        step = self.reach.ravel()[flat + low + 1] - at
        within = np.minimum(1.0, (np.minimum(came, top) - at) / step)
        after: Reals = low + within + beyond + (records - known)
        return after

    def look(self, table: Reals, paces: Wholes, records: Wholes) -> Reals:
        """`table` at those places."""
        flat = paces * (self.records + 1) + np.minimum(records, self.records)
        found: Reals = table.ravel()[flat]
        return found

    def forgotten(self, away_us: int) -> int:
        """How many times a record was halved in so long without an audit, by production's rule."""
        row = fresh_row(bytes(32), bytes(32), 0)
        whole = 1 << 30
        row = replace(row, verified=whole, state="active")
        kept = aged(self.policy, row, away_us).verified
        return whole.bit_length() - kept.bit_length()


class _Pays:
    """What an audit of such a job pays, by production's function, from a treasury that can."""

    def __init__(self, policy: Policy, ticket: Ticket) -> None:
        self._policy = policy
        self._job = Job(ticket, b"", "drawn", 0, 0)

    def mean(self, record: int, due: list[tuple[int, int]], prices: Wholes) -> float:
        """In prices of a job; each job counts as often as it is audited."""
        paid = weight = 0.0
        for (numerator, denominator), price in zip(due, prices.tolist(), strict=True):
            self._job.charged, self._job.numerator = price, numerator
            self._job.denominator = denominator
            often = numerator / denominator
            paid += often * audit_pay(self._policy, self._job, record, 1, _RICH) / max(1, price)
            weight += often
        return paid / weight if weight else 0.0


def _flat(due: Due) -> int:
    """From which record on the rate falls no more, with all that anybody can have in escrow."""
    least = due(_RICH, 1, _RICH)
    low, high = 0, RECORDS_MAX
    if _less(least, due(high, 1, _RICH)):
        return RECORDS_MAX
    while low < high:
        middle = (low + high) // 2
        if _less(least, due(middle, 1, _RICH)):
            low = middle + 1
        else:
            high = middle
    return max(1, low)


def _less(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] * other[1] < other[0] * one[1]


def _grid(most: int) -> list[int]:
    places, at = [], 0
    while at < most:
        places.append(at)
        at = max(at + 1, int(at * _GRID))
    return [*places, most]


def _same(rates: Reals, escrow: int) -> bool:
    """More in escrow changes nothing any more."""
    return bool(rates[escrow] == rates[escrow - 1] == rates[escrow - 2])


def _ramp(rates: Reals) -> list[Reals]:
    """By stage, for each record: what is not drawn stays in escrow."""
    found, escrow = [], np.zeros(len(rates))
    places, rows = rates.shape[1] - 1, np.arange(len(rates))
    for jobs in STAGES:
        audited = np.zeros(len(rates))
        for _ in range(jobs):
            low = np.minimum(escrow.astype(np.int64), places - 1)
            part = np.minimum(1.0, escrow - low)
            rate = rates[rows, low] * (1 - part) + rates[rows, low + 1] * part
            audited += rate
            escrow += 1 - rate
        found.append(audited / jobs)
    return found


def _mixing(depth: int) -> Reals:
    """[quarters of a job, jobs]: how likely so many others are in escrow where so many are in the
    mean (Poisson's law); what is beyond the last column counts as it."""
    means = np.arange(4 * depth) / 4
    counts = np.arange(depth)
    logs = np.array([math.lgamma(k + 1) for k in range(depth)])
    chances: Reals = np.exp(
        counts * np.log(np.maximum(means, 1e-12))[:, None] - means[:, None] - logs
    )
    chances[:, -1] += np.maximum(0.0, 1 - chances.sum(1))
    return chances
