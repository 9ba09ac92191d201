"""Scenarios as files: what is written reads back as the same, to the last bit and in order."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.policy import Policy
from assay_simnet.fault_kinds import FAULTS
from assay_simnet.grid import base
from assay_simnet.machine_costs import MACHINES
from assay_simnet.population import PROFILES, REGIONS
from assay_simnet.quantities import (
    MONEY_MAX,
    TIME_MAX_US,
    rate_per_s,
    rate_text,
    size_bytes,
    size_text,
    time_text,
    time_us,
)
from assay_simnet.scenario import (
    INVARIANTS,
    LISTS,
    SHIPPED,
    Adversary,
    Fault,
    Scenario,
    read,
    source_of,
)
from assay_simnet.scenario_text import text_of
from assay_simnet.schema import Source
from simnet.scenario_texts import scenario

SHARES = st.floats(0.0, 1.0)
TIMES = st.integers(0, 10**13)
WEIGHTS = st.floats(0.001, 1e9)


def _again(one: Scenario) -> Scenario:
    return read(Source("again.toml", text_of(one)))


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_a_shipped_scenario_reads_back(name: str) -> None:
    one = base(source_of(name))
    assert _again(one) == one
    assert _again(one).digest == one.digest


@given(st.integers(0, 1 << 50))
def test_times_and_sizes_read_back(number: int) -> None:
    assert size_bytes(size_text(number)) == number
    if number <= TIME_MAX_US:
        assert time_us(time_text(number)) == number


@given(st.floats(0, 1e12))
def test_rates_read_back(rate: float) -> None:
    assert rate_per_s(rate_text(rate)) == rate


ADVERSARIES = st.builds(
    Adversary,
    behaviour=st.sampled_from(("lazy", "hoarder", "traitor")),
    count=st.integers(1, 2),
    cheat=SHARES,
    after=st.integers(0, 1 << 30),
    verified=st.integers(0, 1 << 30),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    at, lasts = draw(st.integers(0, 10**7)), draw(st.integers(1, 10**7))
    return Fault(
        kind=draw(st.sampled_from([kind for kind in FAULTS if kind != "partition"])),
        at=at,
        for_=lasts,
        every=draw(st.sampled_from([0, lasts + 1])),
        fraction=draw(SHARES),
        regions=tuple(draw(st.lists(st.sampled_from(REGIONS), max_size=2))),
        one_way=draw(st.booleans()),
        by=draw(TIMES),
        ppm=draw(st.integers(0, 1_000_000)),
        depth=draw(st.integers(1, 1_000)),
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    base = scenario()
    profiles = st.dictionaries(st.sampled_from(sorted(PROFILES)), WEIGHTS, min_size=1)
    regions = st.dictionaries(st.sampled_from(REGIONS), WEIGHTS, min_size=1)
    seen = sorted(item.name for item in fields(Policy) if type(getattr(Policy(), item.name)) is int)
    policy: dict[str, Any] = {
        name: draw(st.integers(0, 10_000 if "_bps" in name else 1_000))
        for name in draw(st.lists(st.sampled_from(seen), unique=True, max_size=5))
    }
    changed = replace(PROFILES["apple-m1-8g"], slots=draw(st.integers(1, 4096)), memory_gb=500.5)
    return replace(
        base,
        name=draw(TEXTS),
        seed=draw(st.integers(0, 1 << 60)),
        heal=draw(TIMES),
        duration=60_000_000,
        slo_ttft=draw(TIMES),
        population=replace(
            base.population,
            profiles=draw(profiles),
            regions=draw(regions),
            established=draw(SHARES),
        ),
        network=replace(
            base.network,
            latency=draw(st.sampled_from(["world-5", "0", "12000", "17"])),
            jitter=draw(TIMES),
            loss=draw(SHARES),
            up=draw(st.floats(0, 1e12)),
        ),
        workload=replace(base.workload, rate=draw(st.floats(1e-9, 1e9)), think=draw(TIMES)),
        chain=replace(base.chain, block=draw(st.integers(1, 10**9)), confirmations=1_000),
        model=replace(base.model, size=draw(st.integers(0, 7 * 10**9))),
        checks=replace(
            base.checks,
            of=tuple(draw(st.lists(st.sampled_from(INVARIANTS)))),
            bytes=draw(st.booleans()),
        ),
        adversaries=tuple(draw(st.lists(ADVERSARIES, max_size=3))),
        faults=tuple(draw(st.lists(faults(), max_size=3))),
        policy=replace(base.policy, **policy),
        profiles={**PROFILES, "apple-m1-8g": changed},
        machines={**MACHINES, "a40-48g": replace(MACHINES["a40-48g"], price=draw(WEIGHTS))},
        economy=replace(
            base.economy,
            upkeep=draw(st.integers(0, MONEY_MAX)),
            growth=draw(st.floats(-0.99, 100.0)),
            power=dict.fromkeys(REGIONS, draw(st.integers(0, MONEY_MAX))),
        ),
        question=draw(st.sampled_from(["", "What?", 'a "b" # c = [d]'])),
    )


@given(scenarios())
def test_any_scenario_reads_back(one: Scenario) -> None:
    assert _again(one) == one
    assert text_of(_again(one)) == text_of(one)


def test_no_part_of_a_scenario_is_forgotten() -> None:
    """A new table that `text_of` would pass over in silence."""
    known = {"policy", "profiles", "machines", "question", *(name for name, _ in LISTS.values())}
    for item in fields(Scenario):
        read_here = "read" in item.metadata
        assert read_here or item.name in known or is_dataclass(getattr(scenario(), item.name))


def test_the_order_of_shares_is_kept() -> None:
    other = scenario(
        "[population.classes]\nfloat = 1\nplain = 1\nflash = 1\n".replace("1\n", "1.0\n")
    )
    assert other.population.classes == scenario().population.classes
    assert list(_again(other).population.classes) == ["float", "plain", "flash"]


def test_it_is_said_what_the_file_is() -> None:
    text = text_of(scenario(), "Shrunk.")
    assert text.splitlines()[:3] == ["# Does it run?", "# Shrunk.", "schema = 1"]
    assert "heal" not in text
