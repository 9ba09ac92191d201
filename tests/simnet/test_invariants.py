"""A checker that finds nothing is worth nothing: bugs are planted, found, and found again."""

from __future__ import annotations

import re

import pytest

from assay_protocol.hashing import pack_tokens
from assay_simnet.cli import main
from assay_simnet.drivers.fast import Fast
from assay_simnet.invariants import Violated
from assay_simnet.keyed import KeyedVerifier
from assay_simnet.setting import CANARY
from simnet.planted_bugs import (
    Patch,
    credits_twice,
    draws_none,
    keeps_change,
    loses_receipts,
    pays_and_refunds,
    raises,
    resumes_elsewhere,
)
from simnet.scenario_texts import SMALL, scenario


@pytest.mark.parametrize(
    ("plant", "ident"),
    [
        (keeps_change, "L1"),
        (credits_twice, "L1"),
        (draws_none, "V1"),
        (pays_and_refunds, "L2"),
        (resumes_elsewhere, "P1"),
        (loses_receipts, "D1"),
        (raises, "raised"),
    ],
)
def test_a_planted_bug_is_found_and_found_again_from_its_line(
    plant: Patch, ident: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch)
    assert main(["check", "churn-storm", "--seeds", "1..3"]) == 1
    told = capsys.readouterr().out
    again = re.search(r"^simnet (replay .*)$", told, re.MULTILINE)
    assert again is not None
    assert re.search(rf"^{ident} does not hold at ", told, re.MULTILINE), told[:500]
    assert told.count(" -> ") >= 20, "the last events of those involved"
    assert main(again[1].split()) == 1
    assert capsys.readouterr().out.splitlines()[1] == told.splitlines()[1]


def _run(monkeypatch: pytest.MonkeyPatch, more: str = "") -> Violated:
    world = Fast(scenario(more), 1)
    with pytest.raises(Violated) as caught:
        world.run()
    return caught.value


def test_a_ticket_that_runs_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Fast(scenario(), 1)
    began = world.checks.began
    monkeypatch.setattr(world.checks, "began", lambda n, t: (began(n, t), began(n, t)))
    with pytest.raises(Violated, match="L2: a ticket runs twice"):
        world.run()


def test_a_prompt_in_a_message_is_seen() -> None:
    world = Fast(scenario(), 1)
    with pytest.raises(Violated, match="S3"):
        world.checks.heard(b"before" + pack_tokens(CANARY) + b"after", 1)


def test_a_forged_receipt_that_is_booked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: with signatures that are never looked at, damaged receipts change rows."""
    monkeypatch.setattr(KeyedVerifier, "verify", lambda *_: True)
    found = _run(monkeypatch, "[checks]\nprobe = 2\n")
    assert found.ident == "S1"


def test_only_what_is_asked_for_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    draws_none(monkeypatch)
    world = Fast(scenario('[checks]\nof = ["P1"]\n', SMALL), 1)
    world.run()
