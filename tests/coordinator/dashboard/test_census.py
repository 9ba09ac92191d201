"""A census of many nodes lets the loop do its other work, and is not taken for every asker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node
from assay_coordinator.core.standing import fresh_row
from assay_coordinator.dashboard.census import FRESH_SECONDS, SLICE, CensusTaker
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
        assert turns - before >= NODES // SLICE
        nursery.cancel_scope.cancel()
    assert len(census.nodes) == NODES


async def test_it_counts_what_is_there() -> None:
    census = await CensusTaker(subject_of(crowd(1_000))).census()
    assert census.states["convicted"] == 100
    assert census.states["probation"] == census.present == 500
    assert census.states["away"] == 400
    assert (census.slots, census.free_slots) == (2_000, 1_000)
    supply = census.supply[MODEL]
    assert (supply.nodes, supply.slots, supply.decode_rates[-1]) == (500, 2_000, 4_000)
    ranks = [node.rank for node in census.nodes]
    assert ranks == sorted(ranks)
    assert all(node.present for node in census.nodes[:500])


async def test_a_node_that_changes_meanwhile_is_seen_before_or_after() -> None:
    core = crowd(4 * SLICE)
    nodes = list(core.registry.nodes.values())
    taker, census = CensusTaker(subject_of(core)), None

    async def take() -> None:
        nonlocal census
        census = await taker.census()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        for node in nodes:
            node.offers, node.lease_until = {}, 0
    assert census is not None
    for seen in census.nodes:
        assert bool(seen.offers) == seen.present


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
