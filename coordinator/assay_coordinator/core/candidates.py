"""Who may audit a job: nodes that could replay it, are independent of it and are trusted to.

Auditors are not chosen by class (docs/decisions/0005): whoever invents a class and fills it with
nodes of its own would choose its auditors. Only after others were asked, one more may be of the
executor's exact class, to confirm or refute a difference of bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay_coordinator.core.cases import Case
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node, Registry
from assay_coordinator.core.standing import may_audit
from assay_protocol.classes import can_audit, is_exact
from assay_protocol.messages import Ticket

SAMPLE: Final = 16  # auditors looked at before all are


class Candidates:
    """Looks for auditors."""

    def __init__(self, policy: Policy, registry: Registry, entropy: Entropy) -> None:
        self._policy, self._registry, self._entropy = policy, registry, entropy

    def free(self, now: int, case: Case) -> list[Node]:
        """Auditors with room: of a few drawn at random, or if those have none, of all."""
        listed = self._registry.listed(case.job.ticket.model)
        if case.by_class or not self._class_wanted(case):
            few = listed
            if len(listed) > SAMPLE:
                few = [listed[self._entropy.below(len(listed))] for _ in range(SAMPLE)]
            free = [n for n in self._able(now, case, few) if self._has_room(n)]
            if free:
                case.alone_since = 0
                return free
        able = self._able(now, case, listed)
        case.alone_since = 0 if able else case.alone_since or now
        free = [n for n in able if self._has_room(n)]
        return self._of_class(case, free) or free

    def _of_class(self, case: Case, free: list[Node]) -> list[Node]:
        """Those of the executor's exact class, if the case wants one and has had none by choice."""
        if case.by_class or not self._class_wanted(case):
            return []
        model, wanted = case.job.ticket.model, case.job.receipt.class_id
        alike = [node for node in free if node.offers[model].class_id == wanted]
        case.by_class = bool(alike)
        return alike

    def _class_wanted(self, case: Case) -> bool:
        if not case.findings or not is_exact(case.job.receipt.class_id):
            return False
        compared = [finding.equal for finding in case.findings if finding.equal is not None]
        return compared == [False] or (case.inquiry and not compared)

    def _has_room(self, node: Node) -> bool:
        return node.auditing < self._policy.audits_per_node

    def _able(self, now: int, case: Case, among: Sequence[Node]) -> list[Node]:
        """Present nodes that are independent of the executor and were not yet asked."""
        ticket = case.job.ticket
        executor = self._registry.nodes[ticket.node]
        return [
            node
            for node in among
            if node.serves(now, ticket.model)
            and not node.draining
            and self._masks_alike(ticket, node, executor)
            and can_audit(node.offers[ticket.model].class_id)
            and (node.offers[ticket.model].dims is None) == (ticket.sampler.texts is None)
            and may_audit(self._policy, node.row)
            and node.key not in (ticket.node, ticket.client)
            and node.row.operator != executor.row.operator
            and not case.asked & {node.key, node.row.operator}
        ]

    def _masks_alike(self, ticket: Ticket, node: Node, executor: Node) -> bool:
        """Another version of what computes masks may allow other tokens: its word is no evidence.

        The executor's offer now is the one it drew under: transcripts do not outlive its process.
        """
        theirs = node.offers[ticket.model].grammar
        if ticket.sampler.grammar is None:
            return True
        offer = executor.offers.get(ticket.model)
        return theirs is not None and (offer is None or offer.grammar == theirs)
