"""Receipts in the browser: the verdicts of `assay verify`, step by step and word for word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.records import ReceiptRecord, read_records, write_records
from assay.standing import standing_of
from assay.steps import Verification
from assay.verify import verify, verify_answer
from assay_protocol.errors import ProtocolError
from browser.javascript import Call
from browser.receipt_cases import COORDINATOR, STRANGER, records
from sdk.test_receipt_verify import make_records

PARTS = make_records(lose_at=(30, 30))
RECORD = make_records()[0]
FILE = write_records([RECORD])


def as_told(result: Verification) -> dict[str, Any]:
    """As JavaScript tells it."""
    return {
        "ok": result.ok,
        "steps": [asdict(step) for step in result.steps],
        "price": result.price,
    }


def in_words(result: dict[str, Any]) -> dict[str, Any]:
    """What is compared: of bytes that are no message each language says in its own words why."""
    for step in result["steps"]:
        if step["ok"] is False and step["detail"].startswith("malformed"):
            step["detail"] = "malformed"
    return result


def outcome(make: Callable[[], Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """What Python makes, or its code with the reason that JavaScript gave."""
    try:
        return {"value": make()}
    except ProtocolError as error:
        return {"error": error.code, "reason": theirs.get("reason")}


def in_python(data: bytes) -> dict[str, Any]:
    return in_words(as_told(verify(*read_records(data))))


def compare(javascript: Call, record: ReceiptRecord, coordinator: bytes | None) -> Verification:
    ours = verify(record, coordinator)
    (theirs,) = javascript("verifyFile", write_records([record]), coordinator)["value"]
    assert in_words(theirs) == in_words(as_told(ours))
    return ours


@given(record=records(), known=st.sampled_from([None, COORDINATOR, STRANGER]))
def test_any_receipt_gets_python_s_verdict(node: Call, record: ReceiptRecord, known: Any) -> None:
    compare(node, record, None if known is None else known.public_key)


@given(record=records())
@settings(max_examples=25)
def test_the_same_in_a_page(chromium: Call, record: ReceiptRecord) -> None:
    compare(chromium, record, None)


@given(record=records())
def test_what_speaks_for_a_node_is_said_in_the_same_words(node: Call, record: Any) -> None:
    theirs = node("standing", record.encode())
    assert theirs == outcome(lambda: list(standing_of(record).lines), theirs)


@pytest.mark.parametrize("order", [*permutations(range(3)), (0, 2), (1,)])
def test_the_parts_of_an_answer_meet_or_do_not(javascript: Call, order: tuple[int, ...]) -> None:
    parts = [PARTS[i] for i in order]
    theirs = javascript("verifyAnswer", write_records(parts), None)["value"]
    assert in_words(theirs) == in_words(as_told(verify_answer(parts)))


def test_a_part_after_one_that_does_not_hold_is_told(javascript: Call) -> None:
    bad = replace(PARTS[0], ticket=PARTS[0].ticket[:-1] + b"\x7f")
    theirs = javascript("verifyAnswer", write_records([bad, PARTS[1]]), None)["value"]
    assert in_words(theirs) == in_words(as_told(verify_answer([bad, PARTS[1]])))
    assert not theirs["ok"]


def test_no_flipped_byte_of_a_file_holds(javascript: Call) -> None:
    """Every byte of the file, by way of every record it could still be."""
    assert all(one["ok"] for one in javascript("verifyFile", FILE, None)["value"])
    changed = [FILE[:at] + bytes([FILE[at] ^ 0x15]) + FILE[at + 1 :] for at in range(len(FILE))]
    outcomes = javascript("verifyEach", changed)["value"]
    assert len(outcomes) == len(FILE)
    for data, theirs in zip(changed, outcomes, strict=True):
        if "value" in theirs:
            (found,) = theirs["value"]
            theirs = {"value": in_words(found)}
            assert not found["ok"]
        assert theirs == outcome(partial(in_python, data), theirs)


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 10, -1])
def test_a_cut_file_is_refused(javascript: Call, cut: int) -> None:
    assert javascript("verifyFile", FILE[:cut], None)["error"] == "malformed"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(node: Call, data: bytes) -> None:
    with pytest.raises(ProtocolError) as ours:
        ReceiptRecord.decode(data)
    assert node("readRecord", data)["error"] == ours.value.code
