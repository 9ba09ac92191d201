"""[small] tables: strict, left out unless asked for, and what they run is still what was asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.cli import main
from assay_simnet.drivers.fast import Fast
from assay_simnet.exercised import Tally, tallied, tally_of
from assay_simnet.grid import Plan, base
from assay_simnet.scenario import SHIPPED, Scenario, read, source_of
from assay_simnet.schema import ScenarioError, Source
from simnet.scenario_texts import SWEPT, TINY

SEEDS = (0, 1)
EVENTS_MAX = 15_000  # of a small run: some 0.2 CPU-s
SIZED = TINY + '[small]\nduration = "2 s"\n"population.nodes" = 2\n'
SHIPPED_NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
FAST = [name for name in SHIPPED_NAMES if base(source_of(name)).level == "fast"]


def _sized(small: str, text: str = TINY) -> Scenario:
    return base(Source("s.toml", f"{text}[small]\n{small}"), small=True)


def test_small_sizes_are_left_out_unless_they_are_asked_for() -> None:
    source = Source("s.toml", SIZED)
    assert base(source) == read(Source("s.toml", TINY))
    small = base(source, small=True)
    assert (small.duration, small.population.nodes, small.workload.clients) == (2_000_000, 2, 2)
    assert small.question == "Tiny?"
    swept = Source("s.toml", SWEPT + '[small]\n"population.nodes" = 2\n')
    assert len(Plan(swept)) == len(Plan(Source("s.toml", SWEPT)))
    assert Plan(swept).run(1).text == Plan(Source("s.toml", SWEPT)).run(1).text


@pytest.mark.parametrize(
    ("small", "told"),
    [
        ('"population.nodse" = 1', "s.toml:13: unknown key 'nodse'; did you mean 'nodes'?"),
        ('\nduration = "2"', "s.toml:14: duration: '2' has no unit"),
        ("workload.rate = 3", "s.toml:13: rate: 3"),
        ('"adversary.0.count" = 1', "s.toml:13: write [[adversary]], once for each"),
        ("seed = 4", "s.toml:13: seed is the same at any size"),
        ('name = "x"', "s.toml:13: name is the same at any size"),
        ('"sweep.replicates" = 1', "s.toml:13: sweep.replicates is the same at any size"),
    ],
)
def test_wrong_small_sizes_are_refused_whether_or_not_they_are_asked_for(
    small: str, told: str
) -> None:
    for asked in (True, False):
        with pytest.raises(ScenarioError) as error:
            base(Source("s.toml", f"{TINY}[small]\n{small}\n"), small=asked)
        assert str(error.value).startswith(told)


def test_a_scenario_without_small_sizes_has_none() -> None:
    with pytest.raises(ScenarioError, match=r"there is no \[small\] table"):
        base(Source("s.toml", TINY), small=True)
    with pytest.raises(ScenarioError, match=r"s.toml:\d+: small is a table"):
        base(Source("s.toml", TINY.replace("[pop", "small = 3\n[pop")))


def test_lists_may_be_replaced_as_a_whole() -> None:
    fault = '[[fault]]\nkind = "delay"\nat = "1 s"\n'
    assert _sized("fault = []\n", TINY + fault).faults == ()


def test_a_small_run_is_replayed_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "s.toml", tmp_path / "out"
    file.write_text(SIZED)
    assert main(["run", str(file), "--small", "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["small"]
    assert manifest["parameters"]["population"]["nodes"] == 2
    capsys.readouterr()
    for again in ([str(out)], [str(file), "--small"]):
        assert main(["replay", *again]) == 0
        assert manifest["trace_digest"] in capsys.readouterr().out
    assert main(["replay", str(file)]) == 0
    assert manifest["trace_digest"] not in capsys.readouterr().out


def test_check_says_what_it_went_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(SIZED)
    assert main(["check", str(file), "--small", "--seeds", "0..2"]) == 0
    *_, head, row, total, last = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["runs", "jobs"]
    assert row.split()[1:3] == ["--small", "3"]
    assert int(row.split()[3]) > 0
    assert total.split()[1:] == row.split()[2:]
    assert last == "3 runs, no violation"


def test_tallies_add_up_and_a_level_may_know_less() -> None:
    one = tally_of({"jobs": {"begun": 5}, "adversaries": {"lazy": {"cheated": 2}, "ring": {}}})
    assert one == Tally(runs=1, jobs=5, cheated=2)
    assert tallied({"a": one, "b": one}).splitlines()[-1].split()[:3] == ["all", "2", "10"]


@pytest.mark.parametrize("name", FAST)
def test_a_small_run_still_goes_through_what_its_scenario_is_about(name: str) -> None:
    scenario = base(source_of(name), small=True)
    full = base(source_of(name))
    assert [one.kind for one in scenario.faults] == [one.kind for one in full.faults]
    assert [one.behaviour for one in scenario.adversaries] == [
        one.behaviour for one in full.adversaries
    ]
    worlds = [Fast(scenario, seed) for seed in SEEDS]
    for world in worlds:
        world.run()
        assert world.events <= EVENTS_MAX
        assert world.faults_happened >= len(scenario.faults)
    tally = sum((tally_of(world.summary()) for world in worlds), Tally())
    assert tally.audits > 0
    assert tally.epochs >= len(SEEDS)
    if scenario.churn.model != "none":
        joined = sum(world.record.logs["registered"] for world in worlds)
        assert joined > 2 * len(SEEDS) * scenario.population.nodes
    done = _done_by_behaviour(worlds)
    for one in scenario.adversaries:
        assert done[one.behaviour] > 0, f"{one.behaviour} did nothing"


def _done_by_behaviour(worlds: list[Fast]) -> Counter[str]:
    """Answers cheated on; for who only audits otherwise, audits; for clients, jobs."""
    done: Counter[str] = Counter()
    for world in worlds:
        for node in world.nodes:
            cheat = node.cheat
            if cheat is not None:
                answers = bool(cheat.condition or cheat.two_receipts)
                done[node.behaviour] += node.meter.cheated if answers else node.meter.audits
        for client in world.clients:
            if BEHAVIOURS.get(client.behaviour) is not None:
                done[client.behaviour] += client.begun
    return done
