"""A census of many nodes lets the loop do its other work, and is not taken for every asker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node
from assay_coordinator.core.standing import fresh_row
from assay_coordinator.dashboard.census import FRESH_SECONDS, SLICE, CensusTaker, found
from assay_coordinator.dashboard.subject import Chain, Subject
from assay_protocol.messages import Offer
from assay_protocol.signing import Identity

MODEL = b"\x03" * 32
NODES = 20 * SLICE


def crowd(size: int) -> Coordinator:
    """A core with so many nodes: every other one is here, every tenth is banned."""
    core = Coordinator(Policy(), {}, Identity(b"\x01" * 32), bytes(32))
    for number in range(size):
        key = number.to_bytes(32)
        node = Node(replace(fresh_row(key, key, 0), jobs=number % 7))
        if number % 2:
            node.lease_until, node.free_slots = 100, 2
            offer = Offer(
                model=MODEL,
                class_id="c",
                slots=4,
                context=9,
                prefill_rate=1,
                decode_rate=1_000 * (number % 5),
            )
            node.offers = {MODEL: offer}
        if number % 10 == 0:
            node.row = replace(node.row, state="convicted")
        core.registry.nodes[key] = node
    return core


def everybody(node: Node) -> bool:
    return True


def subject_of(core: Coordinator) -> Subject:
    return Subject(
        core=lambda: core,
        engine=None,  # type: ignore[arg-type]  # no table is asked
        clock=lambda: 50,
        faults=list,
        bundle=None,  # type: ignore[arg-type]
        key=bytes(32),
        chain=Chain(chain_id=1, ledger=bytes(20), local=True),
    )


async def test_the_loop_turns_between_slices() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    taker = CensusTaker(subject_of(crowd(NODES)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        await trio.lowlevel.checkpoint()
        before = turns
        census = await taker.census()
        assert turns - before >= NODES // SLICE - 1  # who is first in a turn is drawn
        nursery.cancel_scope.cancel()
    assert len(census.ranks) == NODES


async def test_it_counts_what_is_there() -> None:
    core = crowd(1_000)
    census = await CensusTaker(subject_of(core)).census()
    assert census.states["convicted"] == 100
    assert census.states["probation"] == census.present == 500
    assert census.states["away"] == 400
    assert (census.slots, census.free_slots) == (2_000, 1_000)
    supply = census.supply[MODEL]
    assert (supply.nodes, supply.slots) == (500, 2_000)
    assert (supply.decode_rate_min, supply.decode_rate_max) == (0, 4_000)
    assert supply.decode_rate_sum == 500 * 2_000
    assert census.ranks == sorted(census.ranks)
    nodes = await found(core, census.ranks, 0, everybody, NODES)
    assert [node.present(50) for node in nodes] == [True] * 500 + [False] * 500
    jobs = [node.row.jobs for node in nodes[:500]]
    assert jobs == sorted(jobs, reverse=True)
    assert len({node.key for node in nodes}) == 1_000


async def test_the_latest_that_lost_their_standing_are_told() -> None:
    core = crowd(100)
    for number, node in enumerate(core.registry.nodes.values()):
        node.row = replace(node.row, since=10**15 + number)
    closed = (await CensusTaker(subject_of(core)).census()).closed
    assert [int.from_bytes(key) for key in closed] == [90, 80, 70, 60, 50, 40, 30, 20]


async def test_walking_a_list_lets_the_loop_turn() -> None:
    core = crowd(NODES)
    census = await CensusTaker(subject_of(core)).census()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        await trio.lowlevel.checkpoint()
        before = turns
        assert len(await found(core, census.ranks, 0, everybody, NODES + 1)) == NODES
        assert turns - before >= NODES // SLICE - 1  # who is first in a turn is drawn
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_gone_is_left_out() -> None:
    core = crowd(10)
    census = await CensusTaker(subject_of(core)).census()
    del core.registry.nodes[(3).to_bytes(32)]
    assert len(await found(core, census.ranks, 0, everybody, NODES)) == 9


async def test_many_askers_share_one(autojump_clock: Any) -> None:
    looks = 0
    core = crowd(10)
    subject = subject_of(core)

    def counted() -> Coordinator:
        nonlocal looks
        looks += 1
        return core

    taker = CensusTaker(replace(subject, core=counted))
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(taker.census)
    assert looks == 1
    await trio.sleep(FRESH_SECONDS)
    await taker.census()
    assert looks == 2
