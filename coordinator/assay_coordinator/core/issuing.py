"""Tickets: who may have one, on which node, with which seed, and what is said for that node.

A resumed job and the second job of a quorum take the seed of the ticket they go on from or repeat,
so that what they draw can be compared token by token. How an answer is to be verified stays here:
no ticket tells it to a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from assay_coordinator.core.events import Effect
from assay_protocol import messages as m
from assay_protocol.classes import is_exact
from assay_protocol.embeddings import check_texts, longest
from assay_protocol.errors import AssayError
from assay_protocol.prompt_logprobs import check_asked
from assay_protocol.regions import check_regions
from assay_protocol.samplers import validate
from assay_protocol.signing import Signer, Verifier, open_signed, seal

if TYPE_CHECKING:
    from assay_coordinator.core.coordinator import Listed
    from assay_coordinator.core.entropy import Entropy
    from assay_coordinator.core.epochs import Epochs
    from assay_coordinator.core.jobs import Job, Jobs
    from assay_coordinator.core.ledger import Ledger
    from assay_coordinator.core.lottery import Lottery
    from assay_coordinator.core.oversight import Oversight
    from assay_coordinator.core.policy import Policy
    from assay_coordinator.core.registry import Node, Registry
    from assay_coordinator.core.rules import Rules
    from assay_coordinator.core.scheduler import Scheduler

BUSY_RETRY_MS: Final = 1_000
BEHIND_RETRY_MS: Final = 60_000


class Issuing:
    """Answers `SubmitJob`. `calibration` is the version of the noise table in use, if any."""

    def __init__(
        self,
        policy: Policy,
        catalogue: Mapping[bytes, Listed],
        signer: Signer,
        verifier: Verifier,
        entropy: Entropy,
        registry: Registry,
        scheduler: Scheduler,
        ledger: Ledger,
        epochs: Epochs,
        jobs: Jobs,
        lottery: Lottery,
        rules: Rules,
        oversight: Oversight,
    ) -> None:
        self._policy, self._catalogue = policy, catalogue
        self._oversight = oversight
        self._signer, self._verifier, self._entropy = signer, verifier, entropy
        self._registry, self._scheduler, self._ledger = registry, scheduler, ledger
        self._epochs, self._jobs, self._lottery = epochs, jobs, lottery
        self._rules = rules
        self.calibration: int | None = None

    def submit(
        self, now: int, client: bytes, job: m.SubmitJob
    ) -> tuple[list[Effect], m.TicketGrant]:
        """A ticket on the best node. Raises AssayError with the reason if there is none."""
        listed = self._catalogue.get(job.model)
        if listed is None:
            raise AssayError("model_unknown")
        if not self._rules.allows(job.model):
            raise AssayError("model_denied")
        validate(job.sampler)
        check_texts(job.sampler, job.n_in, job.max_tokens)
        check_regions(job.regions or ())
        if job.resume is None:
            check_asked(job.sampler, job.n_in)
        level = job.verify or "sample"
        if level not in m.VERIFY_LEVELS or (job.twin is not None and level != "quorum"):
            raise AssayError("verify_refused", f"one of {', '.join(m.VERIFY_LEVELS)}")
        if longest(job.sampler, job.n_in, job.max_tokens) > listed.context:
            raise AssayError("prompt_too_long", f"the model's context is {listed.context}")
        if self._jobs.open_tickets(client) >= self._policy.open_tickets_max:
            raise AssayError("rate_limited", retry_after_ms=BUSY_RETRY_MS)
        if self._lottery.behind:
            raise AssayError("busy", "the chain is far behind", retry_after_ms=BEHIND_RETRY_MS)
        seed_ticket, start = self._resumed(client, job)
        twin = self._twin(client, job, seed_ticket)
        if twin is not None and job.resume is None:
            seed_ticket, start = twin.ticket.seed_ticket, twin.ticket.start
        node = self._pick(now, job, level, twin)
        ticket = self._ticket(now, client, node, job, listed, seed_ticket, start)
        blob = seal(self._signer, ticket)
        # Who names nodes, or all but one, could make any of them look as if it answered nobody.
        named = bool(job.only or job.exclude or twin)
        effects = self._jobs.issue(now, ticket, blob, level, named=named)
        node.issued[job.model] += 1
        route = m.Route(node=node.key, addresses=node.addresses)
        standing = self._standing(now, node, job.model)
        return effects, m.TicketGrant(ticket=blob, route=route, standing=standing)

    def check_progress(self, ticket: bytes, blob: bytes) -> None:
        """Raise AssayError unless `blob` is a progress of `ticket` that its node signed."""
        job = self._jobs.jobs.get(ticket)
        if job is None:
            raise AssayError("unknown_ticket")
        progress = open_signed(m.Progress, blob, job.ticket.node, self._verifier)
        if progress.ticket != ticket:
            raise AssayError("resume_refused", "the progress is of another ticket")

    def _ticket(
        self,
        now: int,
        client: bytes,
        node: Node,
        job: m.SubmitJob,
        listed: Listed,
        seed_ticket: bytes | None,
        start: int,
    ) -> m.Ticket:
        ticket = self._entropy.fresh()
        return m.Ticket(
            ticket=ticket,
            client=client,
            node=node.key,
            model=job.model,
            prompt_hash=job.prompt_hash,
            n_in=job.n_in,
            sampler=job.sampler,
            max_tokens=job.max_tokens,
            start=start,
            nonce_commitment=job.nonce_commitment,
            seed_ticket=seed_ticket or ticket,
            price_in=listed.price_in,
            price_out=0 if job.sampler.texts else listed.price_out,  # vectors are not charged for
            issued_at=now,
            expires_at=now + self._policy.ticket_lifetime_us,
            epoch=self._epochs.running,
            calibration=self.calibration,
        )

    def _pick(self, now: int, job: m.SubmitJob, level: str, twin: Job | None) -> Node:
        like, apart = self._class_begun(job), b""
        if twin is not None:
            first = self._registry.nodes[twin.ticket.node]
            like, apart = like or first.classes.get(job.model, ""), first.row.operator
        node = self._scheduler.pick(now, job, like, apart)
        other = apart or (node.row.operator if node else b"")
        if level == "quorum" and not self._scheduler.has_other(now, job, other):
            raise AssayError("verify_refused", "no node of a second operator serves this model")
        if node is None:
            asked = job.sampler.grammar is not None
            if asked and self._scheduler.lacks_grammars(now, job):
                raise AssayError("grammar_refused", "no node draws this model by a grammar")
            if self._scheduler.lacks_task(now, job):
                raise AssayError("task_refused")
            if self._scheduler.lacks_region(now, job):
                raise AssayError("region_unserved")
            raise AssayError("no_capacity", retry_after_ms=BUSY_RETRY_MS)
        return node

    def _standing(self, now: int, node: Node, model: bytes) -> m.Standing:
        """What the client may judge the node by; see Standing's own words for what it promises."""
        row, offer = node.row, node.offers[model]
        numerator, denominator = self._oversight.rate(now, row, 0, 0)
        return m.Standing(
            state=row.state,
            audits_passed=row.verified,
            audits_failed=row.failed,
            audit_bps=numerator * 10_000 // max(1, denominator),
            at_risk=self._ledger.balance("escrow", node.key),
            class_id=offer.class_id,
            exact=is_exact(offer.class_id) and row.exact > 0,
            region=node.region,
        )

    # ---- tickets that go on from others ----

    def _resumed(self, client: bytes, job: m.SubmitJob) -> tuple[bytes | None, int]:
        """The seed and start of a continuation: those of the ticket it continues."""
        point = job.resume
        if point is None:
            return None, 0
        if job.sampler.texts is not None:
            raise AssayError("resume_refused", "vectors are computed anew, not gone on with")
        old = self._jobs.jobs.get(point.ticket)
        if old is None or old.ticket.client != client:
            raise AssayError("resume_refused", "no such ticket of yours")
        t = old.ticket
        same = (t.model, t.sampler, t.nonce_commitment)
        if same != (job.model, job.sampler, job.nonce_commitment) or point.count > t.max_tokens:
            raise AssayError("resume_refused", "model, sampler and nonce must be the same")
        if job.n_in != t.n_in + point.count:  # else `start` is not where the answer begins
            raise AssayError("resume_refused", "the prompt must be the old one and the tokens held")
        if point.progress is not None:
            self.check_progress(point.ticket, point.progress)
        return t.seed_ticket, t.start + point.count

    def _twin(self, client: bytes, job: m.SubmitJob, seed_ticket: bytes | None) -> Job | None:
        """The job that this one is to repeat on another operator's node."""
        if job.twin is None:
            return None
        twin = self._jobs.jobs.get(job.twin)
        if twin is None or twin.ticket.client != client or twin.verify != "quorum":
            raise AssayError("verify_refused", "no such ticket of yours to repeat")
        t = twin.ticket
        same = (t.model, t.sampler, t.nonce_commitment) == (
            job.model,
            job.sampler,
            job.nonce_commitment,
        )
        whole = (t.prompt_hash, t.n_in, t.max_tokens) == (job.prompt_hash, job.n_in, job.max_tokens)
        if not same or not (whole or job.resume) or seed_ticket not in (None, t.seed_ticket):
            raise AssayError("verify_refused", "the two jobs of a quorum must be the same")
        return twin

    def _class_begun(self, job: m.SubmitJob) -> str:
        """The class of the node that began what `job` continues; empty if there is none."""
        if job.resume is None:
            return ""
        began = self._registry.nodes[self._jobs.jobs[job.resume.ticket].ticket.node]
        return began.classes.get(job.model, "")
