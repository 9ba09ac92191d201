"""Audits: from a drawn receipt to a verdict, with auditors who are checked themselves.

One case per drawn job; one replay at a time per case, each by another auditor:

    task -> accept -> transcript -> deliver -> commit -> open -> reveal -> finding

The auditor is chosen independent of the executor (another key and another operator), learns
neither who executed nor what the executor claims, and is bound by its signed commitment before the
executor's leaves are opened. A good finding ends the case, but for a share of them a second auditor
is asked all the same; what is doubtful or wrong is shown to further ones (quorum.py). Every case
ends by its deadline (L4).

A case is not durable: after a restart it begins again, which costs a replay and loses nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from assay_coordinator.core.box_keys import can_seal_to
from assay_coordinator.core.calibration import Table, Tables
from assay_coordinator.core.candidates import Candidates
from assay_coordinator.core.cases import Case, Replay
from assay_coordinator.core.choice import choose
from assay_coordinator.core.coverage import replay_tokens
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.events import Effect, Log, Notify, Save
from assay_coordinator.core.findings import Asked, Bound, Finding, check_opening, weigh
from assay_coordinator.core.jobs import Job
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.quorum import Decision, conclude, decide
from assay_coordinator.core.records import AuditRow
from assay_coordinator.core.registry import Node, Registry
from assay_coordinator.core.verdicts import Verdict
from assay_protocol.classes import LOGPROB_LEAVES, holds_logprobs
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.hashing import commitment
from assay_protocol.messages import (
    AuditAccept,
    AuditCommit,
    AuditDecline,
    AuditReveal,
    AuditStatement,
    AuditTask,
    LeavesOpened,
    OpenLeaves,
    RevealRequest,
    Transcript,
    TranscriptRequest,
)
from assay_protocol.signing import ED25519, Verifier, digest, open_signed

RETRY_US: Final = 1_000_000  # how soon to look for an auditor again
RESEND_US: Final = 10_000_000  # a request to an executor may be lost with its session
ASSIGN_MAX: Final = 64  # cases looked at in one go
# A replay's stages: who is waited for, and what ends the wait.
STAGES: Final[Mapping[tuple[str, str], str]] = {
    ("task", "transcript"): "the auditor accepts, with a key to seal to",
    ("transcript", "deliver"): "the executor's transcript is passed on, sealed",
    ("deliver", "open"): "the auditor commits to what it found, signed",
    ("open", "reveal"): "the executor opens its leaves",
}
INQUIRY_FINDINGS: Final = 2  # that have to speak for a job of a node under inquiry

Ended = tuple[list[Effect], list[Verdict]]


class Audits:
    """All open cases. `step` results carry the verdicts; who pays for them is not decided here."""

    def __init__(
        self,
        policy: Policy,
        registry: Registry,
        entropy: Entropy,
        tables: Tables | None = None,
        verifier: Verifier = ED25519,
    ) -> None:
        self._policy, self._registry, self._entropy = policy, registry, entropy
        self._tables, self._verifier = tables or Tables(), verifier
        self._candidates = Candidates(policy, registry, entropy)
        self.cases: dict[bytes, Case] = {}
        self._by_audit: dict[bytes, Case] = {}
        self._waiting: deque[bytes] = deque()
        self._later: list[tuple[int, bytes]] = []  # when to look again, a heap
        self.finished = 0

    def open(self, now: int, job: Job) -> list[Effect]:
        """A drawn job needs a verdict. Of a node under inquiry its whole answer is replayed, and
        more than one auditor has to find it right."""
        ticket, n_out = job.ticket.ticket, job.receipt.n_out
        case = self.cases.get(ticket)
        if case is None:
            tokens = replay_tokens(self._entropy, digest(job.receipt_blob), n_out)
            deadline = now + self._policy.audit_case_us
            case = self.cases[ticket] = Case(job, deadline, tokens, self._table(job))
            self._waiting.append(ticket)
        if self._registry.nodes[job.ticket.node].row.state == "inquiry":
            case.inquiry, case.wanted = True, INQUIRY_FINDINGS
            case.deadline_at = now + self._policy.inquiry_us
            if not case.findings and case.replay is None:
                case.tokens = n_out
        return self.assign(now)

    def of(self, executor: bytes) -> list[Case]:
        """Its open cases."""
        return [case for case in self.cases.values() if case.job.ticket.node == executor]

    def drop(self, ticket: bytes) -> Case | None:
        """The job was settled otherwise (its node was convicted)."""
        case = self.cases.pop(ticket, None)
        if case is not None and case.replay is not None:
            self._end_replay(case)
        return case

    def distrust(self, now: int, auditor: bytes) -> Ended:
        """The auditor was convicted: what it found counts for nothing, open cases decide anew."""
        verdicts: list[Verdict] = []
        for case in list(self.cases.values()):
            if case.replay is not None and case.replay.auditor == auditor:
                self._end_replay(case)
                self._waiting.append(case.ticket)
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
            free = self._candidates.free(now, case) if case.table is not None else []
            if free:
                receipt = digest(case.job.receipt_blob)
                auditor = choose(self._policy, case.job.draw_seed, receipt, case.turns, free)
                case.turns += 1
                effects += self._task(now, case, auditor, len(free))
            else:
                heapq.heappush(self._later, (now + RETRY_US, ticket))
        return effects

    def receive(self, now: int, peer: bytes, message: object) -> Ended:
        """A notice from an auditor or an executor. What does not fit is dropped: notices repeat."""
        case = self._by_audit.get(getattr(message, "audit", b""))
        if case is None or case.replay is None:
            return [], []
        replay, executor = case.replay, case.job.ticket.node
        handler: Callable[[int, Case, object], Ended] | None = None
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

    def tick(self, now: int) -> Ended:
        """Stages and cases that took too long."""
        effects: list[Effect] = []
        verdicts: list[Verdict] = []
        for case in list(self.cases.values()):
            if now >= case.deadline_at or self._stuck(now, case):
                verdicts.append(self._close(case, conclude(case.findings, case.agree)))
            elif case.replay is not None and now >= case.replay.deadline_at:
                more, ended = self._late(now, case)
                effects += more
                verdicts += ended
            elif case.replay is not None and now >= case.replay.resend_at:
                effects += self._ask_executor(now, case, case.replay)
        return effects + self.assign(now), verdicts

    # ---- starting a replay ----

    def _stuck(self, now: int, case: Case) -> bool:
        """There is a finding, it does not decide, and nobody is left to ask; or nothing can be
        judged here."""
        alone = case.alone_since and now - case.alone_since >= self._policy.audit_alone_us
        lonely = bool(alone and case.findings and case.replay is None)
        return lonely or case.table is None

    def _task(self, now: int, case: Case, auditor: Node, candidates: int) -> list[Effect]:
        ticket, receipt = case.job.ticket, case.job.receipt
        audit, class_id = self._entropy.fresh(), auditor.offers[ticket.model].class_id
        stage_ends = now + self._policy.audit_stage_us
        case.replay = Replay(audit, auditor.key, class_id, "task", stage_ends)
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
            replay=None if case.tokens == receipt.n_out else case.tokens,
        )
        return [Notify(auditor.key, task)]

    def _leaves(self, class_id: str) -> str | None:
        """What the leaves hold. Weaker ones are no plea where the operator does not take them."""
        taken = self._policy.logprob_leaves and holds_logprobs(class_id)
        return LOGPROB_LEAVES if taken else None

    def _asked(self, case: Case) -> Asked:
        told = self._leaves(case.job.receipt.class_id) is not None
        ticket = case.job.ticket
        return Asked(case.tokens, told, ticket.model, ticket.sampler.texts is not None)

    # ---- the stages ----

    def _accepted(self, now: int, case: Case, message: object) -> Ended:
        assert isinstance(message, AuditAccept)
        if not can_seal_to(message.box_key):  # else an honest executor had to decline
            return self._at_fault(now, case, "box_key")
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

    def _transcript(self, now: int, case: Case, message: object) -> Ended:
        replay = self._stage(now, case, "deliver")
        return [Notify(replay.auditor, message)], []

    def _committed(self, now: int, case: Case, message: object) -> Ended:
        assert isinstance(message, AuditCommit)
        assert case.replay is not None
        try:
            self._check_statement(case, case.replay, message)
        except ProtocolError:
            return self._at_fault(now, case, "statement")
        replay = self._stage(now, case, "open")
        replay.commitment, replay.statement = message.commitment, message.statement or b""
        if case.opened is not None:
            self._stage(now, case, "reveal")
            return [Notify(replay.auditor, RevealRequest(audit=replay.audit))], []
        return self._ask_executor(now, case, replay), []

    def _check_statement(self, case: Case, replay: Replay, message: AuditCommit) -> None:
        """A commitment counts with the auditor's signature on it: its word outlives this talk."""
        said = open_signed(AuditStatement, message.statement or b"", replay.auditor, self._verifier)
        expected = AuditStatement(
            audit=replay.audit,
            ticket=case.ticket,
            output_hash=case.job.receipt.output_hash,
            commitment=message.commitment,
        )
        if said != expected:
            raise ProtocolError("unexpected_message", "the statement is of something else")

    def _opened(self, now: int, case: Case, message: object) -> Ended:
        assert isinstance(message, LeavesOpened)
        try:
            check_opening(case.job.receipt, message)
        except ProtocolError:
            return self._shown_nothing(case, Decision("withheld"))
        case.opened = message
        replay = self._stage(now, case, "reveal")
        return [Notify(replay.auditor, RevealRequest(audit=replay.audit))], []

    def _revealed(self, now: int, case: Case, message: object) -> Ended:
        assert isinstance(message, AuditReveal)
        assert case.replay is not None
        assert case.opened is not None
        assert case.table is not None
        replay, receipt = case.replay, case.job.receipt
        bound = Bound(
            replay.auditor, replay.class_id, replay.audit, replay.commitment, replay.statement
        )
        try:
            if commitment(message.nonce, encode(message)) != replay.commitment:
                raise ProtocolError("unexpected_message", "not what was committed to")
            asked = self._asked(case)
            finding = weigh(bound, receipt, case.opened, message, asked, case.table)
        except ProtocolError as error:
            return self._at_fault(now, case, error.code)
        self._end_replay(case)
        case.findings.append(finding)
        self.finished += 1
        effects: list[Effect] = [Save(_row(now, case, finding, replay.candidates))]
        auditor = self._registry.nodes[replay.auditor]
        done = self._registry.update(auditor, audits_done=auditor.row.audits_done + 1)
        effects.append(Save(done))
        verdict = self._decide(case)
        if verdict is not None:
            return effects, [verdict]
        return [*effects, *self._again(now, case)], []

    def _declined(self, now: int, case: Case, peer: bytes) -> Ended:
        assert case.replay is not None
        if peer == case.job.ticket.node:
            return self._shown_nothing(case, self._missing(now, case.job))
        if peer != case.replay.auditor:
            return [], []
        if case.replay.stage not in ("task", "transcript"):
            # It was shown prompt and answer. Who could give them back for nothing would read all
            # that is drawn, and never work.
            return self._at_fault(now, case, "given_up")
        if case.replay.stage == "task":
            operator = self._registry.nodes[peer].row.operator
            case.asked -= {peer, operator}  # busy is no fault; ask again later
        self._end_replay(case)
        heapq.heappush(self._later, (now + RETRY_US, case.ticket))
        return [], []

    def _late(self, now: int, case: Case) -> Ended:
        assert case.replay is not None
        if case.replay.stage in ("transcript", "open"):
            return self._shown_nothing(case, self._missing(now, case.job))
        if case.replay.stage != "task":
            return self._at_fault(now, case, "late")
        self._end_replay(case)
        return self._again(now, case), []

    # ---- the verdict ----

    def _shown_nothing(self, case: Case, decision: Decision) -> Ended:
        """The auditor need not wait: who shows nothing must not keep auditors busy, too."""
        assert case.replay is not None
        over = AuditDecline(audit=case.replay.audit, code="cancelled")
        return [Notify(case.replay.auditor, over)], [self._close(case, decision)]

    def _missing(self, now: int, job: Job) -> Decision:
        """The executor showed nothing. A draw that waited long for its block, or an inquiry into
        what was held for long, may ask for what a node need not keep any more."""
        late = (job.drawn_at or now) - job.booked_at > self._policy.draw_late_us
        return Decision("unaudited" if late else "withheld")

    def _decide(self, case: Case) -> Verdict | None:
        if len(case.findings) == 1 and self._twice(case):
            case.wanted = max(2, case.wanted)
        most = max(self._policy.replays_max, case.wanted)
        decision = decide(case.findings, case.wanted, most, case.agree)
        return None if decision is None else self._close(case, decision)

    def _twice(self, case: Case) -> bool:
        """Whether this job is shown to a second auditor whatever the first one says, so that one
        who passes what a friend wrote is found out. It cannot be foreseen."""
        word = self._entropy.keyed(b"reaudit", digest(case.job.receipt_blob))
        return int.from_bytes(word, "big") * 10_000 < self._policy.reaudit_bps << 256

    def _close(self, case: Case, decision: Decision) -> Verdict:
        self.drop(case.ticket)
        return Verdict(case, decision.outcome, decision.sided, decision.against)

    # ---- inside ----

    def _table(self, job: Job) -> Table | None:
        try:
            return self._tables.of(job.ticket.calibration)
        except AssayError:
            return None

    def _stage(self, now: int, case: Case, stage: str) -> Replay:
        assert case.replay is not None
        assert (case.replay.stage, stage) in STAGES, "a stage is not skipped"
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
        self._waiting.append(case.ticket)
        return self.assign(now)

    def _at_fault(self, now: int, case: Case, why: str) -> Ended:
        """The auditor failed its own duty: it is noted, and another one is asked."""
        replay = self._end_replay(case)
        node = self._registry.nodes[replay.auditor]
        row = self._registry.update(node, audit_faults=node.row.audit_faults + 1)
        log = Log("auditor_fault", (("auditor", node.key.hex()), ("why", why)))
        return [Save(row), log, *self._again(now, case)], []


def _row(now: int, case: Case, finding: Finding, candidates: int) -> AuditRow:
    outcome = "bad" if finding.wrong else "doubtful" if finding.doubtful else "good"
    return AuditRow(
        audit=finding.bound.audit,
        ticket=case.ticket,
        executor=case.job.ticket.node,
        auditor=finding.auditor,
        at=now,
        replayed=finding.replayed,
        mismatches=finding.mismatches,
        evidence=finding.evidence,
        outcome=outcome,
        class_id=finding.bound.class_id,
        drift=round(1e6 * min(finding.drift, 1e6)),
        equal=-1 if finding.equal is None else int(finding.equal),
        candidates=candidates,
    )
