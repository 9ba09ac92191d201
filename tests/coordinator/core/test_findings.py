"""One auditor's reveal, weighed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_coordinator.core.calibration import BUILT_IN
from assay_coordinator.core.evidence import FAILURE, FRESH
from assay_coordinator.core.findings import (
    HARD_MARGIN,
    LOGPROB_TOLERANCE,
    Asked,
    Bound,
    agree,
    check_opening,
    logprob_distance,
    weigh,
)
from assay_protocol.errors import ProtocolError
from assay_protocol.leaves import Leaves
from assay_protocol.messages import AuditReveal
from assay_protocol.sketches import leaf_distances
from coordinator.core.coordinator_world import pack_logits
from coordinator.core.finding_cases import (
    ENDS,
    TOKENS,
    found,
    leaves,
    logprobs,
    opening,
    receipt,
    reveal,
)

BOUND = Bound(b"a" * 32, "y/F", bytes(16), bytes(32), b"")


def test_noise_is_good_and_a_cheap_model_is_wrong() -> None:
    assert not found(0).wrong
    assert not found(0).doubtful
    assert found(0).evidence < 0
    assert not found(1).wrong
    assert found(30).evidence > 3 * FAILURE
    assert found(30).wrong
    assert found(0, drift=0.6).wrong, "another model's logits under the right tokens"


def test_a_hard_margin_is_wrong_whatever_the_rest_says() -> None:
    near = found(1, margins=(HARD_MARGIN,))
    beyond = found(1, margins=(HARD_MARGIN + 1,))
    assert (near.wrong, beyond.wrong) == (False, True)


def test_exact_classes_are_compared_bit_by_bit_and_others_are_not() -> None:
    same = found(0, drift=0.0, executor="x/E", auditor="x/E")
    assert (same.equal, same.wrong, same.doubtful) == (True, False, False)
    other = found(0, drift=0.001, executor="x/E", auditor="x/E")
    assert (other.equal, other.wrong, other.doubtful) == (False, False, True)
    token = found(1, drift=0.0, executor="x/E", auditor="x/E")
    assert token.equal is False, "no noise explains a token there"
    for executor, auditor in (("x/E", "y/E"), ("x/F", "x/F"), ("x/E", "x/F")):
        assert found(0, drift=0.0, executor=executor, auditor=auditor).equal is None


def test_a_prefix_is_weighed_alone() -> None:
    mine, tokens = leaves(), 32
    said = reveal(leaves(1, 0.05), tokens=tokens)
    one = weigh(BOUND, receipt(mine), opening(mine), said, Asked(tokens), BUILT_IN)
    assert (one.replayed, len(one.raws)) == (tokens, 64)
    exact = replace(BOUND, class_id="x/E")
    said = reveal(mine, tokens=tokens)
    one = weigh(exact, receipt(mine, "x/E"), opening(mine), said, Asked(tokens), BUILT_IN)
    assert one.equal
    with pytest.raises(ProtocolError):
        weigh(BOUND, receipt(mine), opening(mine), reveal(mine), Asked(tokens), BUILT_IN)


def test_an_answer_of_no_tokens_says_nothing() -> None:
    empty = Leaves()
    nothing = replace(receipt(leaves()), n_out=0, root=empty.root("x/F", []))
    opened = replace(opening(leaves()), hashes=b"", raws=b"", sketches=b"")
    check_opening(nothing, opened)
    said = reveal(empty, tokens=0)
    one = weigh(BOUND, nothing, opened, said, Asked(0), BUILT_IN)
    assert (one.ratios, one.wrong, one.doubtful) == (FRESH, False, False)


def test_a_fault_is_wrong_and_says_whether_it_was_withheld() -> None:
    for fault, withheld in (("transcript_output", True), ("finish", False), ("grammar", False)):
        one = found(0, fault=fault)
        assert (one.wrong, one.withholding) == (True, withheld)


@pytest.mark.parametrize(
    "changes",
    [
        {"mismatches": (3, 3), "margins": (1, 1)},
        {"mismatches": (4, 3), "margins": (1, 1)},
        {"mismatches": (TOKENS,), "margins": (1,)},
        {"mismatches": (1,), "margins": ()},
        {"gaps": None},
        {"gaps": bytes(TOKENS - 1)},
        {"raws": None},
        {"raws": bytes(32 * 5)},
        {"sketches": None},
        {"sketches": bytes(10 * TOKENS - 1)},
        {"sketches": (b"\x01" * 8 + b"\x00\x7e") * TOKENS},  # a step that is no number
        {"logits": pack_logits([1.0] * TOKENS)},
    ],
)
def test_a_malformed_reveal_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        found(0, **changes)


def test_infinite_sketches_of_the_executor_are_wrong_and_of_nobody_elses_fault() -> None:
    mine = leaves()
    broken = replace(mine, sketches=(b"\x01" * 8 + b"\x00\x7c") * TOKENS)
    one = weigh(BOUND, receipt(broken), opening(broken), reveal(mine), Asked(TOKENS), BUILT_IN)
    assert one.wrong


def test_the_opening_must_be_what_the_root_binds() -> None:
    mine, other = leaves(), leaves(2, 0.1)
    check_opening(receipt(mine), opening(mine))
    opened = opening(mine)
    for bad in (
        opening(other),
        replace(opened, hashes=opened.hashes[:-32] + bytes(32)),
        replace(opened, hashes=opened.hashes[:-1]),
        replace(opened, raws=None),
        replace(opened, sketches=opened.sketches[:-10] if opened.sketches else None),
        replace(opened, logits=pack_logits([1.0] * TOKENS)),
    ):
        with pytest.raises(ProtocolError):
            check_opening(receipt(mine), bad)


def test_auditors_agree_where_both_computed_and_on_the_same_fault() -> None:
    def agreed(a: Any, b: Any) -> bool:
        return agree(BUILT_IN, bytes(32), a, b)

    honest, other = found(0, seed=1), found(0, seed=2)
    assert agreed(honest, other)
    made_up = found(0, drift=3.0, seed=3)
    assert not agreed(honest, made_up)
    assert not agreed(made_up, found(0, drift=3.0, seed=4)), "two inventions are not alike"
    fault = found(0, fault="finish")
    assert agreed(fault, found(0, seed=2, fault="finish"))
    assert not agreed(fault, found(0, fault="grammar"))
    assert not agreed(fault, honest)


# ---- classes that tell logprobs only ----


def _of_logprobs(ours: float, theirs: float, tokens: int = TOKENS) -> Any:
    mine = Leaves(logits=logprobs(TOKENS, ours))
    said = AuditReveal(
        audit=bytes(16),
        nonce=bytes(32),
        mismatches=(),
        margins=(),
        logits=logprobs(tokens, theirs),
        gaps=bytes([150]) * tokens,
    )
    asked = Asked(tokens, logprobs=True)
    return weigh(BOUND, receipt(mine, "x/L"), opening(mine), said, asked, BUILT_IN)


def test_logprobs_are_compared_within_a_tolerance() -> None:
    assert not _of_logprobs(-1.0, -1.1).wrong
    assert _of_logprobs(-1.0, -1.1 - LOGPROB_TOLERANCE).wrong
    assert not _of_logprobs(-1.0, -1.1, 32).wrong
    assert agree(BUILT_IN, bytes(32), _of_logprobs(-1, -1.1), _of_logprobs(-1, -1.2, 32))
    assert not agree(BUILT_IN, bytes(32), _of_logprobs(-1, -1.1), _of_logprobs(-1, -9.0))
    with pytest.raises(ProtocolError):
        _of_logprobs(-1.0, float("nan"))


def test_leaves_of_logprobs_are_no_plea_where_they_are_not_taken() -> None:
    mine = Leaves(logits=logprobs(TOKENS, -1.0))
    said = reveal(leaves())
    one = weigh(BOUND, receipt(mine, "x/L"), opening(mine), said, Asked(TOKENS), BUILT_IN)
    assert one.wrong


def test_an_answer_is_as_far_off_as_its_worst_leaf() -> None:
    zero = (0.0,) * TOKENS
    for start, far in ((TOKENS - 1, False), (TOKENS - 16, True), (0, True)):
        tail = (0.0,) * start + (2.0,) * (TOKENS - start)
        assert (logprob_distance(zero, tail) > LOGPROB_TOLERANCE) is far
    assert logprob_distance(zero, (float("nan"),) * TOKENS) == float("inf")
    assert logprob_distance((), ()) == 0.0


def test_the_cases_are_what_they_say() -> None:
    far = leaf_distances(leaves(1, 0.1).sketches, leaves().sketches)
    assert all(0.05 < one < 0.2 for one in far)
    assert len(ENDS) == len(far)
