"""Adversaries in an epoch: what they cheat on, when that is seen, what it costs them.

The names, shares and records are those of level "fast" (cheats.py). When a cheat is noticed follows
from how many of its jobs are audited (standings.py) and how many audits it lasts (lives.py). Then,
by production's rules and this policy's numbers,

    convicts     an inquiry audits what is in escrow; `convicting_jobs` of it wrong, the job that
                 failed among them, and all of escrow is refunded and the key is gone; else what was
                 wrong is refunded, and it begins anew after `suspension_us`
    withholds    each audited job that it hides is refunded and halves its record, and what is held
                 back is audited, too
    signs twice  the first ticket it signs two receipts for convicts

and by others' rules (regimes.py): a streak ends and begins anew, or it is out until the day ends.

What auditors do otherwise than honestly is modelled for rings alone: a member passes what a friend
made up, and 5 % of that (`reaudit_bps`) is shown to a second auditor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_coordinator.core.oversight import JOBS_LEAST
from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.epochs.chances import Reals, Wholes
from assay_simnet.epochs.lives import NEVER, Lives
from assay_simnet.epochs.regimes import INVALID, STREAK, Regime
from assay_simnet.epochs.standings import STAGES, Standings
from assay_simnet.scenario import Adversary

_ENDS: Final = np.cumsum(STAGES)  # jobs since escrow was empty, at the end of each stage
EVENTS_MAX: Final = 24  # inquiries of one node in one epoch that are followed

Flags = NDArray[np.bool_]


@dataclass
class Day:
    """One epoch's counts by node, which cheats change. `records` are passed audits."""

    number: int
    jobs: Wholes
    paces: Wholes
    records: Wholes
    audits: Wholes
    refunded_before: Wholes
    refunded: Wholes
    held_before: Wholes
    held: Wholes
    round_share: float  # of an epoch, that a round of the lottery waits
    stage_share: float  # ... and that a stage of an audit may take
    suspension: float  # of the jobs of an epoch, those a suspended node misses


class Gang:
    """All adversaries of one `[[adversary]]`. Arrays have a place for each of them."""

    def __init__(
        self, given: Adversary, nodes: Wholes, rules: Regime, lives: Lives, tables: Standings
    ) -> None:
        self.given, self.nodes, self.cheat = given, nodes, BEHAVIOURS[given.behaviour]
        self._rules, self._policy, self._lives, self._tables = rules, rules.policy, lives, tables
        self.streak = rules.follows == STREAK and not self.cheat.two_receipts
        self._round = rules.round(given.cheat, lives.seen, waits=self.cheat.only_active)
        self.going_round = np.zeros(len(nodes), bool)  # from one streak to the next
        self.done = np.zeros(len(nodes), np.int64)  # jobs
        self.left = np.full(len(nodes), NEVER)  # audits, or jobs, until it is noticed
        self.held_bad = np.zeros(len(nodes), np.int64)
        self.disproved = np.zeros(len(nodes), np.int64)  # jobs found wrong since it became active
        self.filled = np.zeros(len(nodes), np.int64)  # jobs since escrow was empty
        self.convicted = np.zeros(len(nodes), bool)
        self.first = np.full(len(nodes), np.nan)  # epochs, when it first cheated
        self.stopped = np.full(len(nodes), np.nan)  # ... and was first stopped
        self.cheated = self.paid = self.refunded = self.saved = 0  # jobs; saved: in whole answers
        self.cheated_now = np.zeros(len(nodes), np.int64)  # in this epoch
        self._them: _Them | None = None
        self.seen = 1.0  # chance that an audit of a cheated job is one by somebody honest

    def begin(self, who: Wholes, chance: np.random.Generator) -> None:
        """Fresh keys, or a fresh start: when they will be noticed is drawn. `who`: places here."""
        hides = self.cheat.hides is not None and self._rules.follows != INVALID
        if self.cheat.two_receipts or hides:
            self.left[who] = chance.geometric(max(1e-9, self.given.cheat), len(who))
        else:
            known = self._lives.audits
            self.left[who] = known[chance.integers(len(known), size=len(who))]

    def sees(self, weight_share: float) -> None:
        """`weight_share`: of all auditors' weight, what other members of a ring have."""
        k, twice = weight_share, self._policy.reaudit_bps / 10_000
        if self.cheat.audits == "for friends":
            self.seen = (1 - k) * (1 - k * k) + k * twice * (1 - k) ** 2

    def live(self, day: Day, on: Flags, chance: np.random.Generator) -> int:
        """One epoch of those that serve; how many of their jobs others have to do, as they were
        stopped. Nothing is in `day` before `put`."""
        self.cheated_now = np.zeros(len(self.nodes), np.int64)
        if self._rules.follows == INVALID and not self.cheat.two_receipts:
            self.convicted[:] = False
            self.begin(np.arange(len(self.nodes)), chance)
        here = np.flatnonzero(on[self.nodes] & ~self.convicted & (day.jobs[self.nodes] > 0))
        self._them = them = _Them(self, day, here)
        active = them.go_round(np.arange(len(here)), chance)
        for _ in range(EVENTS_MAX + len(STAGES)):
            if not len(active):
                break
            active = them.go_on(active, chance)
        them.honestly(active)
        them.finish(chance)
        return int((day.jobs[them.at] - them.served).sum())

    def put(self, day: Day) -> None:
        """What `live` came to, in place of what honest nodes would have done."""
        if self._them is not None:
            self._them.put(day)


