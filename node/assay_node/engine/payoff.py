"""Where drafts pay: as many as raise the expected tokens per second of the whole batch. Pure.

Nothing here knows a model or a machine. How often guesses hold is learned, for each job, from the
tokens that are drawn anyhow (drafts.py), and what rows cost from every decode that feeds no prompt
(costs.py). Drafts are chosen only if they promise `GAIN_MIN` of the rate without, and more where
costs are noisy; the same number for each job that gets any, as unequal ones need more passes.

If what was learned is wrong and says no, nothing would ever correct it: so likely guesses are tried
now and then all the same, as many of them as were tried least, for `PROBE_SHARE` of the time.

Weighing takes time, too, in every step and on cold caches: after a decode without drafts the next
look is put off, each time for longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from assay_node.engine.costs import DecodeCosts, passes
from assay_node.engine.drafting import Chosen
from assay_node.engine.drafts import Drafts
from assay_node.engine.jobs import Job
from assay_node.engine.plans import Feed

DRAFT_TOKENS_MAX: Final = 15  # for one job in one decode
GAIN_MIN: Final = 1.05
PROBE_SHARE: Final = 0.005
_WIDTHS: Final = (1, 3, 7, DRAFT_TOKENS_MAX)  # drafts of one job: kernels like powers of two rows
_LIKELIHOOD_MIN: Final = 0.2  # worse guesses are not even weighed
_PROBE_RIGHT_MIN: Final = 0.6  # of the drafts of a probe
_DOUBT: Final = 0.5  # what more rows cost may be found to be less, by so much
_MEMORY: Final = 16  # promises after which older ones hardly count
_CREDIT_DECODES_MAX: Final = 4  # saved up for probes at most
_CREDIT_DECODES_FIRST: Final = 8  # and lent once, as nothing is known yet
_PAUSE_MAX: Final = 8  # decodes between two looks, where nothing is drafted


@dataclass(frozen=True, slots=True)
class _Choice:
    width: int
    jobs: tuple[Job, ...]
    promised: float  # drafts that should be drawn
    tokens: float  # expected, of all jobs of the decode
    rows: tuple[int, ...]  # of its passes
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class _Promise:
    """What was chosen for the decode that is being made."""

    choice: _Choice
    before: int  # tokens that its jobs had
    without: _Choice
    probe: bool

    @property
    def accepted(self) -> int:
        """Drafts that were drawn, once everything was."""
        jobs = self.choice.jobs
        return sum(len(job.tokens) for job in jobs) - self.before - len(jobs)


class Payoff:
    """The Drafting of an engine that serves."""

    def __init__(self) -> None:
        self._costs = DecodeCosts()
        self._credit = 0.0  # seconds that probes may cost
        self._promise: _Promise | None = None
        self._kept = 1.0  # the share of what was promised that was drawn lately
        self._pause = self._left = 0  # decodes: the newest pause, and what is left of it
        self._looks = False

    def choose(self, jobs: Sequence[Job], rows: int) -> Chosen:
        self._looks = not self._left
        if not self._looks:
            self._left -= 1
            return {}
        chosen = self._chosen(jobs, rows)
        self._pause = 0 if chosen else min(2 * self._pause + 1, _PAUSE_MAX)
        self._left = self._pause
        return chosen

    def _chosen(self, jobs: Sequence[Job], rows: int) -> Chosen:
        offers = []
        for job in jobs:
            if job.drafts_max > 0:
                if job.drafts is None:
                    job.drafts = Drafts(job.tokens)
                job.drafts.follow()
                if job.drafts.likelihood >= _LIKELIHOOD_MIN:
                    offers.append(job)
        if not offers or not self._costs.known or len({job.adapter for job in jobs}) > 1:
            return {}
        self._promise = self._best(jobs, offers, rows)
        return {} if self._promise is None else _drafts_of(self._promise.choice)

    def took(self, feeds: Sequence[Feed], seconds: float) -> None:
        if not self._looks:
            return
        if not all(feed.rows == len(feed.tokens) for feed in feeds):
            return  # a prompt's rows cost less: most draw nothing
        first = not self._costs.known
        self._costs.took(passes((feed.slot, len(feed.tokens)) for feed in feeds), seconds)
        if self._promise is not None:
            self._settle(self._promise, seconds)
            self._promise = None
        elif first:
            self._credit = _CREDIT_DECODES_FIRST * seconds
        elif self._credit < _CREDIT_DECODES_MAX * seconds:
            self._credit += PROBE_SHARE * seconds * (1 + self._pause)

    def _settle(self, promise: _Promise, seconds: float) -> None:
        """The best of many promises is the one most likely to be too good: learn by how much."""
        kept = min(promise.accepted / promise.choice.promised, 2.0)
        self._kept = min(self._kept + (kept - self._kept) / _MEMORY, 1.0)
        if promise.probe:
            self._credit -= max(0.0, seconds - promise.without.seconds)

    def _best(self, jobs: Sequence[Job], offers: list[Job], rows: int) -> _Promise | None:
        offers.sort(key=lambda job: _expected(job, 1), reverse=True)
        slots = sorted(job.slot for job in jobs)
        without = self._weighed(slots, 0, (), 0.0)
        choices = list(self._choices(slots, offers, rows))
        if not choices:
            return None
        probe = self._probe(choices, without)
        choice = probe or max(choices, key=lambda choice: choice.rate)
        if probe is None and choice.rate < self._gain_min * without.rate:
            return None
        before = sum(len(job.tokens) for job in choice.jobs)
        return _Promise(choice, before, without, probe is not None)

    @property
    def _gain_min(self) -> float:
        """Of several uncertain promises the best is too good by chance, the more so the noisier."""
        return GAIN_MIN + self._costs.noise

    def _probe(self, choices: list[_Choice], without: _Choice) -> _Choice | None:
        """The least known of the likely ones that might pay, as soon as it can be paid for."""
        enough = self._gain_min * without.rate
        likely = [
            choice
            for choice in choices
            if choice.promised >= _PROBE_RIGHT_MIN * choice.width * len(choice.jobs)
            and choice.seconds <= without.seconds * (1 + _CREDIT_DECODES_MAX)
            and choice.tokens
            >= enough * (without.seconds + _DOUBT * (choice.seconds - without.seconds))
        ]
        least = min(likely, key=lambda choice: self._costs.seen(choice.rows), default=None)
        if least is None or least.seconds - without.seconds > self._credit:
            return None
        return least

    def _choices(self, slots: list[int], offers: list[Job], rows: int) -> Iterator[_Choice]:
        """Each width, for all whose guesses are worth weighing, for the better half of them, ..."""
        for width in _WIDTHS:
            able = [job for job in offers if job.drafts_max >= width]
            promised = list(accumulate(_expected(job, width) for job in able))
            count = min(len(able), rows // width)
            while count > 0:
                yield self._weighed(slots, width, tuple(able[:count]), promised[count - 1])
                count //= 2

    def _weighed(
        self, slots: list[int], width: int, takers: tuple[Job, ...], promised: float
    ) -> _Choice:
        drafted = {job.slot for job in takers}
        rows = passes((slot, 1 + width * (slot in drafted)) for slot in slots)
        tokens = len(slots) + self._kept * promised
        return _Choice(width, takers, promised, tokens, tuple(rows), self._costs.seconds(rows))


def _expected(job: Job, width: int) -> float:
    """How many of `width` drafts should be accepted."""
    return 0.0 if job.drafts is None else job.drafts.expected(width)


def _drafts_of(choice: _Choice) -> Chosen:
    return {job.id: job.drafts.next(choice.width) for job in choice.jobs if job.drafts is not None}
