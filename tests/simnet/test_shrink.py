"""Shrinking: what comes out still fails, is small, can be replayed; nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from assay_simnet import shrink_command
from assay_simnet.cli import main
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source
from assay_simnet.shrink import Broken, Shrinking
from simnet.planted_bugs import (
    Patch,
    draws_none,
    keeps_change,
    loses_receipts,
    raises,
    resumes_elsewhere,
)
from simnet.scenario_texts import SMALL, scenario

WILD = """
[network]
loss = 0.01
[churn]
model = "weibull"
session_mean = "30 s"
away_mean = "5 s"
[[adversary]]
behaviour = "lazy"
fraction = 0.4
verified = 400
[[adversary]]
behaviour = "hoarder"
count = 1
[[fault]]
kind = "node_crash"
at = "5 s"
for = "5 s"
every = "10 s"
fraction = 0.3
[[fault]]
kind = "delay"
at = "10 s"
for = "20 s"
by = "100 ms"
[[fault]]
kind = "engine_crash"
at = "15 s"
every = "10 s"
"""


@pytest.mark.parametrize(
    ("plant", "ident"),
    [
        (keeps_change, "L1"),
        (draws_none, "V1"),
        (resumes_elsewhere, "P1"),
        (loses_receipts, "D1"),
        (raises, "raised"),
    ],
)
def test_a_planted_bug_is_shrunk_and_the_small_file_shows_it(
    plant: Patch,
    ident: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch)
    wild, small = tmp_path / "wild.toml", tmp_path / "shrunk.toml"
    wild.write_text(SMALL.replace("40 s", "3 min") + WILD)
    assert main(["shrink", str(wild), "--seed", "3", "--to", str(small)]) == 0
    told = capsys.readouterr().out
    assert f"{ident} does not hold" in told
    found = read(Source("shrunk.toml", small.read_text()))
    assert found.seed == 3
    assert len(found.faults) + len(found.adversaries) <= 2
    assert found.population.nodes <= 4
    assert found.duration <= 120_000_000, "of three minutes"
    assert main(["replay", str(small)]) == 1
    assert f"\n{ident} does not hold" in capsys.readouterr().out


def _search(run: Callable[[Scenario], Broken | None], begin: Scenario, most: int) -> Shrinking:
    broken = run(begin)
    assert broken is not None
    return Shrinking(run, begin, broken, most)


CROWD = scenario(WILD, SMALL.replace("nodes = 6", "nodes = 60"))


def _crowded(scenario: Scenario) -> Broken | None:
    """Fails with two nodes for each of three clients, and one crash at least."""
    enough = scenario.population.nodes >= 2 * scenario.workload.clients >= 6
    crash = any(one.kind == "engine_crash" for one in scenario.faults)
    return Broken("B1", "crowded", 0) if enough and crash else None


def test_the_smallest_is_found_and_no_scenario_is_run_twice() -> None:
    wild = CROWD
    seen: list[str] = []

    def run(one: Scenario) -> Broken | None:
        seen.append(one.digest)
        return _crowded(one)

    search = _search(run, wild, 300)
    assert search.search()
    best = search.best
    assert (best.population.nodes, best.workload.clients) == (6, 3)
    assert [one.kind for one in best.faults] == ["engine_crash"]
    assert (best.adversaries, best.churn.model, best.duration) == ((), "none", 16_000_000)
    assert len(seen[1:]) == len(set(seen[1:])) == search.tries
    kept = (wild.warm_up, wild.heal, wild.policy, wild.checks, wild.seed)
    assert kept == (best.warm_up, best.heal, best.policy, best.checks, best.seed)


def test_when_the_runs_are_spent_the_best_is_kept() -> None:
    search = _search(_crowded, CROWD, 3)
    assert not search.search()
    assert search.tries == 3
    assert _crowded(search.best) is not None


def test_another_invariant_or_another_place_that_raises_is_another_bug() -> None:
    def run(one: Scenario) -> Broken | None:
        place = "a.py:1" if one.population.nodes > 3 else "b.py:7"
        return Broken("raised", f"KeyError in {place}: {one.population.nodes}", 0)

    search = _search(run, scenario(), 300)
    assert search.search()
    assert search.best.population.nodes == 4


def test_what_comes_after_the_failure_is_cut_off_first() -> None:
    def run(one: Scenario) -> Broken | None:
        return Broken("L1", "x", 12_300_000) if one.duration >= 3_000_000 else None

    search = _search(run, scenario(WILD), 300)
    tried: list[int] = []
    search.watch = lambda now: tried.append(now.best.duration)
    search.search()
    assert tried[0] == search.best.duration == 3_000_000


def test_ctrl_c_keeps_the_smallest_so_far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[Scenario] = []

    def run(one: Scenario) -> Broken | None:
        runs.append(one)
        if len(runs) == 20:
            raise KeyboardInterrupt
        return _crowded(one)

    monkeypatch.setattr(shrink_command, "_broken", run)
    small = tmp_path / "shrunk.toml"
    assert shrink_command.shrink_into(small, CROWD, 300) == 130
    assert _crowded(read(Source("s", small.read_text()))) is not None
    assert "after 19 runs; stopped" in capsys.readouterr().out


def test_nothing_is_overwritten_and_nothing_is_run_for_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "shrunk.toml"
    small.write_text("kept")
    for command in (["shrink", "baseline"], ["check", "baseline", "--shrink"]):
        assert main([*command, "--to", str(small)]) == 2
        assert f"{small} is there already" in capsys.readouterr().err
        assert main([*command, "--to", str(tmp_path / "no" / "s.toml")]) == 2
        assert main([*command, "--to", str(tmp_path / "s"), "--runs", "0"]) == 2
    assert small.read_text() == "kept"


def test_a_scenario_that_breaks_nothing_is_not_shrunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine, small = tmp_path / "fine.toml", tmp_path / "shrunk.toml"
    fine.write_text(SMALL)
    assert main(["shrink", str(fine), "--to", str(small)]) == 2
    assert "small, seed 1: nothing breaks" in capsys.readouterr().err
    assert not small.exists()


def test_check_shrinks_what_it_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draws_none(monkeypatch)
    fine, small = tmp_path / "fine.toml", tmp_path / "shrunk.toml"
    fine.write_text(SMALL)
    command = ["check", str(fine), "--seeds", "3..5", "--shrink", "--runs", "5"]
    assert main([*command, "--to", str(small)]) == 1
    assert "after 5 runs; all 5 runs are spent" in capsys.readouterr().out
    assert read(Source("s", small.read_text())).seed == 3
