"""`node service install`: a unit that systemd finds no fault with, and never over another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from assay_node import service_command
from assay_node.cli import main
from assay_node.service_command import make_unit
from assay_node.service_unit import UNIT_NAME, Unit, render

CAPSYS = pytest.CaptureFixture[str]
HAS_SYSTEMD = shutil.which("systemd-analyze") is not None


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text('engine = "scripted"\ndrain_timeout = 40\n')
    return file


@pytest.mark.skipif(not HAS_SYSTEMD, reason="needs systemd-analyze")
@pytest.mark.parametrize("scope", ["--user", "--system"])
def test_systemd_finds_no_fault(scope: str, config: Path, capsys: CAPSYS) -> None:
    argv = ["service", "install", "--config", str(config), scope, "--dry-run", "--json"]
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] == ""
    assert told["written"] is False
    assert ("DynamicUser=yes" in told["unit"]) == (scope == "--system")


@pytest.mark.skipif(not HAS_SYSTEMD, reason="needs systemd-analyze")
def test_a_fault_of_the_unit_would_be_told(
    config: Path, capsys: CAPSYS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_command, "render", lambda unit: render(unit) + "Wantedly=no\n")
    argv = ["service", "install", "--config", str(config), "--dry-run"]
    assert main(argv) == 0
    assert "Wantedly" in capsys.readouterr().err


def test_it_is_written_for_the_user_and_not_over_another(
    config: Path, tmp_path: Path, capsys: CAPSYS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    unit = tmp_path / "home" / "systemd" / "user" / UNIT_NAME
    argv = ["service", "install", "--config", str(config)]
    assert main([*argv, "--dry-run"]) == 0
    assert not unit.exists()
    assert main(argv) == 0
    said = capsys.readouterr()
    assert f"written {unit}" in said.out
    assert "not verified" in said.err
    assert "systemctl --user enable --now assay-node.service" in said.err
    assert main(argv) == 0, "the same again changes nothing"
    unit.write_text("[Unit]\n")
    assert main(argv) == 2
    assert unit.read_text() == "[Unit]\n"
    assert main([*argv, "--replace"]) == 0
    assert "ExecStart=" in unit.read_text()


def test_a_configuration_that_would_not_start_is_refused(tmp_path: Path, capsys: CAPSYS) -> None:
    file = tmp_path / "node.toml"
    argv = ["service", "install", "--config", str(file), "--dry-run"]
    assert main(argv) == 2
    file.write_text("slots = 0\n")
    assert main(argv) == 2
    file.write_text('data_dir = "/srv"\n')
    assert main([*argv, "--system"]) == 2
    assert "take it out" in capsys.readouterr().err


def test_stopping_waits_longer_than_the_longest_drain(config: Path) -> None:
    from assay_node.config import load_settings

    unit = make_unit(config, load_settings(config, {}, {}), "user")
    assert unit.stop_seconds == 40 + 310 + service_command.STOP_SPARE_SECONDS
    assert f"WorkingDirectory={config.parent}\n" in render(unit)


def test_an_odd_path_is_one_argument() -> None:
    text = render(Unit(['/a b/"c"', "50%", "$HOME", "back\\slash"], "/tmp", "user", 1))
    assert 'ExecStart="/a b/\\"c\\"" "50%%" "$$HOME" "back\\\\slash"\n' in text
