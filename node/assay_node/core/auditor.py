"""The auditor's side: replay another node's answer, commit to the result, then reveal it.

task -> accept (one-time box key) -> transcript -> replay -> commit -> reveal. The commitment binds
the result before the executor's leaves are opened, so copying them proves nothing. The transcript
of a job that embeds has no answer in it, as its leaves follow from that alone. A transcript
that contradicts the task ends without a replay in a named fault, committed and revealed the same
way. All of it is idempotent by audit id: a message sent again gets the same answer.

Faults: those of transcript_check.py, and grammar (a token it does not allow: masks do not depend on
arithmetic, so no drift explains one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from assay_node.core.effects import Effect, Log, Notify, StartReplay
from assay_node.core.parameters import Parameters, Served
from assay_node.core.sealing import Sealing, Secrets
from assay_node.core.transcript_check import TranscriptFault, check_transcript
from assay_node.engine.interface import Replay, Replayed
from assay_protocol.classes import LOGPROB_LEAVES, can_audit
from assay_protocol.codec import decode_as, encode
from assay_protocol.embeddings import (
    VectorWriter,
    check_texts,
    check_vectors,
    embedding_sampler,
    longest,
)
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.hashing import commitment, job_seed
from assay_protocol.leaves import Leaves, leaves_of
from assay_protocol.limits import LEAF_TOKENS, OUTPUT_TOKENS_MAX, SKETCH_BYTES
from assay_protocol.messages import (
    AuditAccept,
    AuditCommit,
    AuditDecline,
    AuditReveal,
    AuditStatement,
    AuditTask,
    RevealRequest,
    Transcript,
    TranscriptBody,
)
from assay_protocol.samplers import validate
from assay_protocol.signing import Signer, seal
from assay_protocol.sketches import gap_code

MARGIN_MAX: Final = 1_000_000  # thousandths of a logit; a filtered token lost by infinity
NOTHING: Final = Replayed((), b"", (), ())  # of an answer without tokens, or not to be replayed


@dataclass(slots=True)
class _Audit:
    """One audit under way."""

    task: AuditTask
    secret: bytes
    nonce: bytes
    output: tuple[int, ...] | None = None  # what is replayed of it, set while that runs
    job_nonce: bytes = b""  # the client's, for leaves of vectors
    reveal: bytes | None = None  # the encoded AuditReveal once committed
    revealed: bool = False

    @property
    def replays(self) -> int:
        """How many of the answer's first tokens."""
        return self.task.n_out if self.task.replay is None else self.task.replay

    @property
    def of_logprobs(self) -> bool:
        return self.task.leaves == LOGPROB_LEAVES


