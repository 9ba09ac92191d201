"""`coordinator start --http`: who may read it is said before anything is made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from assay_coordinator.cli import main


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--http", "0.0.0.0:9100"], "give --http-password FILE, or --http-open"),
        (["--http", "[::]:9100"], "give --http-password FILE, or --http-open"),
        (["--http", "127.0.0.1:9100", "--http-password", "PASSWORD"], "key_permissions"),
        (["--http", "127.0.0.1:9100", "--http-password", "nowhere"], "No such file"),
        (["--http", "127.0.0.1:9100", "--http-name", "http://x"], "not the name of a host"),
        (["--http-name", "dash.example.org"], "go with --http"),
        (["--http-open"], "go with --http"),
    ],
)
def test_what_does_not_fit_is_wrong_usage(
    tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = tmp_path / "password"
    shown.write_text("long-enough-to-be-one")
    shown.chmod(0o644)
    words = [str(shown) if flag == "PASSWORD" else flag for flag in flags]
    assert main(["start", "--data-dir", str(tmp_path / "c"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_folder_of_a_coordinator_is_its_owners(tmp_path: Path) -> None:
    """Its tables tell which key asked which node, when and for how much."""
    mask = os.umask(0o022)
    try:
        assert main(["start", "--data-dir", str(tmp_path / "c"), "--listen", "nowhere"]) == 1
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
