"""One request's routing: from a plan to one answer, or to the failure that is told.

Rules it keeps:
- The answer is of one attempt alone. Before its first token another may take its place; after it
  never, so no answer is spliced from two models.
- An upstream is asked only if the request allows it and a case of the plan's `upstream_when` has
  occurred (invariant S3 as far as it is the gateway's).
- Two attempts run at once only as a hedge: the same model of the network on another node, once a
  request, out of a share of all requests. The first token decides; the other is cancelled.
- A charged failure is told, not tried again.
- Attempts are bounded by the targets and the upstream's retries, and every wait by the plan.

    READY -> ASKING -> ANSWERING -> OVER
    ASKING -> WAITING -> ASKING    a pause before the same upstream is asked again
    ASKING -> OVER                 nobody is left to ask
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from assay.routing.core.events import (
    Begin,
    Cancel,
    Effect,
    Event,
    Failed,
    FirstToken,
    GiveUp,
    Start,
    Tick,
    Whole,
)
from assay.routing.core.plans import TRY_AGAIN, Plan, Routes, Target, case_of
from assay.routing.core.share import Share

RETRY_US: Final = 500_000  # before an upstream is asked again, unless it says longer
RETRY_US_MAX: Final = 5_000_000  # what it may say: then the next target is asked instead
_MS: Final = 1_000


class Phase(Enum):
    """Where the request stands."""

    READY = auto()
    ASKING = auto()
    WAITING = auto()
    ANSWERING = auto()
    OVER = auto()


@dataclass(slots=True)
class Shares:
    """What all requests of one gateway have together; `requests` numbers them."""

    retries: Share
    hedges: Share
    requests: int = 0

    @classmethod
    def of(cls, routes: Routes) -> Shares:
        return cls(Share(routes.retry_permille), Share(routes.hedge_permille))


@dataclass(frozen=True, slots=True)
class Allowed:
    """What this request and its caller allow. `upstream_retries` are the upstream's own."""

    upstream: bool = False
    hedge: bool = False
    upstream_retries: int = 0


