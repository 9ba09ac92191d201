"""`node selfcheck`: what it says of the roads it tried, and the exit code that goes with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay_node import selfcheck_command
from assay_node.cli import main
from assay_node.engine import library
from assay_node.engine.profiles import FLASH, PLAIN, Profile, claim
from assay_node.engine.trials import FAILED, Trial
from gguf_cases import gguf

EXACT = Trial(True, 517, 0, 300.0, 90.0, "llama.cpp/1/cpu/fa-split48/kv-f16/Q4_0/E")
SLOWER = Trial(True, 517, 0, 200.0, 80.0, "llama.cpp/1/cpu/plain/kv-f16/Q4_0/E")
DIFFERS = Trial(False, 517, 3, 300.0, 90.0, "llama.cpp/1/cpu/fa-split48/kv-f16/Q4_0/F")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    return path


def _find(monkeypatch: pytest.MonkeyPatch, flash: Trial, plain: Trial | None) -> None:
    def run(_path: Path, profile: Profile, _threads: int, *, projector: Path | None) -> Trial:
        assert projector is None
        found = flash if profile.road == FLASH.road else plain
        assert found is not None, "a road whose library is missing is not tried"
        return found

    monkeypatch.setattr(selfcheck_command, "run_trial", run)
    built = None if plain is None else Path("there")
    monkeypatch.setattr(library, "installed", lambda _name: built)


def _run(model: Path, *more: str) -> int:
    return main(["selfcheck", *more, "--model", str(model), "--data-dir", str(model.parent)])


def test_the_quickest_exact_road_gives_the_class(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _find(monkeypatch, EXACT, SLOWER)
    assert _run(model) == 0
    out = capsys.readouterr().out
    assert "517 tokens compared, none differs" in out
    assert EXACT.class_id in out


def test_a_bit_that_differs_is_told_and_fails(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _find(monkeypatch, DIFFERS, FAILED)
    assert _run(model, "exact", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert told["exact"] is False
    assert told["class_id"] is None
    assert [road["state"] for road in told["roads"]] == ["differs", "died"]


def test_a_library_that_was_not_built_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _find(monkeypatch, DIFFERS, None)
    assert _run(model) == 3
    out = capsys.readouterr().out
    assert f"scripts/build_engine.sh {PLAIN.library}" in out
    assert "not exact" in out


def test_without_a_model_or_with_a_broken_one_nothing_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selfcheck", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("model_missing: ")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert _run(tmp_path / "model.gguf") == 1
    assert capsys.readouterr().err.startswith("gguf_invalid: ")


def test_a_claim_is_the_last_part_of_a_class() -> None:
    assert claim("llama.cpp/1/cpu/plain/kv-f16/Q4_0/F", proved=True).endswith("Q4_0/E")
    assert claim("llama.cpp/1/cpu/plain/kv-f16/Q4_0/F", proved=False).endswith("Q4_0/F")
