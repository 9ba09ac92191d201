"""Drafts from answers that are known, every other time with a wrong token: to try a road with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay_node.engine.drafting import Chosen
from assay_node.engine.jobs import Job
from assay_node.engine.plans import Feed

WIDTHS: Final = (3, 0, 7, 1, 15, 5)  # drafts, in turn, another number for each job


class Rehearsal:
    """A Drafting for jobs whose `texts`, prompt and answer, were written before; by job."""

    def __init__(self, texts: dict[int, tuple[int, ...]], n_vocab: int) -> None:
        self._texts, self._n_vocab = texts, n_vocab
        self._turn = 0

    def choose(self, jobs: Sequence[Job], rows: int) -> Chosen:
        self._turn += 1
        each = rows // len(jobs)
        return {job.id: self._next(job)[:each] for job in jobs if job.id in self._texts}

    def took(self, feeds: Sequence[Feed], seconds: float) -> None:
        """What drafts cost does not matter here."""

    def _next(self, job: Job) -> tuple[int, ...]:
        number = self._turn + job.id
        width, begin = WIDTHS[number % len(WIDTHS)], len(job.tokens)
        drafts = list(self._texts[job.id][begin : begin + width])
        if drafts and number % 2:
            wrong = number // 2 % len(drafts)
            drafts[wrong] = (drafts[wrong] + 1) % self._n_vocab
        return tuple(drafts)
