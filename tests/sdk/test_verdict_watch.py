"""Waiting for verdicts: bounded whatever is answered, and never better than the worst part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.events import JobLimits, Segment
from assay.verdict_watch import VerdictWatch
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.messages import JobVerdict, Receipt, Ticket
from assay_protocol.signing import peek
from sdk.client_world import AUDITOR, CLIENT, SECOND_AUDITOR, node_key, statement
from sdk.test_receipt_verify import make_records

LIMITS = JobLimits()
RECORDS = make_records((40,))
SEGMENTS = [
    Segment(
        peek(Ticket, one.ticket).node, one.ticket, one.prompt_tokens, one.output_tokens, one.receipt
    )
    for one in RECORDS
]
TICKETS = [peek(Ticket, one.ticket).ticket for one in RECORDS]


def told(index: int, outcome: str) -> JobVerdict:
    return JobVerdict(ticket=TICKETS[index], state="any", outcome=outcome, statements=())


@given(
    st.lists(st.sampled_from(["", "passed", "failed", "unaudited", "gone", "busy"]), max_size=400)
)
def test_it_ends_in_time_and_passes_only_what_all_passed(answers: list[str]) -> None:
    watch, now, questions = VerdictWatch(0, SEGMENTS, LIMITS), 0, 0
    given = [*answers, *[""] * 400]
    decided = []
    while (ticket := watch.asking) is not None:
        answer = given[questions]
        questions += 1
        if answer in ("gone", "busy"):
            error = PeerGone() if answer == "gone" else AssayError("busy")
            now += watch.refused(now, error)
        else:
            now += watch.told(now, told(TICKETS.index(ticket), answer))
            decided += [answer] if answer else []
    assert now <= LIMITS.verdict_total_us
    assert questions < 400
    assert watch.verdict.passed == (decided == ["passed"] * len(TICKETS))
    assert (watch.verdict.error is None) == watch.verdict.passed
    if "failed" in decided:
        assert watch.verdict.error is not None
        assert watch.verdict.error.code == "audit_failed"


def test_a_refusal_that_would_be_repeated_is_raised_at_once() -> None:
    watch = VerdictWatch(0, SEGMENTS, LIMITS)
    with pytest.raises(AssayError, match="unknown_ticket"):
        watch.refused(5, AssayError("unknown_ticket"))
    with pytest.raises(ProtocolError, match="another ticket"):
        watch.told(5, told(1, "passed"))


def test_nothing_signed_is_nothing_verified() -> None:
    lost = Segment(SEGMENTS[0].node, SEGMENTS[0].ticket, (1,), (2, 3), None)
    for segments in ([], [lost]):
        watch = VerdictWatch(0, segments, LIMITS)
        assert watch.asking is None
        assert watch.verdict.outcome == "unsigned"


@pytest.mark.parametrize("lie", ["node", "client", "twice", "signature", "number"])
def test_statements_are_checked_before_they_count(lie: str) -> None:
    receipt = peek(Receipt, RECORDS[0].receipt)
    keys = {
        "node": [next(k for k in map(node_key, range(8)) if k.public_key == SEGMENTS[0].node)],
        "client": [CLIENT],
        "twice": [AUDITOR, AUDITOR],
    }.get(lie, [AUDITOR, SECOND_AUDITOR])
    names = [key.public_key for key in keys]
    if lie == "signature":
        names.reverse()
    if lie == "number":
        names.pop()
    answer = JobVerdict(
        ticket=TICKETS[0],
        state="released",
        outcome="passed",
        statements=tuple(statement(key, receipt, bytes(32)) for key in keys),
        auditors=tuple(names),
    )
    with pytest.raises(ProtocolError):
        VerdictWatch(0, SEGMENTS, LIMITS).told(1, answer)


def test_true_statements_name_the_auditors_of_all_parts() -> None:
    watch = VerdictWatch(0, SEGMENTS, LIMITS)
    for index, auditor in enumerate([AUDITOR, SECOND_AUDITOR]):
        receipt = peek(Receipt, RECORDS[index].receipt)
        answer = JobVerdict(
            ticket=TICKETS[index],
            state="released",
            outcome="passed",
            statements=(statement(auditor, receipt, bytes(32)),),
            auditors=(auditor.public_key,),
        )
        assert watch.told(1, answer) == 0
    assert watch.verdict.passed
    assert watch.verdict.auditors == (AUDITOR.public_key, SECOND_AUDITOR.public_key)
