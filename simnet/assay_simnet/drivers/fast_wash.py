"""Wash trading: the client of a node's own owner, who buys from itself to look better than it is.

What production lets a client do, it does: name the node (`SubmitJob.only`), and say how each job is
verified. With that it buys, in this order and for as long as its node serves:

    a record   jobs of one token, verified "now": each is one more passed audit, for a price of one
               micro-credit, of which the fee rounds to nothing
    a purse    a long answer, verified "none", whenever little is in its node's escrow: audits are
               rarer for who has much at risk, and whose money it is nobody asks. Nobody audits
               these either, so they are made up
    a way out  one-token jobs, verified by the lottery like anybody's, to push out held pay. That
               worked while so many later jobs released it, however small they were; now what
               they are worth counts, and they buy next to nothing

When record and purse are there, strangers' answers are made up. All money between node and client
stays with the owner but for the fee; if the node is convicted, escrow goes back to its client.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Final, Protocol

from assay.events import Ended, Job
from assay_coordinator.core.standing import CLOSED
from assay_node.core.node import Node
from assay_protocol.limits import OUTPUT_TOKENS_MAX
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from assay_simnet.audit_policies import SCHEMES
from assay_simnet.drivers.fast_client import ClientWorld, FastClient, Run
from assay_simnet.roster import PlannedClient
from assay_simnet.setting import CANARY, START
from assay_simnet.traces import Ask

LOOK_US: Final = 1_000_000
RECORD, PURSE, WAY_OUT = "now", "none", "sample"  # what for: how those jobs are verified
TINY: Final = (len(CANARY) + 1, 1)  # tokens of prompt and answer
AT_ONCE: Final = 4  # jobs of one look
ROUNDS: Final = 4  # of the lottery between two ways out: who is busy all the time gets no strangers
PAUSE_US: Final = 15_000_000  # after one for the purse, until heartbeats told of it
LONG_JOBS: Final = 5  # in escrow at once: enough for the rarest audits of any stranger's job
WAY_OUT_MOST: Final = 1_000  # held jobs that can be pushed out; more are another network's rule


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
        model = world.scenario.model
        self._long = (TINY[0], min(OUTPUT_TOKENS_MAX, model.context - TINY[0]))
        held = 0 < terms.holdback_jobs <= WAY_OUT_MOST  # else pay is not held, or by the day
        thousandths = self._long[0] * model.price_in + self._long[1] * model.price_out
        self._purse = LONG_JOBS * thousandths // 1_000 if held else 0
        self._held = terms.holdback_jobs if held else 0
        self._every_us = ROUNDS * terms.round_us
        self._purpose, self._again_at, self._out_at, self._left = "", 0, 0, 0
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

    def never_looks(self, ticket: bytes) -> bool:
        """Whether the job is its own, and any answer will do."""
        return self._own.get(ticket) == PURSE

    # ---- buying ----

    def _look(self) -> None:
        if self.world.buckets.now >= self.world.arrivals_end:
            return
        core = self._node.core
        if core is not None and core.registered and core.repute.state not in CLOSED:
            self._go_on(core.repute.audits_passed, core.repute.escrow)
        self.world.buckets.after(LOOK_US, self._look)

    def _go_on(self, passed: int, escrow: int) -> None:
        now = self.world.buckets.now
        if passed < self._record:
            for _ in range(AT_ONCE - self._open_jobs[RECORD]):
                self._buy(RECORD, TINY)
            return
        if escrow < self._purse and now >= self._again_at and not self._open_jobs[PURSE]:
            self._again_at = now + PAUSE_US
            self._buy(PURSE, self._long)
        if now >= self._out_at:
            self._out_at, self._left = now + self._every_us, self._held
        for _ in range(min(self._left, AT_ONCE - self._open_jobs[WAY_OUT])):
            self._left -= 1
            self._buy(WAY_OUT, TINY)

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
