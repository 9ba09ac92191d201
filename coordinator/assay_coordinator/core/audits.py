"""Audits: from a drawn receipt to a verdict, with auditors who are checked themselves.

One case per drawn job; one replay at a time per case, each by another auditor:

    task -> accept -> transcript -> deliver -> commit -> open -> reveal -> finding

The auditor is chosen independent of the executor (another key and another operator), learns
neither who executed nor what the executor claims, and is bound by its commitment before the
executor's leaves are opened. A good finding ends the case: released. A bad one is shown to further
auditors: two bad findings fail the job; one against one (with nobody left to ask) is decided by the
executor's committed logits, and convicts nobody (S2). Every case ends by its deadline (L4).

A case is not durable: after a restart it begins again, which costs a replay and loses nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from assay_coordinator.core.box_keys import can_seal_to
from assay_coordinator.core.choice import choose
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.events import Effect, Log, Notify, Save
from assay_coordinator.core.evidence import Finding, check_opening, weigh
from assay_coordinator.core.jobs import Job
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import AuditRow
from assay_coordinator.core.registry import Node, Registry
from assay_protocol.classes import LOGPROB_LEAVES, can_audit, holds_logprobs
from assay_protocol.codec import encode
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import commitment
from assay_protocol.messages import (
    AuditAccept,
    AuditCommit,
    AuditDecline,
    AuditReveal,
    AuditTask,
    LeavesOpened,
    OpenLeaves,
    RevealRequest,
    Ticket,
    Transcript,
    TranscriptRequest,
)
from assay_protocol.signing import digest

RETRY_US: Final = 1_000_000  # how soon to look for an auditor again
RESEND_US: Final = 10_000_000  # a request to an executor may be lost with its session
ASSIGN_MAX: Final = 64  # cases looked at in one go
SAMPLE: Final = 16  # auditors looked at before all are


@dataclass(slots=True)
class Replay:
    """One auditor at work on a case."""

    audit: bytes
    auditor: bytes
    stage: str
    deadline_at: int
    resend_at: int = 0
    box_key: bytes = b""
    commitment: bytes = b""
    candidates: int = 0


@dataclass(slots=True)
class Case:
    """One drawn job."""

    job: Job
    deadline_at: int
    alone_since: int = 0  # since when nobody is left to ask; 0 = somebody is
    replay: Replay | None = None
    findings: list[Finding] = field(default_factory=list)
    asked: set[bytes] = field(default_factory=set)  # auditors' keys and operators already used
    turns: int = 0  # auditors chosen so far
    opened: LeavesOpened | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case ended: passed, failed, withheld (by the executor: no transcript or leaves),
    unproven (one auditor's word against it, no other to be had), or unaudited."""

    case: Case
    outcome: str
    bad: tuple[Finding, ...] = ()
    good: tuple[Finding, ...] = ()


