"""[sweep] tables: which runs there are, with which seeds, and what is refused."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_simnet.elsewhere import at_level, on_machine
from assay_simnet.grid import Plan, base
from assay_simnet.paths import to_toml
from assay_simnet.scenario import read
from assay_simnet.schema import ScenarioError, Source
from simnet.scenario_texts import SWEPT, TINY
from tidy_rules import ROOT


def _plan(sweep: str, text: str = TINY) -> Plan:
    return Plan(Source("s.toml", f"{text}[sweep]\n{sweep}"))


def test_the_first_key_changes_slowest_and_the_replicate_fastest() -> None:
    plan = _plan('replicates = 2\n"workload.clients" = [1, 2]\n"population.nodes" = [3, 5]\n')
    runs = [plan.run(number) for number in range(len(plan))]
    assert [run.cells for run in runs[::2]] == [("1", "3"), ("1", "5"), ("2", "3"), ("2", "5")]
    assert [run.replicate for run in runs] == [0, 1] * 4
    scenarios = [read(Source("run", run.text)) for run in runs]
    assert [one.population.nodes for one in scenarios] == [3, 3, 5, 5] * 2
    assert [one.workload.clients for one in scenarios] == [1] * 4 + [2] * 4
    assert [one.seed for one in scenarios] == [run.seed for run in runs]
    assert {one.question for one in scenarios} == {"Tiny?"}


def test_a_replicates_seed_depends_on_nothing_but_its_number_and_the_scenarios_seed() -> None:
    plan = _plan('replicates = 3\n"population.nodes" = [3, 4]\n')
    other = _plan('"workload.clients" = [9]\n"population.nodes" = [8, 4, 3]\nreplicates = 5\n')
    assert other.seeds[:3] == plan.seeds
    assert len(set(other.seeds)) == 5
    assert {run.seed for run in map(plan.run, range(len(plan)))} == set(plan.seeds)
    reseeded = _plan("replicates = 3", TINY.replace("schema = 1", "schema = 1\nseed = 2"))
    assert not set(reseeded.seeds) & set(plan.seeds)


def test_keys_may_be_written_without_quotes_and_tables_need_not_be_there() -> None:
    plan = _plan('churn.model = ["none", "weibull"]\nnetwork.loss = [0.1]\n')
    assert plan.keys == ("churn.model", "network.loss")
    assert [read(Source("run", plan.run(n).text)).churn.model for n in (0, 1)] == [
        "none",
        "weibull",
    ]
    assert "loss = 0.1" in plan.run(0).text


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ('"population.nodse" = [1]', "s.toml:13: unknown key 'nodse'; did you mean 'nodes'?"),
        ('"workload.rate" = ["1 / s", "2"]', "s.toml:13: rate: '2' has no unit"),
        ('\n\n"network.loss" = [0.1, 2]', "s.toml:15: loss: 2: a share is from 0 to 1"),
        ("network.loss = [2]", "s.toml:13: loss: 2: a share is from 0 to 1"),
        ('"population.nodes" = 3', "s.toml:13: population.nodes: a list of values wanted"),
        ('"population.nodes" = []', "s.toml:13: population.nodes: a list of values wanted"),
        ('"population.nodes" = [3, 3]', "s.toml:13: population.nodes: a value is there twice"),
        ('"adversary.0.cheat" = [1]', "s.toml:13: write [[adversary]], once"),
        ('"name.x" = [1]', "s.toml:13: name.x: name is no table"),
        ('name = ["a\\nb"]', "s.toml:13: name: a value of one line wanted"),
        ("seed = [1, 2]", "s.toml:13: seed cannot be swept; write replicates = N"),
        ("replicates = 0", "s.toml:13: replicates: 0: a whole number from 1"),
        ("replicates = 1000001", "s.toml:13: replicates: 1000001: a whole number"),
        ('replicates = 600000\n"network.loss" = [0, 0.1]', "1,200,000 runs; at most"),
        ('"population.nodes" = [1]\n"population" = [{}]', "another key sweeps this"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_line(sweep: str, told: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        _plan(sweep)
    assert told in str(caught.value)


def test_a_point_that_no_single_value_shows_is_refused_before_any_runs() -> None:
    with pytest.raises(ScenarioError, match="more than the model's context"):
        _plan('"workload.prompt_most" = [100, 4000]\n"workload.answer_most" = [90, 200]\n')


def test_an_item_that_is_not_there_is_refused() -> None:
    text = TINY + '[[adversary]]\nbehaviour = "lazy"\ncount = 1\n'
    with pytest.raises(ScenarioError, match=r"s.toml:16: adversary.1.cheat: there is no adversary"):
        _plan('"adversary.1.cheat" = [0.1]\n', text)


def test_a_file_without_the_table_is_no_sweep_and_one_with_it_is_also_a_scenario() -> None:
    with pytest.raises(ScenarioError, match="no \\[sweep\\] table"):
        Plan(Source("s.toml", TINY))
    text = TINY + '[[adversary]]\nbehaviour = "lazy"\nfraction = 0.4\n'
    assert base(Source("s.toml", SWEPT)) == base(Source("s.toml", text))
    with pytest.raises(ScenarioError, match=r"s.toml:10: unknown key 'raet'"):
        base(Source("s.toml", SWEPT.replace("rate =", "raet =")))


def test_the_pages_examples_are_sizes_and_a_sweep() -> None:
    page = (ROOT / "docs" / "simnet.md").read_text()
    scenario, *tables = (block.split("```")[0] for block in page.split("```toml\n")[1:])
    (sweep,) = (block for block in tables if "[sweep]" in block)
    (sizes,) = (block for block in tables if "[small]" in block)
    source = Source("page", f"{scenario}\n{sizes}\n{sweep}")
    assert len(Plan(source)) == 3 * 2 * 20
    assert base(source, small=True).population.nodes == 8


_SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.booleans(),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _VALUES, max_size=4))
def test_what_is_written_is_read_as_it_was(tables: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(Source("s.toml", "# why?\n"), tables)) == tables


def test_a_scenario_is_read_at_another_level_and_on_a_measured_machine() -> None:
    source = Source("mine.toml", TINY.replace('name = "tiny"', 'name = "tiny"\ntick = "2 ms"'))
    assert base(at_level(source, "live")).level == "live"
    assert base(at_level(source, "fast")).tick == 2_000
    machine = '[network]\nlatency = "3 ms"\n[profile.cpu-thread]\nslots = 2\n'
    found = base(on_machine(source, Source("machine.toml", machine)))
    assert found.network.latency == "3000"
    assert found.profiles["cpu-thread"].slots == 2
    assert found.population.nodes == base(source).population.nodes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[workload]\nclients = 9\n", "machine.toml:1: unknown table of a machine 'workload'"),
        ("[network]\n[networks]\nloss = 0.5\n", "machine.toml:2: .* did you mean 'network'"),
    ],
)
def test_a_machine_says_nothing_else(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        on_machine(Source("mine.toml", TINY), Source("machine.toml", text))