class RouteMachine:
    """Runs one request by `plan`; `seed` and the request's number spread its waits."""

    def __init__(self, plan: Plan, allowed: Allowed, shares: Shares, seed: int = 0) -> None:
        self.phase = Phase.READY
        self.answering: int | None = None  # the attempt whose answer it is
        self.case = ""  # of the newest failure
        self._plan, self._allowed, self._shares, self._seed = plan, allowed, shares, seed
        self._targets = plan.targets()
        self._place = -1  # of the target that is asked
        self._running: dict[int, Target] = {}
        self._attempts = 0
        self._retries = 0
        self._cases: set[str] = set() if plan.network else {"unserved"}
        self._failed: int | None = None
        self._hedge: int | None = None
        self._decisive: Failed | None = None  # of the target that is asked
        self._hedge_at: int | None = None
        self._slow_at: int | None = None
        self._again_at: int | None = None
        self._number = 0
        self._now = 0
        self._effects: list[Effect] = []

    @property
    def wake_at(self) -> int | None:
        """When a Tick is due; None if only an attempt can bring news."""
        times = (self._hedge_at, self._slow_at, self._again_at)
        return min((one for one in times if one is not None), default=None)

    def handle(self, now: int, event: Event) -> list[Effect]:
        """Take one event at `now`; returns what to do, in order."""
        self._now, self._effects = now, []
        match event:
            case Begin():
                assert self.phase is Phase.READY
                self._shares.retries.add()
                self._shares.hedges.add()
                self._shares.requests += 1
                self._number = self._shares.requests
                self._next("first")
            case FirstToken(attempt) if attempt in self._running:
                self._answer(attempt)
            case Whole(attempt) if attempt in self._running:
                self._answer(attempt)
                self._running.pop(attempt)
                self.phase = Phase.OVER
            case Failed(attempt) if attempt in self._running:
                self._lost(event)
            case Tick():
                self._tick()
        return self._effects

    def _answer(self, attempt: int) -> None:
        """It is this attempt's: once there is one, no other runs."""
        self.answering, self.phase = attempt, Phase.ANSWERING
        self._stop_waiting()
        for other in [one for one in self._running if one != attempt]:
            self._cancel(other)

    def _lost(self, event: Failed) -> None:
        target = self._running.pop(event.attempt)
        if self.answering is not None:
            self._failed = event.attempt
            self._give_up()
            return
        self._hedge_at = None
        if event.attempt != self._hedge:
            self._decisive = event
        if self._running:
            return  # the other one goes on, alone
        # What the hedge met, on top of the first one's failure, says nothing of the target.
        decisive = self._decisive
        assert decisive is not None, "the first attempt fails, or goes on"
        self._failed, case = decisive.attempt, case_of(decisive.code)
        if case is not None:
            self.case = case
            self._cases.add(case)
        if decisive.charged or case is None:
            self._give_up()
        elif not self._try_again(target, decisive):
            self._next("fallback")

    def _try_again(self, target: Target, event: Failed) -> bool:
        """Whether the same upstream is asked again, after a pause."""
        if not target.upstream or event.code not in TRY_AGAIN:
            return False
        wait = max(self._spread(RETRY_US), event.retry_after_us)
        if self._retries >= self._allowed.upstream_retries or wait > RETRY_US_MAX:
            return False
        if not self._shares.retries.take():
            return False
        self._retries += 1
        self._stop_waiting()
        self.phase, self._again_at = Phase.WAITING, self._now + wait
        return True

    def _tick(self) -> None:
        if self._due(self._again_at):
            self._again_at = None
            self._start("retry")
        elif self._due(self._slow_at):
            self.case = "slow"
            self._cases.add("slow")
            for attempt in list(self._running):
                self._failed = attempt
                self._cancel(attempt)
            self._next("fallback")
        elif self._due(self._hedge_at):
            self._hedge_at = None
            if self._shares.hedges.take():
                self._hedge = self._attempts
                self._start("hedge", beside=next(iter(self._running)))

    def _next(self, why: str) -> None:
        """Ask the next target that may be asked, or give up."""
        self._stop_waiting()
        place = self._place + 1
        while place < len(self._targets) and not self._may_ask(place):
            place += 1
        self._place = place
        if place >= len(self._targets):
            self._give_up()
            return
        self._start(why)
        plan = self._plan
        if plan.first_token_ms and self._other_than_slow(place):
            self._slow_at = self._now + plan.first_token_ms * _MS
        if plan.hedge_after_ms and self._allowed.hedge and not self._targets[place].upstream:
            self._hedge_at = self._now + self._spread(plan.hedge_after_ms * _MS)

    def _may_ask(self, place: int) -> bool:
        if not self._targets[place].upstream:
            return True
        return self._allowed.upstream and bool(self._cases & set(self._plan.upstream_when))

    def _other_than_slow(self, place: int) -> bool:
        """Whether somebody could be asked instead of a target that is too slow."""
        later = self._targets[place + 1 :]
        upstream = self._allowed.upstream and bool(
            (self._cases | {"slow"}) & set(self._plan.upstream_when)
        )
        return any(not one.upstream or upstream for one in later)

    def _start(self, why: str, beside: int | None = None) -> None:
        self.phase = Phase.ASKING
        attempt, self._attempts = self._attempts, self._attempts + 1
        target = self._targets[self._place]
        self._running[attempt] = target
        self._effects.append(Start(attempt, target, why, beside))

    def _cancel(self, attempt: int) -> None:
        del self._running[attempt]
        self._effects.append(Cancel(attempt))

    def _give_up(self) -> None:
        self._stop_waiting()
        self.phase = Phase.OVER
        self._effects.append(GiveUp(self._failed))

    def _stop_waiting(self) -> None:
        self._hedge_at = self._slow_at = self._again_at = None

    def _due(self, at: int | None) -> bool:
        return at is not None and self._now >= at

    def _spread(self, wait: int) -> int:
        """`wait` and up to a quarter more, so that what failed together does not return together;
        by seed, request and attempt, because a machine draws nothing itself."""
        told = f"{self._seed} {self._number} {self._attempts}".encode()
        return wait + wait * hashlib.blake2b(told, digest_size=1).digest()[0] // 1_024
