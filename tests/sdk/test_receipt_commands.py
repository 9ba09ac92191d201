"""`assay receipt`, `assay audit show` and `assay chat --verify`: what they print and exit with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from assay import cli, read_records
from assay.picture_prompt import PromptTokens
from assay.records import write_records
from assay_protocol.codec import encode
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from sdk import verdict_cases
from sdk.client_network import FakeNetwork
from sdk.client_world import AUDITOR, COORDINATOR, FakeCoordinator
from sdk.test_blocking_client import serving
from sdk.test_receipt_verify import RECORD
from sdk.test_standing import with_standing

TICKET = peek(Ticket, RECORD.ticket).ticket.hex()
KEY = COORDINATOR.public_key.hex()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("assay.catalogue.Model.tokens_of_text", _tokens)
    monkeypatch.setattr("assay.catalogue.Model.prompt_of_chat", _chat)


async def _tokens(*_: object) -> tuple[int, ...]:
    return (11, 12)


async def _chat(*_: object) -> PromptTokens:
    return PromptTokens((11, 12))


def test_receipt_show_says_what_speaks_for_each_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipts"
    file.write_bytes(write_records([with_standing(), RECORD]))
    assert cli.main(["receipt", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "its last 300 audits all passed" in shown
    assert "nothing is claimed for it" in shown
    assert cli.main(["receipt", "show", "--json", str(file)]) == 0
    known, unknown = json.loads(capsys.readouterr().out)
    assert (known["bad_share_most"], unknown["bad_share_most"]) == (0.01, None)
    file.write_bytes(write_records([replace(with_standing(), output=RECORD.output[4:])]))
    assert cli.main(["receipt", "show", str(file)]) == 1
    shown = capsys.readouterr().out
    assert "DOES NOT HOLD" in shown
    assert "audits all passed" not in shown, "nothing is claimed for what does not hold"


def test_receipt_verify_needs_the_tickets_own_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, model = tmp_path / "receipts", tmp_path / "model.gguf"
    file.write_bytes(write_records([RECORD]))
    model.write_bytes(b"another")
    assert cli.main(["receipt", "verify", str(file), "--coordinator", KEY]) == 0
    assert "not checked  leaves root" in capsys.readouterr().out
    assert cli.main(["receipt", "verify", str(file), "--model", str(model)]) == 1
    assert "model_corrupt" in capsys.readouterr().err


def test_audit_show_fetches_checks_and_saves_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake, saved = FakeNetwork(record=encode(verdict_cases.verdict())), tmp_path / "verdict"
    with serving(fake):
        where = ["--coordinator", fake.address]
        assert cli.main(["audit", "show", TICKET, *where, "--save", str(saved)]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("passed: holds")
        assert AUDITOR.public_key.hex()[:16] in shown
        assert cli.main(["audit", "show", "00" * 16, *where]) == 1
        assert "another ticket" in capsys.readouterr().err
        assert cli.main(["audit", "show", "xy", *where]) == 1
    offline = ["audit", "show", TICKET, "--file", str(saved)]
    capsys.readouterr()
    assert cli.main([*offline, "--coordinator-key", KEY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "passed"
    assert cli.main([*offline, "--coordinator-key", "09" * 32]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert cli.main(offline) == 1
    assert "--coordinator-key" in capsys.readouterr().err


def test_chat_waits_for_the_verdict_and_tells_who_signed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    coordinator = FakeCoordinator(undecided=0)
    with serving(FakeNetwork(pause=0.001, coordinator=coordinator)) as fake:
        ask = ["chat", "--coordinator", fake.address, "--max-tokens", "5", "hello"]
        assert cli.main([*ask, "--verify", "now", "--receipt"]) == 0
        shown = capsys.readouterr().err
        assert f"audit passed, signed by {AUDITOR.public_key.hex()[:16]}" in shown
        assert "its last 300 audits all passed" in shown
        coordinator.outcomes[(2).to_bytes(16, "big")] = "failed"
        assert cli.main([*ask, "--verify", "now", "--json"]) == 1
        told = capsys.readouterr()
        answer = json.loads(told.out)
        assert (answer["final"], answer["verdict"]["outcome"]) == (False, "failed")
        assert "audit_failed" in told.err
        assert cli.main([*ask, "--verify", "quorum"]) == 0
        assert "two operators' nodes drew the same" in capsys.readouterr().err


def test_a_quorum_that_fails_leaves_both_receipts_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = tmp_path / "receipt"
    with serving(FakeNetwork(pause=0.001, deviate={1: 4})) as fake:
        job = ["job", "submit", "--coordinator", fake.address, "--raw", "--max-tokens", "9"]
        arguments = [*job, "--verify", "quorum", "--receipt", str(receipt), "hello"]
        assert cli.main(arguments) == 1
    told = capsys.readouterr()
    assert "answers_differ: at token 4" in told.err
    assert len(told.out.split()) == 4
    assert len(read_records(receipt.read_bytes())) == 2
