"""Sweeps: the same bytes for any number of workers, after any kill; and what is refused."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from assay_simnet.cli import main
from assay_simnet.commands import commit
from assay_simnet.drivers.fast import Fast
from assay_simnet.grid import Plan
from assay_simnet.invariants import Violated
from assay_simnet.pools import AHEAD, in_order
from assay_simnet.results import at, flat
from assay_simnet.schema import ScenarioError, Source
from assay_simnet.summary import summary
from assay_simnet.sweep import Task, _paths, columns, compute
from simnet.scenario_texts import SWEPT, ran

SHORT = SWEPT.replace("replicates = 10", "replicates = 1").replace("[3, 4, 5]", "[3, 4]")
RUNS = 60


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file of 60 runs, and its sweep."""
    folder = tmp_path_factory.mktemp("unbroken")
    file, out = folder / "swept.toml", folder / "out"
    file.write_text(SWEPT)
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    return file, out


@pytest.fixture
def short(tmp_path: Path) -> tuple[Path, Path]:
    """A file of 4 runs, and its sweep."""
    file, out = tmp_path / "swept.toml", tmp_path / "out"
    file.write_text(SHORT)
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    return file, out


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_killed_and_resumed_has_the_bytes_of_an_unbroken_one(
    unbroken: tuple[Path, Path], tmp_path: Path, workers: int
) -> None:
    file, wanted = unbroken
    out = tmp_path / "out"
    command = [sys.executable, "-m", "assay_simnet", "sweep", str(file), "--out", str(out)]
    command += ["--workers", str(workers), "--resume"]
    kills = 0
    for least in (3, 20, 41):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(lambda least=least: _lines(out) >= least)
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
        kills += process.wait() == -signal.SIGKILL
        _wait(lambda children=children: not any(_alive(child) for child in children))
        assert least <= _lines(out) < RUNS + 1
    assert kills == 3
    with (out / "sweep.csv").open("ab") as file_:
        file_.write(b"17,0.2,")  # as if the last kill had fallen within a write
    assert subprocess.run(command, check=True, capture_output=True, text=True).stderr.startswith(
        "half a row (7 bytes)"
    )
    assert _contents(out) == _contents(wanted)


