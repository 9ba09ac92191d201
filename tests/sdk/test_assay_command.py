"""The `assay` command: exit codes, hand-overs, offline checks, and jobs on loopback."""

from __future__ import annotations

import io
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from assay import cli, read_records
from assay.picture_prompt import PromptTokens
from assay.records import write_records
from assay.verify import verify
from assay_protocol.cards import card_digest, encode_card
from assay_protocol.codec import decode_as
from assay_protocol.images import pack_images, unpack_images
from assay_protocol.messages import StartJob
from sdk.client_network import FakeNetwork
from sdk.client_world import COORDINATOR, FakeCoordinator
from sdk.gateway_world import chat_card
from sdk.picture_cases import SEES, picture_file
from sdk.test_blocking_client import serving
from sdk.test_receipt_verify import RECORD


def test_verify_prints_every_step_and_answers_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true, false = tmp_path / "true", tmp_path / "false"
    true.write_bytes(write_records([RECORD]))
    false.write_bytes(write_records([RECORD, replace(RECORD, output=RECORD.output[4:])]))
    key = COORDINATOR.public_key.hex()
    assert cli.main(["verify", str(true), "--coordinator", key]) == 0
    assert "not checked  leaves root" in capsys.readouterr().out
    assert cli.main(["verify", str(true), "--coordinator", "09" * 32]) == 1
    capsys.readouterr()
    assert cli.main(["verify", str(false), "--json"]) == 1
    one, other = json.loads(capsys.readouterr().out)
    assert (one["ok"], other["ok"]) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "/nonexistent"], 1),
        (["verify", __file__], 1),
        (["verify", __file__, "--coordinator", "xyz"], 1),
        (["account"], 1),
        (["chat", "--coordinator", "nowhere", "hello"], 1),
    ],
)
def test_failures_are_one_line_and_exit_code_1(
    arguments: list[str],
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ASSAY_COORDINATOR", raising=False)
    assert cli.main(arguments) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_wrong_command_line_is_exit_code_2() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["nonsense"])
    assert caught.value.code == 2


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "assay_coordinator.cli", None)
    assert cli.main(["coordinator", "start"]) == 2
    assert "assay-network[coordinator]" in capsys.readouterr().err


def test_node_and_its_like_are_handed_over_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    module = ModuleType("assay_node.cli")
    module.main = lambda argv: seen.append(argv) or 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "assay_node.cli", module)
    assert cli.main(["node", "start", "--help"]) == 5
    assert seen == [["start", "--help"]]


def test_jobs_and_questions_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("assay.catalogue.Model.tokens_of_text", _tokens)
    monkeypatch.setattr("assay.catalogue.Model.prompt_of_chat", _chat)
    fake = FakeNetwork(lose_after={0: 9}, pause=0.001, coordinator=FakeCoordinator())
    receipt = tmp_path / "receipt"
    with serving(fake):
        where = ["--coordinator", fake.address]
        job = ["job", "submit", *where, "--raw", "--max-tokens", "30", "--receipt", str(receipt)]
        assert cli.main([*job, "hello"]) == 0
        shown = capsys.readouterr()
        assert len(shown.out.split()) == 30
        assert "resumed at token 9, receipt verified" in shown.err
        monkeypatch.setattr("sys.stdin", io.StringIO("piped"))
        assert cli.main(["chat", *where, "--json", "--max-tokens", "5"]) == 0
        assert json.loads(capsys.readouterr().out)["receipt_verified"] is True
        assert cli.main(["network", *where]) == 0
        assert "3 jobs" in capsys.readouterr().out
        assert cli.main(["account", *where, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["available"] == 7
    assert len(read_records(receipt.read_bytes())) == 1
    assert stat.S_IMODE(receipt.stat().st_mode) == 0o600
    assert cli.main(["verify", str(receipt)]) == 0


def test_a_chat_shows_reasoning_only_if_asked_and_never_as_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fake = FakeNetwork(says=lambda prompt: b"<think>I add.</think>It is 4.", pause=0.001)
    card = chat_card(chat_template="{{ messages[0].content }}{{ '' if 1 else '</think>' }}")
    fake.card = encode_card(card)
    fake.card_name = card_digest(fake.card)
    with serving(fake):
        ask = ["chat", "--coordinator", fake.address, "--max-tokens", "60", "2 + 2?"]
        assert cli.main(ask) == 0
        told = capsys.readouterr()
        assert (told.out, "I add." in told.err) == ("It is 4.\n", False)
        assert "of them reasoning" in told.err
        assert cli.main([*ask, "--reasoning"]) == 0
        told = capsys.readouterr()
        assert told.out == "It is 4.\n"
        assert told.err.startswith("I add.\n")
        assert cli.main([*ask, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["text"], answer["reasoning"]) == ("It is 4.", "I add.")
        assert answer["usage"]["reasoning_tokens"] == len("I add.</think>")


async def _tokens(*_: object) -> tuple[int, ...]:
    return (11, 12)


async def _chat(*_: object) -> PromptTokens:
    return PromptTokens((11, 12))


def test_a_chat_shows_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = [tmp_path / "one.png", tmp_path / "two.jpg"]
    for file, kind in zip(files, ("PNG", "JPEG"), strict=True):
        file.write_bytes(picture_file(kind=kind))
    fake = FakeNetwork(end_at=3, pause=0.001)
    fake.card = encode_card(chat_card(vision=SEES))
    fake.card_name = card_digest(fake.card)
    shows = ["--image", str(files[0]), "--image", str(files[1])]
    with serving(fake):
        ask = ["--coordinator", fake.address, "--max-tokens", "5", *shows, "what is it?"]
        assert cli.main(["chat", *ask]) == 0
        receipt = tmp_path / "receipt"
        assert cli.main(["job", "submit", *ask, "--receipt", str(receipt)]) == 0
        assert cli.main(["job", "submit", "--raw", *ask]) == 1
        assert "image_refused" in capsys.readouterr().err
        assert cli.main(["chat", *ask[:-1], "--image", str(tmp_path / "none"), "x"]) == 1
    starts = [decode_as(StartJob, first) for first in fake.firsts]
    assert [len(start.images or ()) for start in starts] == [2, 2]
    (record,) = read_records(receipt.read_bytes())
    assert unpack_images(record.images) == starts[1].images
    assert verify(record).ok
    shown = {step.name: step.detail for step in verify(record).steps}
    assert shown["images"] == "the pixels of 2, as the prompt spells them"
    bare = {step.name: step for step in verify(replace(record, images=b"")).steps}["images"]
    assert (bare.ok, bare.detail.endswith("nobody can replay it")) == (None, True)
    assert verify(replace(record, images=record.images[:-1])).failed == ("images",)
    assert verify(replace(record, images=pack_images(unpack_images(record.images)[:1]))).failed
