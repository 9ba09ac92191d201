"""Invariants L4, S2, S3: verdicts come in time, one auditor convicts nobody, prompts stay away."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.audits import Audits, Verdict
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.evidence import (
    DISTANCE_EVIDENCE,
    SUSPICION,
    Finding,
    convicting_evidence,
)
from assay_coordinator.core.jobs import Job
from assay_coordinator.core.policy import SECOND, Policy
from assay_coordinator.core.registry import Registry
from assay_protocol import codec, messages
from assay_protocol.hashing import leaf_hashes, leaves_root
from assay_protocol.messages import Offer, Receipt, Register
from assay_protocol.signing import seal
from protocol_cases import NODE, NONCE, PROMPT, make_ticket

POLICY = Policy()
TICKET = make_ticket()


def _job() -> Job:
    ends = leaf_hashes(TICKET.ticket, NONCE, PROMPT)
    receipt = Receipt(
        ticket=TICKET.ticket,
        class_id="x",
        output_hash=ends[-1],
        root=leaves_root(ends, bytes(12)),
        n_in=3,
        n_out=3,
        finish="stop",
        started_at=0,
        first_at=0,
        ended_at=0,
    )
    return Job(TICKET, b"", "drawn", 0, 0, receipt_blob=seal(NODE, receipt))


def _register(registry: Registry, key: bytes) -> None:
    offer = Offer(
        model=TICKET.model, class_id="x", slots=4, context=512, prefill_rate=1, decode_rate=1
    )
    lease = 10 * POLICY.audit_case_us
    joined = Register(operator=key, offers=(offer,), addresses=("a",), software="s", device="d")
    registry.register(key, joined, lease)


@pytest.mark.parametrize("silent_auditors", [0, 1, 2, 30])
def test_a_case_ends_by_its_deadline_whoever_is_silent(silent_auditors: int) -> None:
    registry = Registry()
    _register(registry, TICKET.node)
    for i in range(silent_auditors):
        _register(registry, bytes([100 + i]) * 32)
    audits = Audits(POLICY, registry, Entropy(bytes(32)))
    audits.open(0, _job())
    verdicts: list[Verdict] = []
    now = 0
    while not verdicts:
        now += SECOND
        verdicts += audits.tick(now)[1]
        assert now <= POLICY.audit_case_us + SECOND
    assert [verdict.outcome for verdict in verdicts] == ["unaudited"]
    assert audits.cases == {}


def _finding(evidence: int, logit: float, fault: str = "") -> Finding:
    return Finding(b"a", b"i", b"c", 3, 3, evidence, (logit,) * 3, 0, 0.0, fault)


_FINDINGS = st.builds(_finding, st.integers(-(1 << 40), 1 << 40), st.floats(-50, 50))


@given(_FINDINGS)
def test_one_auditor_convicts_nobody(finding: Finding) -> None:
    with pytest.raises(AssertionError):
        convicting_evidence([finding])


@given(_FINDINGS, _FINDINGS)
def test_a_liar_cannot_raise_what_a_second_auditor_found(one: Finding, other: Finding) -> None:
    weaker = max(0, min(one.evidence, other.evidence))
    found = convicting_evidence([one, other])
    assert found == weaker or (weaker <= SUSPICION and found == DISTANCE_EVIDENCE)


def test_no_message_to_the_coordinator_has_a_field_for_a_prompt() -> None:
    """Token fields are found by type and by name; all are on the job stream or sealed."""
    named = {"prompt", "output", "tokens", "text", "messages"}
    carrying = {
        (cls.__name__, name)
        for cls in codec.TYPES.values()
        for name, hint in get_type_hints(cls, include_extras=True).items()
        if hint == messages.Tokens or messages.Grammar in get_args(hint) or name in named
    }
    assert carrying == {
        ("Part", "data"),  # as long as Tokens, but a piece of a public document or statement
        ("StartJob", "prompt"),
        ("TokenChunk", "tokens"),
        ("TranscriptBody", "prompt"),
        ("TranscriptBody", "output"),
        ("StartJob", "grammar"),
        ("TranscriptBody", "grammar"),
    }
