"""Owners of machines: what a day costs them, and when they come and go.

A machine costs its idle power while it is there, a share of its loss of worth, what a bond would
earn elsewhere, and for each answer and replay the power above idle of the slot that computes it.
Owners average their profit over `patience`; of those with a loss a share leaves each epoch, and of
those outside whom their profile's mean revenue would bring what they want a share enters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_simnet.economy import DAY_US, Economy
from assay_simnet.epochs.chances import Chances, Reals, Wholes
from assay_simnet.machine_costs import Machine

YEAR_US: Final = 365 * DAY_US
_HOUR_S: Final = 3_600.0
_KILO: Final = 1_000.0
_MICRO: Final = 1e6

Flags = NDArray[np.bool_]


class Owners:
    """One for each node. Money is micro-credits an epoch."""

    def __init__(
        self,
        economy: Economy,
        machines: list[Machine],
        slots: Wholes,
        profile: NDArray[np.int8],
        power: Wholes,  # a kWh, by node's region
        there: float,  # share of an epoch in which a node is on
        chances: Chances,
    ) -> None:
        self._economy, self._profile = economy, profile
        spread = chances.of("power").standard_normal(len(profile))
        kwh = power * np.exp(economy.power_spread * spread)
        seconds = economy.epoch / 1e6
        idle = np.array([one.watts_idle for one in machines])
        busy = np.array([one.watts_busy for one in machines]) - idle
        worth = np.array([one.price for one in machines]) * _MICRO
        loss = economy.hardware * worth * economy.epoch / economy.machine_life
        loss += economy.upkeep * economy.epoch / DAY_US
        loss += economy.bond * economy.capital * economy.epoch / YEAR_US
        hours = seconds * there / _HOUR_S
        self._fixed = np.rint(idle[profile] / _KILO * hours * kwh + loss[profile]).astype(np.int64)
        self._slot_s = (busy / slots / _KILO / _HOUR_S)[profile] * kwh  # a busy second of a slot
        wanted = chances.of("wanted").exponential(1.0, len(profile))
        self._wanted = np.rint(wanted * economy.wanted * economy.epoch / DAY_US)
        self._weight = min(1.0, economy.epoch / max(economy.epoch, economy.patience))
        self.mean = np.zeros(len(profile))  # profit, averaged
        self.profit = np.zeros(len(profile), np.int64)  # of all epochs
        self.cost = 0  # of all nodes in the last epoch

    def pay(self, on: Flags, busy_s: Reals, revenue: Wholes) -> Wholes:
        """Each one's profit in an epoch, from the slot-seconds it computed and what it got."""
        costs = np.where(on, self._fixed + np.rint(self._slot_s * busy_s).astype(np.int64), 0)
        profit: Wholes = revenue - costs
        self.cost = int(costs.sum())
        self.profit += profit
        self.mean += self._weight * np.where(on, profit - self.mean, 0.0)
        return profit

    def leave(self, on: Flags, chance: np.random.Generator) -> Wholes:
        """Who goes now."""
        losing = np.flatnonzero(on & (self.mean < 0))
        going: Wholes = losing[chance.random(len(losing)) < self._economy.leave]
        return going

    def enter(
        self, may: Flags, revenue: Reals, busy_s: Reals, chance: np.random.Generator
    ) -> Wholes:
        """Who comes now. `revenue` and `busy_s`: what one of each profile would get and compute in
        an epoch."""
        outside = np.flatnonzero(may)
        outside = outside[chance.random(len(outside)) < self._economy.enter]
        kind = self._profile[outside]
        costs = self._fixed[outside] + self._slot_s[outside] * busy_s[kind]
        found: Wholes = outside[revenue[kind] - costs > self._wanted[outside]]
        self.mean[found] = 0.0
        return found
