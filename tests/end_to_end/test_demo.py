"""The demo a newcomer runs, as a process, with its report read back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from assay_simnet.prompts import PROMPTS


@pytest.mark.end_to_end
@pytest.mark.model
@pytest.mark.slow
def test_the_demo_shows_everything_it_promises(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "assay_simnet", "demo", "--report", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    report = json.loads(path.read_text())
    assert (done.returncode, report["ok"], report["failure"]) == (0, True, ""), done.stdout
    assert report["chats"] == report["receipts_verified"] == len(PROMPTS)
    states = report["cheat"]["states"]
    assert states.pop(report["cheat"]["node"]) == "convicted"
    assert report["cheat"]["jobs_failed"] >= 2
    assert report["cheat"]["auditors"] >= 2
    assert report["cheat"]["statements"] >= 4
    assert (report["cheat"]["earned"], report["cheat"]["escrow"]) == (0, 0)
    assert set(states.values()) <= {"probation", "active"}
    assert report["resume"]["token_exact"] is True
    assert 0 < report["resume"]["at_token"] < report["resume"]["tokens"]
    assert report["epoch"]["epoch"] == 1
    assert report["epoch"]["total"] > 0
    assert report["credit"]["exit_code"] == 0
    assert report["draws"]["exit_code"] == 0
    assert report["draws"]["rounds"] > 0
