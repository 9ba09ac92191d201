"""What a cheat loses whose owner is a client of it, too, and so has a say in what is at risk.

    python bench/verify/own_money.py [--cheats N] [--seed N] [--share S]

Simulated, with production's queue of held pay and production's audit rate. A node with a long
record gets `pace` strangers' jobs an hour, all of one price, and cheats on every one. Its owner
buys from it at that price and without any work (the same prompt again): to have much in escrow (a
purse), and to push strangers' pay out once so many of their jobs may go (a flush). A drawn job on
which it cheated is found with the chance of `Threat`. Then what strangers paid is lost, the owner
has his own money back, and he goes on under a new key, whose record cost him nothing.

Each JSON line is of one rule and one pace: what he loses for each job on which he cheats, fees and
pay forfeited, in prices of a job, by the best plan without own jobs, with a purse, with flushes,
and with both. If he saves more than that by it, cheating pays. `audited` is how often an honest
node of that pace is, `held_h` for how many hours its undrawn pay is held, and `paid_h` how long all
its pay takes (medians and 95th percentiles). `--share`: how many of his own jobs reach his node;
the price of the others is lost, too.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from random import Random
from statistics import median
from typing import Final

from assay_coordinator.core.economics import Threat
from assay_coordinator.core.holdback import Held, Holdback
from assay_coordinator.core.policy import SECOND, Policy
from assay_coordinator.core.recent import RecentPay

PRICE: Final = 1_000  # micro-credits; nothing here depends on it
RECORD: Final = 1 << 20  # passed audits: the lowest rate
DRAWN_AFTER_US: Final = 120 * SECOND  # its round is drawn, its verdict is there
PACES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
PURSES: Final = (2, 4, 8, 12, 20, 30)
FLUSHES: Final = (4, 8, 16, 32)
AGAIN: Final = 4  # the best plan is tried again, so much longer
_HOUR_US: Final = 3_600 * SECOND
_EVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Rule:
    """`recent_us`: younger pay in escrow counts when it is decided how often a job is audited."""

    policy: Policy
    recent_us: int


RULES: Final = {
    "worth": Rule(Policy(holdback_us=0), _EVER),
    "worth and age": Rule(Policy(), _EVER),
    "worth and age, recent pay vouches": Rule(Policy(), Policy().vouching_us),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`purse`: own jobs kept in what vouches. `flush`: strangers' jobs pushed out together."""

    purse: int = 0
    flush: int = 0


