"""Wash trading: the client of a node's own owner, who buys from itself to look better than it is.

What production lets a client do, it does: name the node (`SubmitJob.only`), and say how each job is
verified. With that it buys, in this order and for as long as its node serves:

    a record   jobs of one token, verified "now": each is one more passed audit, for a price of one
               micro-credit, of which the fee rounds to nothing
    a purse    every few rounds so many jobs as push held pay out, of a stranger's mean price and
               verified by the lottery like anybody's: audits are rarer for who has much at risk,
               and where pay is held by worth alone, each such purse frees all that is held before

When record and purse are there, strangers' answers are made up. All money between node and client
stays with the owner but for the fee; if the node is convicted, escrow goes back to its client. Own
jobs are computed like others. A real owner would ask the same again and answer from memory.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Final, Protocol

from assay.events import Ended, Job
from assay_coordinator.core.standing import CLOSED
from assay_node.core.node import Node
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from assay_simnet.audit_policies import SCHEMES
from assay_simnet.drivers.fast_client import ClientWorld, FastClient, Run
from assay_simnet.roster import PlannedClient
from assay_simnet.setting import CANARY, START
from assay_simnet.traces import Ask

LOOK_US: Final = 1_000_000
RECORD, PURSE = "now", "sample"  # what for: how those jobs are verified
TINY: Final = (len(CANARY) + 1, 1)  # tokens of prompt and answer
AT_ONCE: Final = 4  # jobs under way
ROUNDS: Final = 8  # of the lottery between two purses: who is busy all the time gets no strangers
ARMED_JOBS: Final = 20  # of a purse in escrow: enough for the rarest audits of a stranger's job
PURSE_MOST: Final = 1_000  # held jobs that can be pushed out; more are another network's rule


class Seller(Protocol):
    """The node, as its owner knows it."""

    core: Node | None  # where it has a process

    @property
    def key(self) -> bytes: ...


class WashClient(FastClient):
    """Buys from `node`, and tells it which strangers' jobs to cheat on."""

    def __init__(self, world: ClientWorld, plan: PlannedClient, node: Seller) -> None:
        super().__init__(world, plan)
        given = world.scenario.policy
        terms = SCHEMES[world.scenario.audits].terms(given)
        self._node = node
        self._record = given.probation_audits * 10_000 // max(1, given.audit_bps_min)
        work, model = world.scenario.workload, world.scenario.model
        self._like_theirs = work.prompt_tokens, work.answer_tokens
        held = 0 < terms.holdback_jobs <= PURSE_MOST  # else pay is not held, or by the day
        thousandths = work.prompt_tokens * model.price_in + work.answer_tokens * model.price_out
        self._jobs = terms.holdback_jobs if held else 0
        self._purse = min(ARMED_JOBS, self._jobs) * thousandths // 1_000
        self._every_us = ROUNDS * terms.round_us
        self._purpose, self._again_at, self._left = "", 0, 0
        self._open_jobs: Counter[str] = Counter()
        self._own: dict[bytes, str] = {}  # tickets under way: what for
        world.buckets.at(START + world.scenario.warm_up, self._look)

    @property
    def armed(self) -> bool:
        """Whether strangers' jobs are drawn as rarely as they will ever be, and cheating begins."""
        core = self._node.core
        if core is None or core.repute.state != "active":
            return False
        repute = core.repute
        return repute.audits_passed >= self._record and repute.escrow >= self._purse

    def bought(self, ticket: bytes) -> bool:
        """Whether the job is its own."""
        return ticket in self._own

    # ---- buying ----

    def _look(self) -> None:
        if self.world.buckets.now >= self.world.arrivals_end:
            return
        core = self._node.core
        if core is not None and core.registered and core.repute.state not in CLOSED:
            self._go_on(core.repute.audits_passed)
        self.world.buckets.after(LOOK_US, self._look)

    def _go_on(self, passed: int) -> None:
        now = self.world.buckets.now
        if passed < self._record:
            for _ in range(AT_ONCE - self._open_jobs[RECORD]):
                self._buy(RECORD, TINY)
            return
        if now >= self._again_at:
            self._again_at, self._left = now + self._every_us, self._jobs
        for _ in range(min(self._left, AT_ONCE - self._open_jobs[PURSE])):
            self._left -= 1
            self._buy(PURSE, self._like_theirs)

    def _buy(self, purpose: str, tokens: tuple[int, int]) -> None:
        self._purpose = purpose
        self._open_jobs[purpose] += 1
        self._ask(deque([Ask(0, *tokens, "")]), deque())

    def _job(self, ask: Ask) -> Job:
        return replace(super()._job(ask), only=(self._node.key,), verify=self._purpose)

    def _open(self, run: int, known: Run, attempt: int, key: bytes, first: bytes) -> None:
        self._own[known.machine.drawing.ticket] = known.machine.job.verify
        super()._open(run, known, attempt, key, first)

    def _over(self, run: int, known: Run, effect: Ended) -> None:
        self._open_jobs[known.machine.job.verify] -= 1
        for segment in effect.outcome.segments:
            self._own.pop(peek(Ticket, segment.ticket).ticket, None)
        super()._over(run, known, effect)