class Auditor:
    """All audits this node replays for the coordinator."""

    __slots__ = ("_audits", "_parameters", "_sealing", "_secrets", "_served", "_signer")

    def __init__(
        self,
        signer: Signer,
        served: Mapping[bytes, Served],
        parameters: Parameters,
        sealing: Sealing,
        secrets: Secrets,
    ) -> None:
        """`served`: by model."""
        self._signer, self._served, self._parameters = signer, served, parameters
        self._sealing, self._secrets = sealing, secrets
        self._audits: dict[bytes, _Audit] = {}  # oldest first

    @property
    def idle(self) -> bool:
        """Whether it knows of no audit."""
        return not self._audits

    @property
    def working(self) -> int:
        """Audits taken on and not yet committed."""
        return sum(audit.reveal is None for audit in self._audits.values())

    @property
    def owed(self) -> int:
        """Audits committed to and not yet revealed."""
        return sum(a.reveal is not None and not a.revealed for a in self._audits.values())

    def task(self, now: int, task: AuditTask, closed: str | None) -> list[Effect]:
        """Take an audit on, or say why not. `closed` is the code to decline everything with."""
        audit = self._audits.get(task.audit)
        if audit is None:
            code = closed or self._refusal(now, task)
            if code is not None:
                return [_decline(task.audit, code)]
            audit = _Audit(task, self._secrets.next(), self._secrets.next())
            self._audits[task.audit] = audit
        elif audit.task != task:
            return [_decline(task.audit, "unexpected_message")]
        key = self._sealing.public_key(audit.secret)
        return [Notify(encode(AuditAccept(audit=task.audit, box_key=key)))]

    def transcript(self, message: Transcript) -> list[Effect]:
        """Check the sealed transcript; start the replay or commit to the fault."""
        audit = self._audits.get(message.audit)
        if audit is None:
            return [_decline(message.audit, "unexpected_message")]
        if audit.reveal is not None:
            return [self._commit(audit)]
        if audit.output is not None:
            return []
        task, served = audit.task, self._served[audit.task.model]
        try:
            body = self._open(audit, message.sealed)
            prompt, output = check_transcript(task, body, served)
        except TranscriptFault as fault:
            return self._finish(audit, fault=fault.name)
        if not audit.replays:
            return self._finish(audit)
        audit.output, audit.job_nonce = output[: audit.replays], body.nonce
        sampler = task.sampler
        if sampler.texts is not None:
            sampler = embedding_sampler(sampler.texts[: audit.replays])
            prompt = prompt[: sum(sampler.texts or ())]
        replay = Replay(
            prompt,
            audit.output,
            task.start,
            sampler,
            job_seed(task.seed_ticket, body.nonce),
            normalized=audit.of_logprobs,
            grammar=body.grammar,
            adapter=served.adapter,
            images=body.images or (),
        )
        return [StartReplay(task.audit, replay, served.engine)]

    def replayed(self, audit_id: bytes, replayed: Replayed) -> list[Effect]:
        """Commit to what the replay found."""
        audit = self._audits.get(audit_id)
        if audit is None or audit.output is None or audit.reveal is not None:
            return []
        if audit.task.sampler.texts is not None:
            return self._embedded(audit, replayed.vectors)
        if not _complete(audit, replayed):
            return self.replay_failed(audit_id, "engine_failed")
        if audit.task.sampler.grammar is not None and math.inf in replayed.margins:
            return self._finish(audit, fault="grammar")
        return self._finish(audit, replayed, leaves_of(replayed.logits, replayed.sketches))

    def replay_failed(self, audit_id: bytes, code: str) -> list[Effect]:
        """Give the audit back: another node has to do it."""
        audit = self._audits.pop(audit_id, None)
        return [] if audit is None else [_decline(audit_id, code)]

    def reveal(self, message: RevealRequest) -> list[Effect]:
        """Show what was committed to. It stays known until the deadline, to be shown again."""
        audit = self._audits.get(message.audit)
        if audit is None or audit.reveal is None:
            return [_decline(message.audit, "unexpected_message")]
        audit.revealed = True
        return [Notify(audit.reveal)]

    def decline_open(self, code: str) -> list[Effect]:
        """Give back every audit not committed to, so that the coordinator need not wait."""
        open_ids = [key for key, audit in self._audits.items() if audit.reveal is None]
        for key in open_ids:
            del self._audits[key]
        return [_decline(key, code) for key in open_ids]

    def cancel(self, audit_id: bytes) -> None:
        """The coordinator wants nothing more of it; what a replay still finds is dropped."""
        self._audits.pop(audit_id, None)

    def expire(self, now: int) -> None:
        """Drop audits past their deadline, and the oldest ones beyond the bound."""
        if not self._audits:
            return
        late = [key for key, audit in self._audits.items() if now >= audit.task.deadline_at]
        for key in late:
            del self._audits[key]
        finished = [key for key, audit in self._audits.items() if audit.reveal is not None]
        for key in finished[: max(0, len(finished) - self._parameters.reveals_max)]:
            del self._audits[key]

    def _refusal(self, now: int, task: AuditTask) -> str | None:
        served = self._served.get(task.model)
        if served is None:
            return "model_unknown"
        if not can_audit(served.class_id) or task.leaves not in (None, LOGPROB_LEAVES):
            return "class_refused"
        if not _replayable(task):
            return "malformed"
        if (task.sampler.texts is None) == bool(served.dims):
            return "task_refused"
        if longest(task.sampler, task.n_in, task.n_out) > served.context:
            return "prompt_too_long"
        if now >= task.deadline_at:
            return "timeout"
        if self.working >= self._parameters.audits_max:
            return "busy"
        if task.sampler.grammar is not None and not served.grammar:
            return "grammar_refused"
        try:
            validate(task.sampler, served.n_vocab)
            check_texts(task.sampler, task.n_in, task.max_tokens)
        except AssayError as error:
            return error.code
        return None

    def _open(self, audit: _Audit, sealed: bytes) -> TranscriptBody:
        try:
            return decode_as(TranscriptBody, self._sealing.open(sealed, audit.secret))
        except ProtocolError as error:
            raise TranscriptFault("transcript_unreadable") from error

    def _embedded(self, audit: _Audit, vectors: bytes) -> list[Effect]:
        """Commit to the leaves of the vectors computed here. The executor's were not shown: who
        did not compute has nothing to commit to."""
        task, dims = audit.task, self._served[audit.task.model].dims
        try:
            whole = check_vectors(vectors, dims) == audit.replays
        except ProtocolError:
            whole = False
        if not whole:
            return self.replay_failed(task.audit, "engine_failed")
        writer = VectorWriter(task.ticket, task.seed_ticket, audit.job_nonce)
        writer.add(vectors, dims)
        return self._finish(audit, leaves=writer.leaves())

    def _finish(
        self,
        audit: _Audit,
        replayed: Replayed = NOTHING,
        leaves: Leaves = Leaves(),
        fault: str | None = None,
    ) -> list[Effect]:
        reveal = _reveal(audit, replayed, leaves, fault)
        audit.reveal = encode(reveal)
        fields = (
            ("mismatches", len(reveal.mismatches)),
            ("fault", fault),
            ("replayed", 0 if fault else audit.replays),
        )
        return [self._commit(audit), Log("audit_committed", fields)]

    def _commit(self, audit: _Audit) -> Notify:
        """The commitment, and the same signed: others can check who is bound by it."""
        assert audit.reveal is not None
        task, bound = audit.task, commitment(audit.nonce, audit.reveal)
        statement = AuditStatement(
            audit=task.audit, ticket=task.ticket, output_hash=task.output_hash, commitment=bound
        )
        signed = seal(self._signer, statement)
        return Notify(encode(AuditCommit(audit=task.audit, commitment=bound, statement=signed)))


