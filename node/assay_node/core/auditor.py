"""The auditor's side: replay another node's answer, commit to the result, then reveal it.

task -> accept (one-time box key) -> transcript -> replay -> commit -> reveal. The commitment binds
the result before the executor's leaves are opened, so copying them proves nothing. A transcript
that contradicts the task ends without a replay in a named fault, committed and revealed the same
way. All of it is idempotent by audit id: a message sent again gets the same answer.

Faults: transcript_unreadable, transcript_length, transcript_nonce, transcript_prompt,
transcript_output, transcript_grammar, transcript_tokens (outside the vocabulary), finish,
grammar (a token it does not allow: masks do not depend on arithmetic, so no drift explains one).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from assay_node.core.effects import Effect, Log, Notify, StartReplay
from assay_node.core.parameters import Parameters, Served
from assay_node.core.sealing import Sealing, Secrets
from assay_node.engine.interface import Replay, Replayed
from assay_protocol.classes import LOGPROB_LEAVES, can_audit
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.grammars import grammar_fits
from assay_protocol.hashing import (
    OutputHash,
    commitment,
    job_seed,
    nonce_commitment,
    prompt_hash,
    unpack_tokens,
)
from assay_protocol.messages import (
    AuditAccept,
    AuditCommit,
    AuditDecline,
    AuditReveal,
    AuditTask,
    RevealRequest,
    Transcript,
    TranscriptBody,
)
from assay_protocol.samplers import ends, validate

MARGIN_MAX: Final = 1_000_000  # thousandths of a logit; a filtered token lost by infinity


@dataclass(slots=True)
class _Audit:
    """One audit under way."""

    task: AuditTask
    secret: bytes
    nonce: bytes
    output: tuple[int, ...] | None = None  # set while the replay runs
    reveal: bytes | None = None  # the encoded AuditReveal once committed
    revealed: bool = False


class Auditor:
    """All audits this node replays for the coordinator."""

    def __init__(
        self,
        served: Mapping[bytes, Served],
        parameters: Parameters,
        sealing: Sealing,
        secrets: Secrets,
    ) -> None:
        """`served`: by model."""
        self._served, self._parameters = served, parameters
        self._sealing, self._secrets = sealing, secrets
        self._audits: OrderedDict[bytes, _Audit] = OrderedDict()

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
            return [_commit(audit)]
        if audit.output is not None:
            return []
        served = self._served[audit.task.model]
        try:
            body = self._open(audit, message.sealed)
            prompt, output = check_transcript(audit.task, body, served)
        except _Fault as fault:
            return self._finish(audit, fault=fault.name)
        if not output:
            return self._finish(audit)
        audit.output = output
        seed = job_seed(audit.task.seed_ticket, body.nonce)
        task = audit.task
        logprobs = task.leaves == LOGPROB_LEAVES
        replay = Replay(
            prompt,
            output,
            task.start,
            task.sampler,
            seed,
            normalized=logprobs,
            grammar=body.grammar,
            adapter=served.adapter,
        )
        return [StartReplay(audit.task.audit, replay, served.engine)]

    def replayed(self, audit_id: bytes, replayed: Replayed) -> list[Effect]:
        """Commit to what the replay found."""
        audit = self._audits.get(audit_id)
        if audit is None or audit.output is None or audit.reveal is not None:
            return []
        drawn = replayed.drawn
        assert len(drawn) == len(audit.output) == len(replayed.margins), "one entry a token"
        if audit.task.sampler.grammar is not None and math.inf in replayed.margins:
            return self._finish(audit, fault="grammar")
        wrong = tuple(i for i, token in enumerate(audit.output) if drawn[i] != token)
        margins = tuple(_thousandths(replayed.margins[i]) for i in wrong)
        return self._finish(audit, wrong, margins, replayed.logits)

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

    def expire(self, now: int) -> None:
        """Drop audits past their deadline, and the oldest ones beyond the bound."""
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
        if task.n_in + task.n_out > served.context:
            return "prompt_too_long"
        if now >= task.deadline_at:
            return "timeout"
        if self.working >= self._parameters.audits_max:
            return "busy"
        if task.sampler.grammar is not None and not served.grammar:
            return "grammar_refused"
        try:
            validate(task.sampler, served.n_vocab)
        except AssayError as error:
            return error.code
        return None

    def _open(self, audit: _Audit, sealed: bytes) -> TranscriptBody:
        try:
            return decode_as(TranscriptBody, self._sealing.open(sealed, audit.secret))
        except ProtocolError as error:
            raise _Fault("transcript_unreadable") from error

    def _finish(
        self,
        audit: _Audit,
        mismatches: tuple[int, ...] = (),
        margins: tuple[int, ...] = (),
        logits: bytes = b"",
        fault: str | None = None,
    ) -> list[Effect]:
        reveal = AuditReveal(
            audit=audit.task.audit,
            nonce=audit.nonce,
            mismatches=mismatches,
            margins=margins,
            logits=logits,
            fault=fault,
        )
        audit.reveal = encode(reveal)
        fields = (("mismatches", len(mismatches)), ("fault", fault), ("n_out", audit.task.n_out))
        return [_commit(audit), Log("audit_committed", fields)]


class _Fault(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def check_transcript(
    task: AuditTask, body: TranscriptBody, served: Served
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and output tokens, if they are those of the task; else raises a named fault."""
    if len(body.prompt) != 4 * task.n_in or len(body.output) != 4 * task.n_out:
        raise _Fault("transcript_length")
    if nonce_commitment(body.nonce) != task.nonce_commitment:
        raise _Fault("transcript_nonce")
    if prompt_hash(body.nonce, body.prompt) != task.prompt_hash:
        raise _Fault("transcript_prompt")
    if not grammar_fits(task.sampler, body.nonce, body.grammar):
        raise _Fault("transcript_grammar")
    running = OutputHash(task.ticket, body.nonce)
    running.update(body.output)
    if running.digest() != task.output_hash:
        raise _Fault("transcript_output")
    prompt, output = unpack_tokens(body.prompt), unpack_tokens(body.output)
    if max(prompt + output, default=0) >= served.n_vocab or not prompt:
        raise _Fault("transcript_tokens")
    if not _finish_fits(task, output, ends(task.sampler, served.eog)):
        raise _Fault("finish")
    return prompt, output


def _finish_fits(task: AuditTask, output: tuple[int, ...], last: frozenset[int]) -> bool:
    """An answer ends at its first end token, the model's or the sampler's, and says why."""
    if any(token in last for token in output[:-1]):
        return False
    if task.finish == "stop":
        return bool(output) and output[-1] in last
    return task.finish != "length" or len(output) == task.max_tokens


def _commit(audit: _Audit) -> Notify:
    assert audit.reveal is not None
    bound = commitment(audit.nonce, audit.reveal)
    return Notify(encode(AuditCommit(audit=audit.task.audit, commitment=bound)))


def _decline(audit: bytes, code: str) -> Notify:
    return Notify(encode(AuditDecline(audit=audit, code=code)))


def _thousandths(margin: float) -> int:
    """Logits to clipped integer thousandths; a margin that is no number counts as the largest."""
    if not margin < MARGIN_MAX / 1000:
        return MARGIN_MAX
    return max(0, round(margin * 1000))
