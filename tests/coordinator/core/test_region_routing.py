"""Jobs that ask for a region: only to nodes that say they are there, by their owners' word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol import messages as m
from assay_protocol.regions import is_region, lies_in
from coordinator.core.coordinator_world import (
    POLICY,
    Issued,
    ScriptedNode,
    World,
    identity,
    node,
)

CLIENT = identity(50)
WORDS = st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True)
REGIONS = st.lists(WORDS, min_size=1, max_size=4).map("-".join)


def world_of(**regions: str | None) -> tuple[World, dict[str, ScriptedNode]]:
    """Nodes by name, each with the region it tells."""
    world = World(POLICY, ())
    world.grant(CLIENT.public_key)
    nodes = {name: node(10 + index) for index, name in enumerate(regions)}
    for name, region in regions.items():
        assert isinstance(world.join(nodes[name], region=region), m.Registered)
    return world, nodes


def issued(world: World, **asked: Any) -> Issued:
    held = world.ask(CLIENT, **asked)
    assert isinstance(held, Issued), held
    return held


def test_a_job_goes_where_it_asks_to_go() -> None:
    world, nodes = world_of(berlin="eu-de-ber", paris="eu-fr", nowhere=None, texas="na-us-tx")
    for wanted, there in ((("eu",), {"berlin", "paris"}), (("na-us", "eu-fr"), {"texas", "paris"})):
        held = [issued(world, regions=wanted) for _ in range(16)]
        assert {one.ticket.node for one in held} == {nodes[name].key for name in there}
    anywhere = {one.ticket.node for one in (issued(world) for _ in range(24))}
    assert nodes["nowhere"].key in anywhere


def test_where_nobody_is_it_is_refused_and_where_all_are_busy_it_waits() -> None:
    world, nodes = world_of(berlin="eu-de", texas="na-us")
    refused = world.ask(CLIENT, regions=("af",))
    assert isinstance(refused, m.Error)
    assert refused.code == "region_unserved"
    full = world.ask(CLIENT, regions=("eu",), only=(nodes["texas"].key,))
    assert isinstance(full, m.Error)
    assert full.code == "no_capacity"


@pytest.mark.parametrize("region", ["EU", "eu-", "-eu", "eu de", "a-b-c-d-e", "x" * 13, "é"])
def test_what_names_no_region_is_refused(region: str) -> None:
    world, _ = world_of(berlin="eu-de")
    told = world.join(node(30), region=region)
    asked = world.ask(CLIENT, regions=(region,))
    for answer in (told, asked):
        assert isinstance(answer, m.Error)
        assert answer.code == "malformed"


@given(REGIONS, REGIONS)
def test_a_region_lies_in_itself_and_in_what_it_begins_with(one: str, other: str) -> None:
    assert is_region(one)
    assert lies_in(one, (one,))
    words, most = one.split("-"), other.split("-")
    assert lies_in(one, (other,)) == (words[: len(most)] == most)
    assert not lies_in(None, (one,))
    assert not lies_in(one, ())
