"""The command line: what it writes, what it refuses, how it stops."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from assay_simnet.cli import main
from simnet.scenario_texts import SMALL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_run_leaves_its_figures(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["run", str(file), "--seed", "5", "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["status"], manifest["seed"]) == ("done", 5)
    assert len(manifest["trace_digest"]) == 32
    assert json.loads((out / "summary.json").read_text())["jobs"]["begun"] > 20
    assert (out / "violations.jsonl").read_text() == ""
    assert (out / "scenario.toml").read_text() == SMALL
    jobs = _rows(out, "jobs")
    if jobs is not None:
        assert {row["finish"] for row in jobs} == {"length"}
        assert all(int(row["first_us"]) > int(row["begun_us"]) for row in jobs)
    assert main(["replay", str(out)]) == 0


def _rows(out: Path, name: str) -> list[dict[str, str]] | None:
    packed = out / f"{name}.csv.gz"
    if not packed.exists():  # Parquet, where pyarrow is installed
        assert (out / f"{name}.parquet").stat().st_size > 0
        return None
    with gzip.open(packed, "rt") as lines:
        return list(csv.DictReader(lines))


def test_nothing_is_overwritten(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("kept")
    assert main(["run", str(file), "--out", str(out)]) == 2
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert main(["init", str(file)]) == 2
    assert file.read_text() == SMALL
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "check", "replay"])
def test_a_bad_scenario_is_exit_code_two_and_no_folder(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_text(SMALL + "[network]\nlatencyy = 0\n")
    assert main([verb, str(bad)]) == 2
    told = capsys.readouterr().err
    assert f"{bad}:12: unknown key 'latencyy'; did you mean 'latency'?" in told
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


@pytest.mark.parametrize("manifest", ["", "{", '{"seed": 1}', "[]"])
def test_a_truncated_run_cannot_be_replayed(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    assert main(["replay", str(tmp_path)]) == 2


@pytest.mark.parametrize("seeds", ["5..2", "a..b", "-3..-1", "0..99999999"])
def test_bad_seeds_are_refused(seeds: str) -> None:
    assert main(["check", "baseline", f"--seeds={seeds}"]) == 2


def test_results_do_not_depend_on_the_workers(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(file), "--seeds", "1..3"]) == 0
    alone = capsys.readouterr().out
    assert main(["check", str(file), "--seeds", "1..3", "--workers", "2"]) == 0
    assert capsys.readouterr().out == alone
    assert alone.count("ok ") == 3


FRAMED = """# Does a run that breaks an invariant after others that do not stop the check?
schema = 1
name = "framed"
duration = "2 min"
[population]
nodes = 8
[workload]
rate = "1 / s"
[coordinator]
links = 64
[[adversary]]
behaviour = "framing_ring"
fraction = 0.5
verified = 250
"""


def test_the_first_violation_is_the_first_of_the_tasks_for_any_number_of_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "framed.toml"
    file.write_text(FRAMED)
    told = []
    for workers in ("1", "2"):
        assert main(["check", str(file), "--seeds", "2..5", "--workers", workers]) == 1
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert [line.split()[0] for line in told[0].splitlines()[:3]] == ["ok", "simnet", "S2"]


def test_a_replay_tells_what_a_node_did_until_then(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(file), "--node", "2", "--until", "20 s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert all("#2 " in line for line in lines[:-1])
    assert any("Register" in line for line in lines)
    assert lines[-1].startswith("at 20.0")


def test_what_there_is_is_listed_and_a_start_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert "lazy-ring" in told
    assert "rtx4090-24g" in told
    target = tmp_path / "mine.toml"
    assert main(["init", str(target)]) == 0
    assert 'name = "mine"' in target.read_text()


def _worked(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time."""
    return psutil.Process(process.pid).cpu_times().user


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    file, out = tmp_path / "long.toml", tmp_path / "out"
    file.write_text(SMALL.replace('"40 s"', '"10 h"'))
    command = [sys.executable, "-m", "assay_simnet", "run", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while not (out / "manifest.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        begun = _worked(process)
        while _worked(process) < begun + 2.0:  # some of its ten hours pass
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(180) == 130
    finally:
        process.kill()
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    assert json.loads((out / "summary.json").read_text())["jobs"]["begun"] > 0
    assert _rows(out, "jobs") != []
