"""A node that serves well until it is trusted, then cheats in every job until it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from assay_coordinator.core.findings import Finding
from assay_coordinator.core.policy import Policy
from lives import Life, finding
from words import Answers, Words, of_one

GAIN: Final = 0.6  # of a job's price: saved by cheating
FRIENDS: Final = 0.1  # share of auditors who find nothing
JOBS_MAX: Final = 200_000
CHEATING_JOBS_MAX: Final = 20_000
DECLARED: Final = "flash"


@dataclass(slots=True)
class Outcome:
    """`profit` in prices of a job, against having stayed honest."""

    accepted: int = 0
    bad: int = 0
    profit: float = 0.0


class Traitor:
    """`patience`: audits it passes before it begins to cheat."""

    def __init__(
        self, random: Random, policy: Policy, words: Words, cheat: str, patience: int
    ) -> None:
        self._random, self._policy, self._patience = random, policy, patience
        self._answers: tuple[Answers, Answers] = (words.honest[DECLARED], words.cheats[cheat])
        self._life = Life(policy)
        self._escrow: list[bool] = []  # whether each held job is bad
        self._outcome = Outcome()

    def live(self) -> Outcome:
        cheating = False
        left = CHEATING_JOBS_MAX
        for _ in range(JOBS_MAX):
            cheating = cheating or self._life.row.verified >= self._patience
            left -= cheating
            self._serve(cheating)
            if self._life.state == "inquiry":
                self._inquiry()
            if self._life.state == "convicted" or not left:
                break
        if self._life.state == "convicted":
            self._outcome.profit -= len(self._escrow)
        else:
            for bad in self._escrow:
                self._accept(bad)
        return self._outcome

    def _serve(self, bad: bool) -> None:
        self._outcome.profit += GAIN * bad
        some, of = self._policy.audit_due(self._life.row.verified)
        if self._random.random() * of < some:
            again = self._random.random() * 10_000 < self._policy.reaudit_bps
            self._settle(self._life.audited(self._words(bad), 1 + again), bad)
            return
        self._escrow.append(bad)
        if len(self._escrow) > self._policy.holdback_jobs:
            self._accept(self._escrow.pop(0))

    def _inquiry(self) -> None:
        while self._escrow and self._life.state == "inquiry":
            bad = self._escrow.pop()
            self._settle(self._life.audited(self._words(bad), 2), bad)
        if self._life.state == "inquiry":
            self._life.suspended()

    def _words(self, bad: bool) -> list[Finding]:
        words = of_one(self._random, self._answers[bad])
        return [finding() if self._random.random() < FRIENDS else word for word in words]

    def _settle(self, outcome: str, bad: bool) -> None:
        if outcome in ("passed", "unaudited"):
            self._accept(bad)
        else:
            self._outcome.profit -= 1  # refunded

    def _accept(self, bad: bool) -> None:
        self._outcome.accepted += 1
        self._outcome.bad += bad
