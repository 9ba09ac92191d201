"""Invariants L4, S2, S3: verdicts come in time, one auditor convicts nobody, prompts stay away."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.audits import Audits
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.evidence import (
    ALTERNATIVES,
    CONVICTION,
    FRESH,
    JOB_CAP,
    WORD_CAP,
    accumulate,
    capped,
    combined,
    pack,
    weakest,
)
from assay_coordinator.core.findings import Bound, Finding
from assay_coordinator.core.jobs import Job
from assay_coordinator.core.oversight import proven
from assay_coordinator.core.policy import SECOND, Policy
from assay_coordinator.core.quorum import conclude, decide
from assay_coordinator.core.registry import Registry
from assay_coordinator.core.standing import fresh_row
from assay_coordinator.core.verdicts import Verdict
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
    registry.register(0, key, joined, lease)


@pytest.mark.parametrize("silent_auditors", [0, 1, 2, 30])
def test_a_case_ends_by_its_deadline_whoever_is_silent(silent_auditors: int) -> None:
    registry = Registry(POLICY)
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


def _finding(ratios: tuple[int, ...], fault: str, hard: bool, name: int) -> Finding:
    bound = Bound(bytes([name]) * 32, "x", bytes(16), bytes(32), b"")
    return Finding(bound, b"", fault=fault, replayed=96, ratios=ratios, hard=hard)


_RATIOS = st.tuples(*[st.integers(-(10**12), 10**12)] * ALTERNATIVES)
_FINDINGS = st.builds(
    _finding,
    _RATIOS,
    st.sampled_from(["", "", "", "finish", "transcript_output"]),
    st.booleans(),
    st.integers(0, 255),
)
_AGAINST = {"failed", "unequal", "withheld"}


@given(_FINDINGS, st.integers(1, 2))
def test_one_auditor_convicts_nobody(finding: Finding, wanted: int) -> None:
    """Whatever it says, and whoever it says to agree with."""
    for decision in (
        decide([finding], wanted, 3, lambda a, b: True),
        conclude([finding], lambda a, b: True),
    ):
        assert decision is None or decision.outcome not in _AGAINST


@given(_RATIOS, st.lists(_RATIOS, max_size=8))
def test_single_words_are_no_proof_and_raise_alarms_slowly(
    first: tuple[int, ...], more: list[tuple[int, ...]]
) -> None:
    proof = detectors = FRESH
    for word in (first, *more):
        proof = accumulate(proof, capped(word, 0))
        detectors = accumulate(detectors, capped(word, WORD_CAP))
    assert proof == FRESH
    assert combined(detectors) <= WORD_CAP * (1 + len(more))


@given(st.lists(_FINDINGS, max_size=3), st.integers(1, 3))
def test_auditors_who_agree_with_nobody_prove_nothing(findings: list[Finding], wanted: int) -> None:
    decision = decide(findings, wanted, 3, lambda a, b: False)
    assert decision is None or decision.outcome not in _AGAINST


@given(_RATIOS, _RATIOS)
def test_a_liar_cannot_raise_what_a_second_auditor_found(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    both = weakest([one, other])
    assert all(a <= b for a, b in zip(both, one, strict=True))
    assert all(a <= b for a, b in zip(both, other, strict=True))


@given(_RATIOS)
def test_one_job_is_no_conviction_however_clear(ratios: tuple[int, ...]) -> None:
    proof = accumulate(FRESH, capped(ratios, JOB_CAP))
    assert combined(proof) < CONVICTION
    row = replace(fresh_row(bytes(32), bytes(32), 0), proof=pack(proof), disproved=1)
    for jobs in (0, 1, POLICY.convicting_jobs):
        assert not proven(replace(POLICY, convicting_jobs=jobs), row)
    assert proven(POLICY, replace(row, disproved=2))


def test_no_message_to_the_coordinator_has_a_field_for_a_prompt() -> None:
    """Token fields are found by type and by name; all are on the job stream or sealed."""
    secret = {messages.Grammar, messages.Images}
    named = {"prompt", "output", "tokens", "text", "messages"}
    carrying = {
        (cls.__name__, name)
        for cls in codec.TYPES.values()
        for name, hint in get_type_hints(cls, include_extras=True).items()
        if hint == messages.Tokens or secret.intersection(get_args(hint)) or name in named
    }
    assert carrying == {
        ("Part", "data"),  # as long as Tokens, but a piece of a public document or statement
        ("NetworkRules", "policy"),  # likewise, and from the coordinator: the moderation policy
        ("StartJob", "prompt"),
        ("TokenChunk", "tokens"),
        ("TranscriptBody", "prompt"),
        ("TranscriptBody", "output"),
        ("StartJob", "grammar"),
        ("TranscriptBody", "grammar"),
        ("StartJob", "images"),
        ("TranscriptBody", "images"),
    }
