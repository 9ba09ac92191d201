"""The epochs driver: token economics of up to a million nodes, an epoch at a time, in numpy.

It is no second protocol: nothing here sends a message. What production decides (rates of audits,
prices, fees and splits, what a verdict costs, the scheduler's order) is looked up in tables that
production's own functions filled; what is simulated is how many of everything there are, and
whether owners find it worth their while (docs/decisions/0020). An epoch:

    demand -> who is there gets how many jobs -> records grow, audits happen, cheats are found
           -> money moves -> owners come and go -> L1 is checked
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from assay_coordinator.core.candidates import SAMPLE
from assay_protocol.messages import ModelSplit, Pricing, Share
from assay_protocol.splits import PUBLISHER, Splits
from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.churn import read_trace
from assay_simnet.economy import Economy
from assay_simnet.epochs import asks
from assay_simnet.epochs.chances import Chances, Reals, Wholes, rounded
from assay_simnet.epochs.cheating import Day, Flags, Gang
from assay_simnet.epochs.credit_roots import credit_root
from assay_simnet.epochs.dispatch import Dispatch, Flow
from assay_simnet.epochs.lives import lives
from assay_simnet.epochs.outcome import Line, Outcome, summary, write_tables
from assay_simnet.epochs.owners import YEAR_US, Owners
from assay_simnet.epochs.purses import Booked, Purses, exact_sum
from assay_simnet.epochs.regimes import INVALID, regime
from assay_simnet.epochs.standings import Standings
from assay_simnet.epochs.votes import span_us
from assay_simnet.history import History
from assay_simnet.population import speed
from assay_simnet.record import Record
from assay_simnet.scenario import Churn, Scenario, number_of
from assay_simnet.schema import read_file
from assay_simnet.seeds import Streams
from assay_simnet.seen import Driver, SeenNode
from assay_simnet.setting import START

_PUBLISHER: Final = bytes([9]) * 32
_WHOLE_BPS: Final = 10_000


class Epochs:
    """One run. `run` lets it happen; then its parts tell what did."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None = None) -> None:
        self.scenario, self.seed, self.phase = scenario, seed, "warm-up"
        self.economy: Economy = scenario.economy
        self.history, self.record = History(), Record(folder)
        self.nodes: Sequence[SeenNode] = ()
        self.streams = Streams(seed)
        self.chances = Chances(self.streams)
        self.whole = max(1, scenario.duration // self.economy.epoch)
        self.done = 0
        self.asks = asks.sample(scenario.workload, scenario.model, self.streams.stream("workload"))
        n_in, n_out = self.asks.mean
        ticket = asks.ticket(scenario.model, n_in, n_out)
        self.rules = regime(scenario.audits, scenario.policy)
        self.policy = policy = self.rules.policy
        self.standings = Standings(
            policy, self.asks.prices, ticket, self.rules.due, grows=self.rules.by_audits
        )
        self._populate(n_in, n_out)
        self._gather()
        size = scenario.population.nodes
        self.purses = Purses(size)
        self.purses.bond(self.economy.bond * int(self.on.sum()))
        self.jobs_of = np.zeros(size, np.int64)
        self._price_bps = _WHOLE_BPS
        self.span_began: Wholes | None = None  # credit at the start of the last span
        self.outcome = Outcome()
        replayed = asks.replayed_tokens(self.asks)
        self.replay_s = np.array([replayed * s.prefill_us / 1e6 for s in self._speeds])
        self._replays = 1 + policy.reaudit_bps / _WHOLE_BPS

    # ---- who is there ----

    def _populate(self, n_in: int, n_out: int) -> None:
        """Machines, regions, records and who serves, from the tables the fast driver reads."""
        scenario, chances = self.scenario, self.chances
        given, size = scenario.population, scenario.population.nodes
        model = scenario.model
        self.profiles = tuple(given.profiles)
        machines = [scenario.machines[name] for name in self.profiles]
        paces = {
            n: speed(scenario.profiles[n], model.parameters, model.size) for n in self.profiles
        }
        self._speeds = list(paces.values())
        self.dispatch = Dispatch(scenario.policy, paces, n_in, n_out)
        self.profile = _drawn(given.profiles, size, chances.of("profile"))
        region = _drawn(given.regions, size, chances.of("region"))
        kwh = np.array([self.economy.power[name] for name in given.regions])
        self.there = _there(scenario.churn)
        self.owners = Owners(
            self.economy,
            machines,
            self.dispatch.slots,
            self.profile,
            kwh[region],
            self.there,
            chances,
        )
        known = chances.of("established").random(size) < given.established
        self.records: Wholes = np.where(known, given.verified, 0).astype(np.int64)
        self.was_on = np.zeros(size, bool)
        self.on: Flags = chances.of("active").random(size) < self.economy.active
        self.barred = np.zeros(size, bool)  # convicted
        self.came = np.ones(size, bool)  # and have had no job since: nothing is in escrow
        self.left_at = np.zeros(size, np.int64)  # epoch; of those that are not there

    def _gather(self) -> None:
        """Who of them cheats, and how."""
        scenario, size = self.scenario, self.scenario.population.nodes
        order = self.chances.of("adversaries").permutation(size)
        self.gangs: list[Gang] = []
        self.gang_of = np.full(size, -1, np.int8)
        taken = 0
        for place, given in enumerate(scenario.adversaries):
            many = number_of(given, size)
            nodes = np.sort(order[taken : taken + many])
            taken += many
            stream = self.streams.stream(f"lives:{place}")
            cheat = BEHAVIOURS[given.behaviour]
            condition = cheat.condition or "made_up"
            lasting = lives(self.rules, condition, given.cheat, self.asks.n_out, stream)
            gang = Gang(given, nodes, self.rules, lasting, self.standings)
            gang.begin(np.arange(many), self.chances.of(f"begin:{place}"))
            self.gangs.append(gang)
            self.gang_of[nodes] = place
            self.records[nodes] = given.verified
            self.on[nodes] = True

    # ---- what is seen ----

    @property
    def now(self) -> int:
        return START + self.done * self.economy.epoch

    @property
    def span_us(self) -> int:
        return span_us(self.scenario.governance, self.policy.epoch_us)

    @property
    def events(self) -> int:
        return self.history.events

    def summary(self) -> dict[str, Any]:
        return summary(self)

    def write_tables(self, folder: Path) -> None:
        write_tables(self, folder)

    # ---- running ----

    def run(self, watch: Callable[[Driver], None] | None = None) -> None:
        """All epochs. Raises Violated; `watch` is called after each."""
        self.phase = "safety"
        voting = min(self.whole, -(-self.span_us // self.economy.epoch))
        while self.done < self.whole:
            if self.done == self.whole - voting:
                self.span_began = self.purses.earned.copy()
            self._epoch()
            self.done += 1
            if "L1" in self.scenario.checks.of:
                self.purses.check()
            self._note()
            if watch is not None:
                watch(self)
        self.phase = "audit"

    def _epoch(self) -> None:
        number, economy = self.done, self.economy
        price, rules = self.prices()
        wanted = self._demand(number, price / max(1, self.asks.price))
        present = np.bincount(self.profile[self.on], minlength=len(self.profiles)).astype(float)
        seconds = economy.epoch / 1e6
        flow = self._flow(present * self.there, wanted / seconds)
        day = self._day(number, flow.per_node * seconds * self.there)
        self._honestly(day, self._gangs(day))
        for gang in self.gangs:
            gang.put(day)
        booked = Booked(day.jobs, day.refunded_before, day.refunded, day.held)
        pay = self.purses.book(price, rules, booked)
        audited = self._auditors(day, price)
        got = self.purses.subsidise(self._subsidy(number), self._worth(pay))
        busy_s, replayed_s = self._busy(day)
        profit = self.owners.pay(self.on, busy_s, pay + audited + got)
        self.records = day.records
        self.jobs_of += day.jobs
        convicted = self._convict(number)
        line = Line.of(self, day, price, wanted, flow.lost)
        line.busy_s, line.replayed_s = float(busy_s.sum()), replayed_s
        line.audit_pay, line.subsidy = exact_sum(audited), exact_sum(got)
        line.paid, line.profit, line.convicted = exact_sum(pay), exact_sum(profit), convicted
        line.active, line.by_profile = int(present.sum()), present.astype(int).tolist()
        slots = float((self.dispatch.slots * present).sum()) * seconds * self.there
        line.utilisation = round(line.busy_s / slots, 6) if slots else 0.0
        self.was_on |= self.on
        line.left = self._leave(number)
        line.entered = self._enter(number, flow, line)
        every = economy.tree_every
        if every and (number + 1) % every == 0:
            line.root = credit_root(self.purses, number + 1)
        self.outcome.add(line)
        self._move_price(line.utilisation)

    def _demand(self, number: int, price: float) -> float:
        """Jobs that clients want in this epoch; `price`: times the one it began with."""
        economy = self.economy
        at = (number + 0.5) * economy.epoch
        grown = math.exp(math.log1p(economy.growth) * at / YEAR_US)
        season = 1 + economy.season * math.sin(2 * math.pi * at / max(1, economy.season_period))
        dear = math.exp(-economy.elasticity * math.log(max(1e-9, price)))
        chance = float(self.chances.of("demand", number).standard_normal())
        noise = math.exp(economy.noise * chance - economy.noise**2 / 2)
        return self.asks.per_s * economy.epoch / 1e6 * grown * season * dear * noise

    def _flow(self, present: Reals, per_s: float) -> Flow:
        if present.sum() < 1:
            nothing = np.zeros(len(self.profiles))
            return Flow(nothing, 1.0)
        return self.dispatch.spread(present, per_s)

    def _day(self, number: int, mean: Reals) -> Day:
        """Everybody's jobs, and nothing that came of them yet."""
        size, policy = len(self.profile), self.policy
        chance = self.chances.of("jobs", number)
        jobs = np.zeros(size, np.int64)
        for place in range(len(self.profiles)):
            these = np.flatnonzero(self.on & (self.profile == place))
            jobs[these] = chance.poisson(float(mean[place]), len(these))
        nothing = np.zeros(size, np.int64)
        return Day(
            number=number,
            jobs=jobs,
            paces=self._paces(jobs),
            records=self.records,
            audits=nothing,
            refunded_before=nothing.copy(),
            refunded=nothing.copy(),
            held_before=self.purses.held,
            held=nothing,
            round_share=policy.round_us / max(1.0, self.there * self.economy.epoch),
            stage_share=policy.audit_stage_us / max(1.0, self.there * self.economy.epoch),
            suspension=policy.suspension_us / max(1.0, self.there * self.economy.epoch),
        )

    def _paces(self, jobs: Wholes) -> Wholes:
        """Where the tables have those who do so many jobs in an epoch."""
        policy_epochs = self.there * self.economy.epoch / self.policy.epoch_us
        known = np.arange(int(jobs.max(initial=0)) + 1)
        return self.standings.paces(known / max(1e-9, policy_epochs))[jobs]

    def _gangs(self, day: Day) -> int:
        """What adversaries do; jobs of theirs that are left to others."""
        return sum(
            gang.live(day, self.on, self.chances.of(f"cheats:{place}", day.number))
            for place, gang in enumerate(self.gangs)
        )

    def _honestly(self, day: Day, more: int) -> None:
        """What becomes of everybody's jobs, were all honest; `more`: jobs for those who are."""
        tables, jobs, number = self.standings, day.jobs, day.number
        honest = np.flatnonzero(self.gang_of < 0)
        done = exact_sum(jobs[honest]) if more else 0
        if done:
            extra = self.chances.of("more", number).poisson(jobs[honest] * (more / done))
            jobs[honest] += extra
            day.paces = self._paces(jobs)
        paces = day.paces
        top = np.minimum(self.records, tables.records)
        grown = jobs * tables.look(tables.rate, paces, top)
        young = np.flatnonzero((self.records < tables.records) & (jobs > 0))
        after = tables.after(paces[young], self.records[young], jobs[young].astype(float))
        grown[young] = after - self.records[young]
        bare = np.flatnonzero(self.came & (jobs > 0))
        grown[bare] += tables.look(tables.extra, paces[bare], self.records[bare])
        self.came[bare] = False
        audits = np.minimum(jobs, rounded(grown, self.chances.of("audits", number)))
        records = self.records + (audits if self.rules.by_audits else self.on)
        kept = rounded(tables.look(tables.kept, paces, records), self.chances.of("held", number))
        day.records, day.audits, day.held = records, audits, np.minimum(kept, jobs)

    # ---- money ----

    def prices(self) -> tuple[int, Splits]:
        """Of the mean job now, and what it is divided into."""
        price = max(1, self.asks.price * self._price_bps // _WHOLE_BPS)
        bps = self.economy.publisher_bps
        shares = (Share(account=_PUBLISHER, role=PUBLISHER, bps=bps),) if bps else ()
        split = (ModelSplit(model=asks.MODEL, shares=shares),) if shares else ()
        return price, Splits(Pricing(fee_bps=self.policy.fee_bps, splits=split))

    def _move_price(self, used: float) -> None:
        """The operator moves the list price towards the utilisation it wants."""
        economy = self.economy
        if not economy.price_step:
            return
        off = (used - economy.utilisation) / max(1e-9, economy.utilisation)
        factor = 1 + max(-economy.price_step, min(economy.price_step, off))
        least, most = (round(_WHOLE_BPS * x) for x in (economy.price_least, economy.price_most))
        self._price_bps = max(least, min(most, round(self._price_bps * factor)))

    def _auditors(self, day: Day, price: int) -> Wholes:
        """What audits pay, by the weights of production's draw (choice.py): the experienced first,
        where a sample of candidates holds one; each weighs its record up to a bound."""
        policy, tables = self.policy, self.standings
        owed = tables.look(tables.pay, day.paces, day.records) * day.audits
        weights = np.clip(day.records, 1, policy.auditor_weight_max).astype(np.float64)
        weights *= self.on & ~self.barred
        bounds = (policy.experienced_audits, policy.probation_audits, 0)
        many, unseen = max(1, int(np.count_nonzero(weights))), 1.0
        below = np.ones(len(weights), bool)
        for least in bounds:
            tier = below & (day.records >= least)
            below &= ~tier
            total = float(weights[tier].sum())
            share = np.count_nonzero(weights[tier]) / many
            none = max(0.0, unseen - share) ** SAMPLE if unseen > share else 0.0
            if total > 0:
                weights[tier] *= (unseen**SAMPLE - none) / total
            unseen = max(0.0, unseen - share)
        whole = float(weights.sum())
        for gang in self.gangs:
            gang.sees(float(weights[gang.nodes].sum()) / whole if whole else 0.0)
        return self.purses.pay_auditors(int(price * float(owed.sum())), weights)

    def _subsidy(self, number: int) -> int:
        """What is granted in this epoch."""
        economy = self.economy
        at = number * economy.epoch
        if not economy.subsidy_ends:
            return economy.subsidy
        to_go = economy.subsidy_ends - at
        if to_go <= 0:
            return 0
        if to_go >= economy.subsidy_fade:
            return economy.subsidy
        return economy.subsidy * to_go // economy.subsidy_fade

    def _worth(self, pay: Wholes) -> Reals:
        """Weights of a subsidy."""
        there = self.on & ~self.barred
        if self.economy.subsidy_by == "presence":
            return there.astype(np.float64)
        return np.asarray(pay * there, np.float64)

    def _busy(self, day: Day) -> tuple[Reals, float]:
        """Slot-seconds of each node, and of all replays together. Who audits is drawn by weight, so
        replays are spread evenly over those who are there."""
        busy = day.jobs * self.dispatch.job_s[self.profile]
        for gang in self.gangs:
            if gang.cheat.saves:
                share = gang.cheated_now / np.maximum(1, day.jobs[gang.nodes])
                busy[gang.nodes] *= 1 - gang.cheat.saves * np.minimum(1.0, share)
        replays = float(day.audits.sum()) * self._replays
        there = max(1, int(self.on.sum()))
        each = replays / there * self.replay_s[self.profile] * self.on
        return busy + each, float(each.sum())

    # ---- coming and going ----

    def _convict(self, number: int) -> int:
        """Keys that are gone for good; after `rejoin` their owners come with fresh ones."""
        economy, gone = self.economy, 0
        if self.rules.follows == INVALID:  # out for the day, and it was not completed
            for gang in self.gangs:
                self.records[gang.nodes] -= gang.convicted
            return sum(int(gang.convicted.sum()) for gang in self.gangs)
        for place, gang in enumerate(self.gangs):
            fresh = gang.nodes[gang.convicted & ~self.barred[gang.nodes]]
            gone += len(fresh)
            self.on[fresh], self.barred[fresh], self.left_at[fresh] = False, True, number
            self.purses.burn(round(economy.bond * economy.slashed) * len(fresh))
            self.purses.bond(-(economy.bond - round(economy.bond * economy.slashed)) * len(fresh))
            if not economy.rejoin:
                continue
            waits = max(1, -(-economy.rejoin // economy.epoch))
            back = np.flatnonzero(self.barred[gang.nodes] & gang.convicted)
            back = back[number - self.left_at[gang.nodes[back]] >= waits]
            nodes = gang.nodes[back]
            self.barred[nodes], self.on[nodes], self.records[nodes] = False, True, 0
            gang.convicted[back], gang.done[back] = False, 0
            gang.begin(back, self.chances.of(f"back:{place}", number))
            self.purses.bond(economy.bond * len(back))
        return gone

    def _leave(self, number: int) -> int:
        gone = self.owners.leave(self.on, self.chances.of("leave", number))
        self.on[gone], self.left_at[gone] = False, number
        self.purses.bond(-self.economy.bond * len(gone))
        return len(gone)

    def _enter(self, number: int, flow: Flow, line: Line) -> int:
        """Owners look at what one of their profile gets now: jobs, at what a job brought."""
        seconds = self.economy.epoch / 1e6 * self.there
        per_job = (line.paid + line.audit_pay + line.subsidy) / max(1, line.jobs)
        busy = flow.per_node * seconds * self.dispatch.job_s
        revenue = flow.per_node * seconds * per_job
        may = ~self.on & ~self.barred
        found = self.owners.enter(may, revenue, busy, self.chances.of("enter", number))
        away = number - self.left_at[found]
        if len(found):
            halvings = [
                self.standings.forgotten(int(k) * self.economy.epoch)
                for k in range(int(away.max()) + 1)
            ]
            self.records[found] >>= np.array(halvings)[away]
        self.on[found] = self.came[found] = True
        self.purses.bond(self.economy.bond * len(found))
        return len(found)

    def _note(self) -> None:
        """The epoch into the history: its line, and every purse and record."""
        line = self.outcome.lines[-1]
        self.record.begun += line.jobs
        self.record.finished["length"] += line.jobs
        detail = repr(line).encode()
        for array in (self.purses.earned, self.purses.escrow, self.records, self.on):
            detail += _digest(array)
        self.history.note(self.now, 0, 0, "epoch", detail)


def _digest(array: np.typing.NDArray[Any]) -> bytes:
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()


def _drawn(
    weights: dict[str, float], size: int, chance: np.random.Generator
) -> np.typing.NDArray[np.int8]:
    """A place in the table for each node, by weight."""
    upto = np.cumsum(list(weights.values()))
    places = np.searchsorted(upto, chance.random(size) * upto[-1], "right")
    found: np.typing.NDArray[np.int8] = np.minimum(places, len(upto) - 1).astype(np.int8)
    return found


def _there(churn: Churn) -> float:
    """The share of time that a node is on, in the mean."""
    if churn.model == "none":
        return 1.0
    if churn.model == "trace":
        rows = read_trace(read_file(Path(churn.trace)))
        up, away = (sum(row[place] for row in rows) for place in (0, 1))
    else:
        up, away = churn.session_mean, churn.away_mean
    return up / max(1, up + away)
