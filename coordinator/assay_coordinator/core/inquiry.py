"""From an alarm to its end: what a node has in escrow is audited, then it is convicted or not.

An alarm may be chance or one auditor's malice, so it convicts nobody. The node gets no jobs and its
pay waits, while up to `inquiry_jobs_max` of its unpaid jobs (recalled.py) are replayed whole, each
until two auditors of different operators agree. What they find wrong is refunded one by one, so
that an alarm costs a cheat those jobs whatever follows. With `convicting_jobs` of them wrong, or
enough proof in sum, it is convicted (settlement.py). Otherwise it is suspended for a while, and
begins anew in probation with its pay left to it: differing bits alone, which faulty memory can
cause, lead no further than that.
"""

from __future__ import annotations

import heapq
from dataclasses import replace

from assay_coordinator.core.audits import Audits
from assay_coordinator.core.events import Effect, Log, Notify, Save
from assay_coordinator.core.jobs import Jobs
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node, Registry
from assay_coordinator.core.standing import moved
from assay_protocol.messages import StandingChanged


class Inquiries:
    """Begins and ends inquiries, and lets suspended nodes try again."""

    def __init__(self, policy: Policy, registry: Registry, jobs: Jobs, audits: Audits) -> None:
        self._policy, self._registry = policy, registry
        self._jobs, self._audits = jobs, audits
        self._resting: list[tuple[int, bytes]] = []  # suspended until then, a heap

    def restore(self) -> None:
        """After the registry is restored: who is suspended, and until when."""
        for node in self._registry.nodes.values():
            if node.row.state == "suspended":
                self._rest(node)

    def begin(self, now: int, node: Node, reason: str) -> list[Effect]:
        """No more jobs; what is unpaid is audited by several."""
        node.row = moved(node.row, "inquiry", now)
        effects = self._told(node, reason)
        recalled = self._jobs.recall(node.key, self._policy.inquiry_jobs_max)
        open_now = [case.job for case in self._audits.of(node.key)]
        effects += [Save(job.row()) for job in recalled]
        for job in (*recalled, *open_now):
            effects += self._audits.open(now, job)
        return effects

    def over(self, node: Node) -> bool:
        """Whether an inquiry of it has nothing left to wait for."""
        return node.row.state == "inquiry" and not self._audits.of(node.key)

    def conclude(self, now: int, node: Node) -> list[Effect]:
        """Not convicted: it may begin anew after a pause."""
        row = moved(node.row, "suspended", now)
        node.row = replace(row, verified=0, evidence=0, detectors=b"")
        self._rest(node)
        return self._told(node, "inquiry")

    def tick(self, now: int) -> list[Effect]:
        """Back into probation, whose time has come."""
        effects: list[Effect] = []
        while self._resting and self._resting[0][0] <= now:
            at, key = heapq.heappop(self._resting)
            node = self._registry.nodes[key]
            if node.row.state == "suspended" and at == self._rests_until(node):
                node.row = moved(node.row, "probation", now)
                effects += self._told(node, "requalifies")
        return effects

    def _rest(self, node: Node) -> None:
        heapq.heappush(self._resting, (self._rests_until(node), node.key))

    def _rests_until(self, node: Node) -> int:
        return node.row.since + self._policy.suspension_us

    def _told(self, node: Node, reason: str) -> list[Effect]:
        state = node.row.state
        fields = (("node", node.key.hex()), ("state", state), ("reason", reason))
        notice = StandingChanged(state=state, reason=reason)
        return [Save(node.row), Notify(node.key, notice), Log("standing", fields)]
