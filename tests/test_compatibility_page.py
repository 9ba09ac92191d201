"""docs/compatibility.md says what the suites said, and every failure of ours has its reason."""

from __future__ import annotations

import json
from typing import Any

from conformance import page

RESULTS: dict[str, Any] = json.loads(page.RESULTS.read_text())


def test_the_page_is_made_from_the_results() -> None:
    text = page.PAGE.read_text()
    assert text == page.written(text, RESULTS), "PYTHONPATH=tests python -m conformance.page"


def test_every_failure_has_a_reason_and_every_reason_a_failure() -> None:
    assert page.unexplained(RESULTS) == []
    assert page.unneeded(RESULTS) == []


def test_a_failure_without_a_reason_is_told_as_ours() -> None:
    failed = {"test": "t", "status": "failed", "why": "a | b"}
    ran = {"version": "1", "seconds": 1, "outcomes": [failed, {"test": "u", "status": "passed"}]}
    subjects = {"assay": {"version": "", "suites": {"litellm": ran}}}
    told = {"measured": RESULTS["measured"], "subjects": subjects}
    assert page.unexplained(told) == [("litellm", "t")]
    text = page.written(page.PAGE.read_text(), told)
    assert "| litellm | `t` | **ours to mend**: a b |" in text
    assert "| 1 of 2 |" in text


def test_failures_of_others_that_begin_alike_share_a_row() -> None:
    why = "x" * page.ALIKE_CHARACTERS
    failed = [
        {"test": "A.one", "status": "failed", "why": f"{why}1"},
        {"test": "A.two", "status": "failed", "why": f"{why}2"},
        {"test": "three", "status": "failed", "why": "y"},
    ]
    ran = {"version": "1", "seconds": 1, "outcomes": failed}
    ours = {"version": "1", "seconds": 1, "outcomes": [{"test": "u", "status": "passed"}]}
    subjects = {
        "assay": {"version": "", "suites": {"litellm": ours}},
        "llama-server": {"version": "1", "suites": {"litellm": ran}},
    }
    told = {"measured": RESULTS["measured"], "subjects": subjects}
    text = page.written(page.PAGE.read_text(), told)
    assert f"| litellm | `one`, `two` | {why}1 |" in text
    assert "| litellm | `three` | y |" in text


def test_all_suites_were_run_against_the_gateway() -> None:
    ran = {name: set(one["suites"]) for name, one in RESULTS["subjects"].items()}
    assert {page.OURS, page.SIMULATED} <= set(ran) <= set(page.NAMES)
    assert len(ran[page.OURS] | ran[page.SIMULATED]) == 12