def _reveal(audit: _Audit, replayed: Replayed, leaves: Leaves, fault: str | None) -> AuditReveal:
    """What is committed to: of leaves only what the audited class holds, of a fault only its name.

    A fault leaves everything else empty; of vectors there are no gaps.
    """
    output, drawn = audit.output or (), replayed.drawn
    embeds = audit.task.sampler.texts is not None
    wrong = tuple(at for at, token in enumerate(drawn) if token != output[at])
    numbers = fault is None and not audit.of_logprobs
    return AuditReveal(
        audit=audit.task.audit,
        nonce=audit.nonce,
        mismatches=wrong,
        margins=tuple(_thousandths(replayed.margins[at]) for at in wrong),
        logits=replayed.logits if audit.of_logprobs else b"",
        fault=fault,
        raws=leaves.raws if numbers else None,
        sketches=leaves.sketches if numbers else None,
        gaps=None if fault or embeds else bytes(map(gap_code, replayed.gaps)),
    )


def _replayable(task: AuditTask) -> bool:
    """Whether the answer is one a node may give, and the replay ends where a leaf of it does."""
    tokens, n_out = task.replay, task.n_out
    if n_out > OUTPUT_TOKENS_MAX:
        return False
    return tokens is None or tokens == n_out or (0 < tokens < n_out and not tokens % LEAF_TOKENS)


def _complete(audit: _Audit, replayed: Replayed) -> bool:
    """Whether the engine told one of each for every token."""
    tokens = len(audit.output or ())
    sketches = 0 if audit.of_logprobs else SKETCH_BYTES * tokens
    rows = (replayed.drawn, replayed.margins, replayed.gaps)
    return (
        all(len(row) == tokens for row in rows)
        and len(replayed.logits) == 4 * tokens
        and len(replayed.sketches) == sketches
    )


def _decline(audit: bytes, code: str) -> Notify:
    return Notify(encode(AuditDecline(audit=audit, code=code)))


def _thousandths(margin: float) -> int:
    """Logits to clipped integer thousandths; a margin that is no number counts as the largest."""
    if not margin < MARGIN_MAX / 1000:
        return MARGIN_MAX
    return max(0, round(margin * 1000))