class Owner:
    """A node, its owner, and what their plan has cost them."""

    def __init__(self, rule: Rule, plan: Plan, pace: float, share: float, random: Random) -> None:
        self._policy, self._recent_us, self._plan = rule.policy, rule.recent_us, plan
        self._pace, self._bought, self._random = pace, 1 / share - 1, random
        threat = Threat()
        self._found = threat.power * (1 - threat.collusion)
        self._fee = rule.policy.fee_bps / 10_000
        self._serial = 0
        self.lost = 0.0
        self.asked = self.drawn = 0  # by strangers
        self.held_us: list[int] = []
        self.paid_us: list[int] = []
        self._begin()

    def _begin(self) -> None:
        """With a new key: nothing in escrow."""
        self._queue, self._vouching = Holdback(), RecentPay()
        self._escrow: dict[bytes, tuple[bool, int]] = {}  # own or not, booked at
        self._drawn_in: dict[bytes, int] = {}  # epochs
        self._pending: deque[tuple[bytes, bool]] = deque()  # and whether it is drawn

    def live(self, jobs: int, honest: bool = False) -> None:
        """Serve so many strangers' jobs."""
        now, next_close = 0, self._policy.epoch_us
        for _ in range(jobs):
            now += max(1, round(self._random.expovariate(self._pace) * _HOUR_US))
            while next_close <= now:
                self._draw(next_close, honest)
                self._close(next_close)
                next_close += self._policy.epoch_us
            self._draw(now, honest)
            self._buy(now)
            self.drawn += self._book(now, own=False)
            self.asked += 1

    def _book(self, now: int, own: bool) -> bool:
        ticket = self._serial.to_bytes(8)
        self._serial += 1
        self._escrow[ticket] = own, now
        self._vouching.add(ticket, PRICE, now)
        at_risk = self._vouching.value(now, self._recent_us)
        some, of = self._policy.audit_due_for(RECORD, PRICE, at_risk)
        hit = self._random.random() * of < some
        self._pending.append((ticket, hit))
        self.lost += self._bought * own
        return hit

    def _draw(self, now: int, honest: bool) -> None:
        while self._pending:
            ticket, hit = self._pending[0]
            own, booked_at = self._escrow[ticket]
            at = booked_at + DRAWN_AFTER_US
            if at > now:
                return
            self._pending.popleft()
            if not hit:
                self._drawn_in[ticket] = at // self._policy.epoch_us
                self._queue.add(Held(ticket, PRICE, booked_at))
                self._release(at)
            elif honest or own or self._random.random() >= self._found:
                self._pay(at, ticket)
            else:
                self.lost += sum(not own for own, _ in self._escrow.values())
                self._begin()

    def _release(self, now: int) -> None:
        policy = self._policy
        while self._queue.due(now, policy.holdback_jobs, policy.holdback_us):
            self._pay_held(now)

    def _close(self, now: int) -> None:
        """An epoch ends, and a new one begins."""
        self._release(now)
        oldest = now // self._policy.epoch_us - 1 - self._policy.holdback_epochs
        while self._queue and self._drawn_in[self._queue.oldest] <= oldest:
            self._pay_held(now)

    def _pay_held(self, now: int) -> None:
        ticket = self._queue.take()
        self.held_us.append(now - self._escrow[ticket][1])
        del self._drawn_in[ticket]
        self._pay(now, ticket)

    def _pay(self, now: int, ticket: bytes) -> None:
        own, booked_at = self._escrow.pop(ticket)
        self.paid_us.append(now - booked_at)
        self._vouching.remove(ticket)
        self.lost += self._fee * own

    # ---- what he buys ----

    def _buy(self, now: int) -> None:
        if not (self._plan.purse or self._plan.flush):
            return
        vouching = sum(own and now - at < self._recent_us for own, at in self._escrow.values())
        for _ in range(self._plan.purse - vouching):
            self._book(now, own=True)
        bought = sum(self._escrow[ticket][0] for ticket, _ in self._pending)
        if 0 < self._plan.flush <= self._may_go(now) and bought < self._policy.holdback_jobs:
            for _ in range(self._policy.holdback_jobs):
                self._book(now, own=True)

    def _may_go(self, now: int) -> int:
        """Strangers' held jobs that are old enough to be pushed out."""
        held = (self._escrow[ticket] for ticket in self._queue)
        return sum(not own and now - at >= self._policy.holdback_us for own, at in held)


def lost(rule: Rule, plan: Plan, pace: float, share: float, cheats: int, seed: int) -> float:
    """What he loses for each job on which he cheats."""
    owner = Owner(rule, plan, pace, share, Random(f"{seed} {plan} {pace}"))
    owner.live(cheats)
    return owner.lost / owner.asked


def least(
    rule: Rule, plans: Iterable[Plan], pace: float, share: float, cheats: int, seed: int
) -> float:
    """What he loses by the best of `plans`, tried again, as the best one was lucky, too."""
    tried = [(lost(rule, plan, pace, share, cheats, seed), plan) for plan in plans]
    _, plan = min(tried, key=lambda one: one[0])
    return round(lost(rule, plan, pace, share, AGAIN * cheats, seed + 1), 2)


def figures(rule: Rule, pace: float, share: float, cheats: int, seed: int) -> dict[str, float]:
    """One line."""
    purses, flushes = [Plan(purse) for purse in PURSES], [Plan(0, flush) for flush in FLUSHES]
    both = [Plan(*one) for one in product(PURSES, FLUSHES)]
    given = {"none": [Plan()], "purse": purses, "flush": flushes, "both": both}
    shown = {name: least(rule, plans, pace, share, cheats, seed) for name, plans in given.items()}
    honest = Owner(rule, Plan(), pace, 1.0, Random(seed))
    honest.live(AGAIN * cheats, honest=True)
    shown["audited"] = round(honest.drawn / honest.asked, 3)
    for name, waits in (("held_h", honest.held_us), ("paid_h", honest.paid_us)):
        hours = sorted(one / _HOUR_US for one in waits)
        shown[name] = round(median(hours), 2)
        shown[f"{name}_p95"] = round(hours[len(hours) * 95 // 100], 2)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cheats", type=int, default=4_000, help="of each plan")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of own jobs that reach the node")
    asked = parser.parse_args()
    for name, rule in RULES.items():
        for pace in PACES:
            row = figures(rule, pace, asked.share, asked.cheats, asked.seed)
            print(json.dumps({"rule": name, "pace": pace, **row}), flush=True)


if __name__ == "__main__":
    main()