def _lines(out: Path) -> int:
    path = out / "sweep.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait(so: Any) -> None:
    deadline = time.monotonic() + 180
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_row_is_every_figure_of_the_runs_summary(short: tuple[Path, Path]) -> None:
    file, out = short
    with (out / "sweep.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 4
    plan = Plan(Source(str(file), SHORT))
    row, run = rows[3], plan.run(3)
    world = Fast(plan._read((1, 1)), run.seed)
    world.run()
    figures = summary(world)
    assert (row["trace_digest"], row["seed"]) == (world.history.digest, str(run.seed))
    for path in _paths(plan):
        value = at(figures, path)
        if not isinstance(value, dict):
            assert row[path] == ("" if value is None else str(value))
    covered = set(columns(plan))
    missing = [path for path, _ in flat(figures) if not _in(path, covered)]
    assert missing == []


def _in(path: str, covered: set[str]) -> bool:
    """The figure has a column, or is in one that holds a table, or is a table that was empty."""
    parts = path.split(".")
    heads = {".".join(parts[:size]) for size in range(1, len(parts) + 1)}
    return bool(heads & covered) or any(one.startswith(f"{path}.") for one in covered)


def test_every_figure_of_a_summary_has_a_column() -> None:
    figures = summary(ran('[[adversary]]\nbehaviour = "lazy"\ncount = 2\n'))
    covered = set(_paths(Plan(Source("swept.toml", SHORT))))
    assert [path for path, _ in flat(figures) if not _in(path, covered)] == []


def test_nothing_is_overwritten_and_a_finished_sweep_has_nothing_to_resume(
    short: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = short
    before = _contents(out)
    assert main(["sweep", str(file), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 0
    assert "4 runs, 0 of them now" in capsys.readouterr().out
    assert _contents(out) == before


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("sweep.csv", lambda b: b.replace(b"\n1,", b"\n2,", 1), "sweep.csv:3: not the row of run"),
        ("sweep.csv", lambda b: b.replace(b"\n1,", b"\n", 1), "sweep.csv:3: not the row of run 1"),
        ("sweep.csv", lambda b: b.replace(b"run,", b"ran,", 1), "sweep.csv:1: not this sweep's"),
        ("sweep.csv", lambda b: b + b"4,0,0\n", "sweep.csv:6: more rows than runs"),
        ("sweep.csv", lambda b: b.replace(b"done", b"\xff", 1), "sweep.csv:2: damaged"),
        ("sweep.json", lambda b: b[:40], "sweep.json: "),
        ("sweep.json", lambda b: b.replace(b'"runs": 4', b'"runs": 5'), "another sweep's; runs"),
    ],
)
def test_what_is_not_the_plans_is_refused_and_left_as_it_is(
    short: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Any,
    told: str,
) -> None:
    file, out = short
    path = out / name
    damaged = change(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    before = _contents(out)
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 2
    assert told in capsys.readouterr().err
    assert _contents(out) == before


def test_another_file_is_not_resumed_into_it(
    short: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = short
    file.write_text(SHORT.replace("clients = 2", "clients = 3"))
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 2
    assert "another sweep's" in capsys.readouterr().err
    stranger = out.with_name("mine")
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("kept")
    assert main(["sweep", str(file), "--out", str(stranger), "--resume"]) == 2
    assert [path.name for path in stranger.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("more", [["--workers", "0"], ["--show", "60"], ["--show=-1"]])
def test_bad_arguments_are_exit_code_two(tmp_path: Path, more: list[str]) -> None:
    file = tmp_path / "swept.toml"
    file.write_text(SWEPT)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), *more]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["swept.toml"]


def test_a_run_can_be_shown_and_played_alone(
    short: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = short
    capsys.readouterr()
    assert main(["sweep", str(file), "--show", "2"]) == 0
    alone = tmp_path / "alone.toml"
    alone.write_text(capsys.readouterr().out)
    assert main(["replay", str(alone)]) == 0
    with (out / "sweep.csv").open(newline="") as lines:
        digest = list(csv.DictReader(lines))[2]["trace_digest"]
    assert digest in capsys.readouterr().out


def test_ctrl_c_keeps_whole_rows(tmp_path: Path) -> None:
    file, out = tmp_path / "swept.toml", tmp_path / "out"
    file.write_text(SWEPT)
    command = [sys.executable, "-m", "assay_simnet", "sweep", str(file), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True)
    try:
        _wait(lambda: _lines(out) > 2)
        os.kill(process.pid, signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "--resume goes on" in told
    assert "Traceback" not in told
    assert (out / "sweep.csv").read_bytes().endswith(b"\n")


class _FakeRay:
    """As much of Ray's interface as is used; it is here that tests can see what was asked."""

    def __init__(self) -> None:
        self.addresses: list[str | None] = []
        self.gets = 0
        self.ended = False

    def init(self, address: str | None) -> None:
        self.addresses.append(address)

    def remote(self, function: Any) -> Any:
        return SimpleNamespace(remote=lambda task: (function, task))

    def get(self, handle: Any) -> Any:
        self.gets += 1
        function, task = handle
        return function(task)

    def shutdown(self) -> None:
        self.ended = True


def test_a_ray_cluster_gives_the_same_bytes(
    short: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = short
    ray = _FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    other = tmp_path / "rays"
    command = ["sweep", str(file), "--out", str(other), "--ray", "ray://head:10001"]
    assert main([*command, "--workers", "3"]) == 0
    assert (ray.addresses, ray.gets, ray.ended) == (["ray://head:10001"], 4, True)
    assert _contents(other) == _contents(out)


def test_without_ray_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    file = tmp_path / "swept.toml"
    file.write_text(SHORT)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--ray"]) == 2
    assert "assay-network[ray]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class _Counting:
    """A pool that knows how much was asked for and not taken."""

    def __init__(self) -> None:
        self.under_way = self.most = 0

    def submit(self, task: int) -> int:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return task

    def result(self, handle: int) -> int:
        self.under_way -= 1
        return handle * handle

    def stop(self) -> None: ...


def test_few_runs_are_under_way_however_many_there_are() -> None:
    pool = _Counting()
    results = list(in_order(pool, iter(range(1_000)), 3))
    assert results == [number * number for number in range(1_000)]
    assert pool.most == 3 * AHEAD


def test_a_broken_invariant_is_a_row_and_a_line_that_shows_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "swept.toml", tmp_path / "out"
    file.write_text(SHORT)
    monkeypatch.setattr("assay_simnet.invariants.Checks.look", _broken)
    assert main(["sweep", str(file), "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"simnet sweep {file} --show 0 > again.toml" in told
    with (out / "sweep.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["status"], row["violation"]) for row in rows} == {("violated", "L1")}
    assert main(["sweep", str(file), "--out", str(out), "--resume"]) == 1
    task = Task(Plan(Source(str(file), SHORT)).run(0), str(file), ("lazy",), commit())
    assert compute(task).violated == "L1: a purse is negative"


def test_a_worker_with_other_code_computes_nothing() -> None:
    task = Task(Plan(Source("swept.toml", SHORT)).run(2), "swept.toml", ("lazy",), "0123456789abcd")
    with pytest.raises(
        ScenarioError, match=r"run 2: a worker has .*, the sweep is of 0123456789ab"
    ):
        compute(task)


def _broken(self: Any) -> None:
    raise Violated("L1", "a purse is negative")