class _Them:
    """Members that serve in one epoch, from one inquiry to the next."""

    def __init__(self, gang: Gang, day: Day, here: Wholes) -> None:
        self.gang, self.day, self.here = gang, day, here
        self.at = gang.nodes[here]
        self.rest = day.jobs[self.at].copy()  # jobs still to come
        self.served, self.audits, self.refunded, self.before, self.bad, self.bad_back = np.zeros(
            (6, len(here)), np.int64
        )
        # since the last event: jobs, those of them that it might have cheated on, and did
        self.since, self.since_free, self.since_bad = np.zeros((3, len(here)), np.int64)
        self.records = day.records[self.at].copy()
        self.paces = day.paces[self.at]
        self.carried = day.held_before[self.at].copy()
        self.carried_bad = gang.held_bad[here].copy()
        self.whole = np.maximum(1, self.rest)
        self.pending = np.zeros(len(here), np.int64)  # done since the job that gave it away
        self.held = np.zeros(len(here), np.int64)

    def go_on(self, who: Wholes, chance: np.random.Generator) -> Wholes:
        """Until the next event of each, or the epoch's end; who goes on after one."""
        gang, tables = self.gang, self.gang._tables
        rest, records, paces = self.rest[who], self.records[who], self.paces[who]
        lead = np.minimum(rest, self._lead(who))
        led = tables.after(paces, records, lead.astype(float))
        mid = led if gang._rules.by_audits else records.astype(np.float64)
        jobs = rest - lead
        stage, within = self._stage(who, lead, mid)
        jobs = np.where(within, np.minimum(jobs, _ENDS[stage] - gang.filled[self.here[who]]), jobs)
        end = tables.after(paces, mid.astype(np.int64), jobs.astype(float))
        share = np.clip((end - np.floor(mid)) / np.maximum(1, jobs), 0.0, 1.0)
        ramp = tables.ramp[stage, np.minimum(mid.astype(np.int64), tables.records)]
        share = np.where(within, np.maximum(share, ramp), share)
        audits = chance.binomial(jobs, share)
        signs = gang.cheat.two_receipts
        seen = jobs if signs else audits if gang.seen >= 1.0 else chance.binomial(audits, gang.seen)
        left = gang.left[self.here[who]]
        hit = (seen >= left) & (jobs > 0)
        upto = np.where(hit, -(-jobs * left // np.maximum(1, seen)), jobs)
        audits = np.where(hit, np.minimum(upto, -(-audits * upto // np.maximum(1, jobs))), audits)
        bad = chance.binomial(np.maximum(0, upto - hit), gang.given.cheat) + hit
        gang.left[self.here[who]] = np.where(hit, left, left - seen)
        self._note(who, lead, upto, bad)
        gang.filled[self.here[who]] += upto
        self.rest[who] = rest - lead - upto
        self._late(who[hit], chance)
        audits += np.floor(led).astype(np.int64) - records
        self.audits[who] += audits
        if gang._rules.by_audits:
            self.records[who] += audits
        self._event(who[hit], chance)
        who = self.go_round(who, chance) if gang.streak else who
        return who[self.rest[who] > 0]

    def go_round(self, who: Wholes, chance: np.random.Generator) -> Wholes:
        """The rest of the epoch of those that go from streak to streak; who is left."""
        gang, rounds = self.gang, self.gang._round
        these = who[gang.going_round[self.here[who]]]
        rest = self.rest[these]
        bad = chance.binomial(rest, rounds.bad)
        self._note(these, np.zeros_like(rest), rest, bad)
        back = chance.binomial(bad, rounds.refunded)
        self.bad_back[these] += back
        self.refunded[these] += back
        self.audits[these] += chance.binomial(rest, rounds.audited)
        self.rest[these] = 0
        return who[~gang.going_round[self.here[who]]]

    def _late(self, who: Wholes, chance: np.random.Generator) -> None:
        """What it does until the round of the job that gives it away is drawn, and, where it shows
        nothing, until the auditor's time is up. Jobs of a node in probation wait for no round."""
        proven = self.records[who] >= self.gang._rules.proven
        cheat = self.gang.cheat
        silent = cheat.hides is not None and not cheat.says_lost
        waits = self.day.round_share + silent * self.day.stage_share
        meanwhile = chance.poisson(self.whole[who] * waits * proven)
        jobs = np.minimum(self.rest[who], meanwhile)
        nothing = np.zeros_like(jobs)
        self._note(who, nothing, jobs, chance.binomial(jobs, self.gang.given.cheat))
        self.rest[who] -= jobs
        self.pending[who] = jobs

    def _stage(self, who: Wholes, lead: Wholes, records: Reals) -> tuple[Wholes, Flags]:
        """How far escrow has filled since it was empty, and whether it still fills. What is done in
        probation is audited and leaves nothing there."""
        gang, here = self.gang, self.here[who]
        proven = self.records[who] >= gang._rules.proven
        gang.filled[here] += np.where(proven, lead, 0)
        stage = np.minimum(np.searchsorted(_ENDS, gang.filled[here], "right"), len(STAGES) - 1)
        within = (gang.filled[here] < _ENDS[-1]) & (records >= gang._rules.proven)
        return stage, within

    def honestly(self, who: Wholes) -> None:
        """More befell them than is followed: the rest of the epoch they do as they should."""
        tables, rest = self.gang._tables, self.rest[who]
        end = tables.after(self.paces[who], self.records[who], rest.astype(float))
        audits = np.minimum(rest, np.floor(end).astype(np.int64) - self.records[who])
        self.records[who] += audits * self.gang._rules.by_audits
        self.audits[who] += audits
        nothing = np.zeros_like(rest)
        self._note(who, rest, nothing, nothing)
        self.rest[who] = 0

    def _lead(self, who: Wholes) -> Wholes:
        """Jobs it does honestly first."""
        gang, tables = self.gang, self.gang._tables
        lead = np.maximum(0, gang.given.after - gang.done[self.here[who]])
        if gang.cheat.only_active:
            fresh = self.records[who] < gang._rules.proven
            records = np.minimum(self.records[who], gang._rules.proven)
            paces = self.paces[who]
            there = np.full(len(who), gang._rules.proven)
            wait = tables.look(tables.reach, paces, there) - tables.look(
                tables.reach, paces, records
            )
            if not gang._rules.by_audits:
                wait = self.rest[who].astype(np.float64)  # not before the next epoch
            lead = np.maximum(lead, np.where(fresh, np.ceil(wait), 0).astype(np.int64))
        return lead.astype(np.int64)

    def _note(self, who: Wholes, lead: Wholes, upto: Wholes, bad: Wholes) -> None:
        gang, here = self.gang, self.here[who]
        first = np.isnan(gang.first[here]) & (bad > 0)
        began = self.day.number + (self.served[who] + lead) / self.whole[who]
        gang.first[here] = np.where(first, began, gang.first[here])
        gang.done[here] += lead + upto
        self.served[who] += lead + upto
        self.since[who] += lead + upto
        self.since_free[who] += upto
        self.since_bad[who] += bad
        self.bad[who] += bad

    def _event(self, who: Wholes, chance: np.random.Generator) -> None:
        """It is noticed: what is in escrow is looked at."""
        if not len(who):
            return
        gang, policy, here = self.gang, self.gang._policy, self.here[who]
        kept = np.rint(gang._tables.look(gang._tables.kept, self.paces[who], self.records[who]))
        kept = kept.astype(np.int64)
        own = np.minimum(kept + self.pending[who], self.since[who] - 1)
        old = np.minimum(self.carried[who], np.maximum(0, kept - own))
        looked = np.minimum(np.minimum(own, policy.inquiry_jobs_max), self.since_free[who] - 1)
        bad = np.minimum(chance.binomial(looked, gang.given.cheat), self.since_bad[who] - 1)
        old_bad = self.carried_bad[who] * old // np.maximum(1, self.carried[who])
        if gang.streak:
            self.bad_back[who] += 1
            self.refunded[who] += 1
            self.audits[who] += 1
            self.records[who] = 0
            gang.going_round[here] = True
            return
        if gang._rules.follows == INVALID:
            old, old_bad = np.zeros((2, len(who)), np.int64)
        if gang.cheat.two_receipts or gang._rules.follows == INVALID:
            wrong, old_wrong, gone = bad, old_bad, np.ones(len(who), bool)
        elif gang.cheat.hides is not None:
            wrong, old_wrong, gone = bad, old_bad, np.zeros(len(who), bool)
            halved = np.minimum(62, 1 + bad + old_bad)
            self.records[who] = self.records[who] >> halved
        else:
            lives = gang._lives
            failed = lives.failed[chance.integers(len(lives.failed), size=len(who))]
            wrong = chance.binomial(bad, lives.found)
            old_wrong = chance.binomial(old_bad, lives.found)
            again = self.records[who] >= gang._rules.proven
            known = np.where(again, 0, gang.disproved[here])
            known = gang.disproved[here] = known + failed + wrong + old_wrong
            gone = known >= max(JOBS_LEAST, policy.convicting_jobs)
            missed = np.rint(self.day.suspension * self.whole[who]).astype(np.int64)
            self.rest[who] = np.maximum(0, self.rest[who] - missed)
            self.records[who] = 0
        asked = np.minimum(policy.inquiry_jobs_max, own + old)
        least = max(JOBS_LEAST, policy.convicting_jobs)  # found wrong, they end the inquiry
        enough = -(-asked * least // np.maximum(1, wrong + old_wrong))
        self.audits[who] += np.where(gone, np.minimum(asked, enough), asked)
        self.refunded[who] += 1 + np.where(gone, own, wrong)
        taken = np.where(gone, old, old_wrong)
        self.before[who] += taken
        self.carried[who] -= taken
        self.carried_bad[who] -= np.where(gone, old_bad, old_wrong)
        self.bad_back[who] += 1 + np.where(gone, bad + old_bad, wrong + old_wrong)
        stopped = self.day.number + self.served[who] / self.whole[who]
        stops = gone | (gang.cheat.hides is None)
        gang.stopped[here] = np.where(
            stops & np.isnan(gang.stopped[here]), stopped, gang.stopped[here]
        )
        gang.convicted[here] |= gone
        self.rest[who] = np.where(gone, 0, self.rest[who])
        self.since[who] = self.since_free[who] = self.since_bad[who] = 0
        gang.filled[here] = 0
        gang.begin(here, chance)

    def finish(self, chance: np.random.Generator) -> None:
        """What the epoch leaves of them."""
        gang = self.gang
        self.bad_back = np.minimum(self.bad_back, self.bad + gang.held_bad[self.here])
        kept = np.rint(gang._tables.look(gang._tables.kept, self.paces, self.records))
        held = np.minimum(
            kept.astype(np.int64), np.minimum(self.since, self.served - self.refunded)
        )
        self.held = np.where(gang.convicted[self.here], 0, np.maximum(0, held))
        open_bad = self.bad + gang.held_bad[self.here] - self.bad_back
        free = np.minimum(self.held, self.since_free)
        held_bad = np.minimum(chance.binomial(free, gang.given.cheat), open_bad)
        gang.cheated += int(self.bad.sum())
        gang.refunded += int(self.bad_back.sum())
        gang.paid += int((open_bad - held_bad).sum())
        gang.held_bad[self.here] = held_bad
        gang.cheated_now[self.here] = self.bad

    def put(self, day: Day) -> None:
        at = self.at
        if not self.gang._rules.by_audits:
            self.records += 1  # the epoch is completed
        day.jobs[at], day.audits[at], day.records[at] = self.served, self.audits, self.records
        day.refunded[at], day.refunded_before[at] = self.refunded, self.before
        day.held[at] = self.held