class Audits:
    """All open cases. `step` results carry the verdicts; who pays for them is not decided here."""

    def __init__(self, policy: Policy, registry: Registry, entropy: Entropy) -> None:
        self._policy, self._registry, self._entropy = policy, registry, entropy
        self.cases: dict[bytes, Case] = {}
        self._by_audit: dict[bytes, Case] = {}
        self._waiting: deque[bytes] = deque()
        self._later: list[tuple[int, bytes]] = []  # when to look again, a heap
        self.finished = 0

    def open(self, now: int, job: Job) -> list[Effect]:
        """A drawn job needs a verdict."""
        case = Case(job, now + self._policy.audit_case_us)
        self.cases[job.ticket.ticket] = case
        self._waiting.append(job.ticket.ticket)
        return self.assign(now)

    def drop(self, ticket: bytes) -> None:
        """The job was settled otherwise (its node was suspended)."""
        case = self.cases.pop(ticket, None)
        if case is not None and case.replay is not None:
            self._end_replay(case)

    def distrust(self, now: int, auditor: bytes) -> tuple[list[Effect], list[Verdict]]:
        """The auditor was suspended: what it found counts for nothing, open cases decide anew."""
        verdicts: list[Verdict] = []
        for case in list(self.cases.values()):
            if case.replay is not None and case.replay.auditor == auditor:
                self._end_replay(case)
                self._waiting.append(case.job.ticket.ticket)
            kept = [finding for finding in case.findings if finding.auditor != auditor]
            if len(kept) != len(case.findings):
                case.findings = kept
                verdict = self._decide(case) if kept else None
                if verdict is not None:
                    verdicts.append(verdict)
        return self.assign(now), verdicts

    def assign(self, now: int) -> list[Effect]:
        """Give waiting cases to free auditors."""
        effects: list[Effect] = []
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[1])
        for _ in range(min(ASSIGN_MAX, len(self._waiting))):
            ticket = self._waiting.popleft()
            case = self.cases.get(ticket)
            if case is None or case.replay is not None:
                continue
            free = self._free(now, case)
            if free:
                receipt = digest(case.job.receipt_blob)
                auditor = choose(self._policy, case.job.draw_seed, receipt, case.turns, free)
                case.turns += 1
                effects += self._task(now, case, auditor, len(free))
            else:
                heapq.heappush(self._later, (now + RETRY_US, ticket))
        return effects

    def receive(self, now: int, peer: bytes, message: object) -> tuple[list[Effect], list[Verdict]]:
        """A notice from an auditor or an executor. What does not fit is dropped: notices repeat."""
        case = self._by_audit.get(getattr(message, "audit", b""))
        if case is None or case.replay is None:
            return [], []
        replay, executor = case.replay, case.job.ticket.node
        handler: Callable[[int, Case, object], tuple[list[Effect], list[Verdict]]] | None = None
        for kind, role, stage, known in (
            (AuditAccept, replay.auditor, "task", self._accepted),
            (Transcript, executor, "transcript", self._transcript),
            (AuditCommit, replay.auditor, "deliver", self._committed),
            (LeavesOpened, executor, "open", self._opened),
            (AuditReveal, replay.auditor, "reveal", self._revealed),
        ):
            if isinstance(message, kind) and peer == role and replay.stage == stage:
                handler = known
        if handler is not None:
            return handler(now, case, message)
        if isinstance(message, AuditDecline):
            return self._declined(now, case, peer)
        return [], []

    def tick(self, now: int) -> tuple[list[Effect], list[Verdict]]:
        """Stages and cases that took too long."""
        effects: list[Effect] = []
        verdicts: list[Verdict] = []
        for case in list(self.cases.values()):
            if now >= case.deadline_at or self._stuck(now, case):
                verdicts.append(self._close(case, "unaudited"))
            elif case.replay is not None and now >= case.replay.deadline_at:
                more, ended = self._late(now, case)
                effects += more
                verdicts += ended
            elif case.replay is not None and now >= case.replay.resend_at:
                effects += self._ask_executor(now, case, case.replay)
        return effects + self.assign(now), verdicts

    # ---- choosing ----

    def _free(self, now: int, case: Case) -> list[Node]:
        """Auditors with room: of a few drawn at random, or if those have none, of all."""
        listed = self._registry.listed(case.job.ticket.model)
        few = listed
        if len(listed) > SAMPLE:
            few = [listed[self._entropy.below(len(listed))] for _ in range(SAMPLE)]
        free = [n for n in self._able(now, case, few) if self._has_room(n)]
        if free:
            case.alone_since = 0
            return free
        able = self._able(now, case, listed)
        case.alone_since = 0 if able else case.alone_since or now
        return [n for n in able if self._has_room(n)]

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

    def _leaves(self, class_id: str) -> str | None:
        """What the receipt's leaves hold; where logprobs are not taken, nobody may plead them."""
        taken = self._policy.logprob_leaves and holds_logprobs(class_id)
        return LOGPROB_LEAVES if taken else None

    def _stuck(self, now: int, case: Case) -> bool:
        """There is a finding, it does not decide, and nobody is left to ask."""
        alone = case.alone_since and now - case.alone_since >= self._policy.audit_alone_us
        return bool(alone and case.findings and case.replay is None)

    def _task(self, now: int, case: Case, auditor: Node, candidates: int) -> list[Effect]:
        ticket, receipt = case.job.ticket, case.job.receipt
        audit = self._entropy.fresh()
        case.replay = Replay(audit, auditor.key, "task", now + self._policy.audit_stage_us)
        case.replay.candidates = candidates
        case.asked |= {auditor.key, auditor.row.operator}
        self._by_audit[audit] = case
        auditor.auditing += 1
        task = AuditTask(
            audit=audit,
            ticket=ticket.ticket,
            seed_ticket=ticket.seed_ticket,
            model=ticket.model,
            sampler=ticket.sampler,
            max_tokens=ticket.max_tokens,
            start=ticket.start,
            n_in=ticket.n_in,
            n_out=receipt.n_out,
            prompt_hash=ticket.prompt_hash,
            nonce_commitment=ticket.nonce_commitment,
            output_hash=receipt.output_hash,
            finish=receipt.finish,
            deadline_at=now + 4 * self._policy.audit_stage_us,
            leaves=self._leaves(receipt.class_id),
        )
        return [Notify(auditor.key, task)]

    # ---- the stages ----

    def _accepted(
        self, now: int, case: Case, message: object
    ) -> tuple[list[Effect], list[Verdict]]:
        assert isinstance(message, AuditAccept)
        if not can_seal_to(message.box_key):  # else an honest executor had to decline
            replay = self._end_replay(case)
            return [*self._fault(replay, "box_key"), *self._again(now, case)], []
        replay = self._stage(now, case, "transcript")
        replay.box_key = message.box_key
        return self._ask_executor(now, case, replay), []

    def _ask_executor(self, now: int, case: Case, replay: Replay) -> list[Effect]:
        """Send the stage's request, for the first time or again; auditors get no second one."""
        ticket, replay.resend_at = case.job.ticket, now + RESEND_US
        if replay.stage == "transcript":
            sealed = TranscriptRequest(
                audit=replay.audit, ticket=ticket.ticket, box_key=replay.box_key
            )
            return [Notify(ticket.node, sealed)]
        if replay.stage == "open":
            wanted = OpenLeaves(audit=replay.audit, ticket=ticket.ticket)
            return [Notify(ticket.node, wanted)]
        return []

    def _transcript(
        self, now: int, case: Case, message: object
    ) -> tuple[list[Effect], list[Verdict]]:
        replay = self._stage(now, case, "deliver")
        return [Notify(replay.auditor, message)], []

    def _committed(
        self, now: int, case: Case, message: object
    ) -> tuple[list[Effect], list[Verdict]]:
        assert isinstance(message, AuditCommit)
        replay = self._stage(now, case, "open")
        replay.commitment = message.commitment
        if case.opened is not None:
            self._stage(now, case, "reveal")
            return [Notify(replay.auditor, RevealRequest(audit=replay.audit))], []
        return self._ask_executor(now, case, replay), []

    def _opened(self, now: int, case: Case, message: object) -> tuple[list[Effect], list[Verdict]]:
        assert isinstance(message, LeavesOpened)
        try:
            check_opening(case.job.receipt, message)
        except ProtocolError:
            return [], [self._close(case, "withheld")]
        case.opened = message
        replay = self._stage(now, case, "reveal")
        return [Notify(replay.auditor, RevealRequest(audit=replay.audit))], []

    def _revealed(
        self, now: int, case: Case, message: object
    ) -> tuple[list[Effect], list[Verdict]]:
        assert isinstance(message, AuditReveal)
        assert case.replay is not None
        assert case.opened is not None
        replay = self._end_replay(case)
        try:
            if commitment(message.nonce, encode(message)) != replay.commitment:
                raise ProtocolError("unexpected_message", "not what was committed to")
            finding = weigh(
                replay.auditor, replay.commitment, case.job.receipt, case.opened, message
            )
        except ProtocolError as error:
            return [*self._fault(replay, error.code), *self._again(now, case)], []
        case.findings.append(finding)
        self.finished += 1
        effects: list[Effect] = [Save(_row(now, case, replay, finding))]
        auditor = self._registry.nodes[replay.auditor]
        done = self._registry.update(auditor, audits_done=auditor.row.audits_done + 1)
        effects.append(Save(done))
        verdict = self._decide(case)
        if verdict is not None:
            return effects, [verdict]
        return [*effects, *self._again(now, case)], []

    def _declined(self, now: int, case: Case, peer: bytes) -> tuple[list[Effect], list[Verdict]]:
        assert case.replay is not None
        if peer == case.job.ticket.node:
            return [], [self._close(case, self._missing(case.job))]
        if peer != case.replay.auditor:
            return [], []
        if case.replay.stage == "task":
            operator = self._registry.nodes[peer].row.operator
            case.asked -= {peer, operator}  # busy is no fault; ask again later
        self._end_replay(case)
        heapq.heappush(self._later, (now + RETRY_US, case.job.ticket.ticket))
        return [], []

    def _late(self, now: int, case: Case) -> tuple[list[Effect], list[Verdict]]:
        assert case.replay is not None
        if case.replay.stage in ("transcript", "open"):
            return [], [self._close(case, self._missing(case.job))]
        replay = self._end_replay(case)
        effects = self._fault(replay, "late") if replay.stage != "task" else []
        return [*effects, *self._again(now, case)], []

    # ---- the verdict ----

    def _missing(self, job: Job) -> str:
        """The executor showed nothing. A draw that waited long for its block may ask for what a
        node need not keep any more."""
        late = job.drawn_at - job.booked_at > self._policy.draw_late_us
        return "unaudited" if late else "withheld"

    def _decide(self, case: Case) -> Verdict | None:
        bad = [finding for finding in case.findings if finding.bad]
        good = [finding for finding in case.findings if not finding.bad]
        if len(bad) >= 2:
            return self._close(case, "failed")
        if (good and not bad) or len(good) >= 2:
            return self._close(case, "passed")
        if len(case.findings) >= self._policy.replays_max:
            return self._close(case, "unaudited")
        return None

    def _close(self, case: Case, outcome: str) -> Verdict:
        self.drop(case.job.ticket.ticket)
        bad = tuple(finding for finding in case.findings if finding.bad)
        good = tuple(finding for finding in case.findings if not finding.bad)
        if outcome == "unaudited" and bad and not good:
            outcome = "unproven"  # one replay speaks against it and none for it: nobody pays
        return Verdict(case, outcome, bad, good)

    # ---- inside ----

    def _stage(self, now: int, case: Case, stage: str) -> Replay:
        assert case.replay is not None
        case.replay.stage = stage
        case.replay.deadline_at = now + self._policy.audit_stage_us
        return case.replay

    def _end_replay(self, case: Case) -> Replay:
        replay = case.replay
        assert replay is not None
        del self._by_audit[replay.audit]
        auditor = self._registry.nodes[replay.auditor]
        auditor.auditing -= 1
        assert auditor.auditing >= 0
        case.replay = None
        return replay

    def _again(self, now: int, case: Case) -> list[Effect]:
        self._waiting.append(case.job.ticket.ticket)
        return self.assign(now)

    def _fault(self, replay: Replay, why: str) -> list[Effect]:
        node = self._registry.nodes[replay.auditor]
        row = self._registry.update(node, audit_faults=node.row.audit_faults + 1)
        return [Save(row), Log("auditor_fault", (("auditor", node.key.hex()), ("why", why)))]


def _row(now: int, case: Case, replay: Replay, finding: Finding) -> AuditRow:
    return AuditRow(
        audit=replay.audit,
        ticket=case.job.ticket.ticket,
        executor=case.job.ticket.node,
        auditor=replay.auditor,
        at=now,
        replayed=finding.replayed,
        mismatches=finding.mismatches,
        equal_logits=finding.equal_logits,
        evidence=finding.evidence,
        outcome="bad" if finding.bad else "good",
        candidates=replay.candidates,
    )
