"""What auditors say of answers drawn at random from the recorded table, calibrated beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from assay_coordinator.core.calibration import BUILT_IN, Noise
from assay_coordinator.core.findings import Finding
from calibrating import halves, noise
from lives import finding
from noted import Noted

AMONG: Final = " > "  # in the name of an honest pair

Answers = Sequence[Sequence[Finding]]  # of each answer: what each of its auditors says


class Words:
    """Findings for every recorded answer, each half of the jobs by noise fitted from the other."""

    def __init__(
        self, table: Mapping[str, Noted], declared: str, *, built_in: bool = False
    ) -> None:
        """`declared`: the pair by which cheats are judged. `built_in`: fit nothing, judge all by
        the table that a coordinator has before its operator fits one."""
        self._table, self._built_in = table, built_in
        honest = [name for name in table if AMONG in name]
        self.honest: dict[str, Answers] = {}
        for executor in sorted({name.split(AMONG)[0] for name in honest}):
            pairs = [name for name in honest if name.split(AMONG)[0] == executor]
            said = [self._said(name, name) for name in pairs]
            self.honest[executor] = list(zip(*said, strict=False))
        cheats = [name for name in table if AMONG not in name]
        self.cheats: dict[str, Answers] = {
            name: [(one,) * 3 for one in self._said(name, declared)] for name in cheats
        }

    def _said(self, name: str, pair: str) -> list[Finding]:
        noises, found = self._noises(self._table[pair]), self._table[name]
        return [
            finding(found.ratios(noises[job % 2], job), hard=found.hard(job))
            for job in range(found.jobs)
        ]

    def _noises(self, fitted: Noted) -> list[Noise]:
        """For the even jobs and for the odd ones."""
        if self._built_in:
            return [BUILT_IN.noise(b"", "", "")] * 2
        even, odd = halves(fitted.jobs)
        return [noise(fitted.some(half)) for half in (odd, even)]


def of_one(random: Random, answers: Answers) -> list[Finding]:
    """Of one answer, in the order in which auditors happen to be asked."""
    words = list(random.choice(answers))
    random.shuffle(words)
    return words
