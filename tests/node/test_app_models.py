"""A whole node with several models, in memory: real core, runtime and network, scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_node.app import run_node
from assay_node.config import Settings
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.loading import Prepared
from assay_node.status import read_status
from assay_protocol.cards import ModelCard, encode_card
from assay_protocol.errors import AssayError, RemoteError
from assay_protocol.messages import Heartbeat, Register
from card_cases import small_card
from node.app_world import QUICK, World, open_world

SWIFT = replace(QUICK, residence_us=0, rest_us=300_000)
GIB = 1 << 30


@dataclass
class Machine:
    """What a test sees of the node's engines: which are loaded, and which cannot be."""

    folder: Path
    loaded: list[bytes] = field(default_factory=list)
    loads: int = 0
    broken: set[bytes] = field(default_factory=set)

    def cards(self, count: int) -> list[ModelCard]:
        return [small_card(name=f"model-{n}", digest=bytes([n]) * 32) for n in range(count)]

    def settings(self, world: World, cards: list[ModelCard], **changes: Any) -> Settings:
        paths = [self.folder / f"{card.name}.card" for card in cards]
        for path, card in zip(paths, cards, strict=True):
            path.write_bytes(encode_card(card))
        return world.settings(engine="llama", models=tuple(map(str, paths)), **changes)

    def prepare(self, settings: Settings, card: ModelCard | None) -> Prepared:
        assert settings.models == ()
        assert card is not None
        if card.digest in self.broken:
            raise AssayError("model_corrupt")
        return Prepared(card, None)

    @asynccontextmanager
    async def engine(self, settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
        model = prepared.digest
        script = Script(model=model, end_bias=-100.0, seconds_per_token=0.0005)
        async with open_scripted_engine(script, slots=settings.slots, context=256) as engine:
            self.loaded.append(model)
            self.loads += 1
            try:
                yield engine
            finally:
                self.loaded.remove(model)

    def options(self, need_gib: int = 1, **more: Any) -> dict[str, Any]:
        def measure(_settings: Settings, _prepared: Prepared) -> int:
            return need_gib * GIB

        own = {"prepare": self.prepare, "engine_factory": self.engine, "measure": measure}
        return own | {"parameters": SWIFT} | more


async def tokens_of(world: World, node: Any, number: int, card: ModelCard) -> list[int]:
    ticket = world.ticket(node.register, number, model=card.digest, max_tokens=20)
    return list((await world.run_job(ticket, node.register)).tokens)


async def test_jobs_for_both_models_under_a_budget_for_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    a, b = cards = machine.cards(2)
    async with open_world(tmp_path) as world:
        settings = machine.settings(world, cards, memory_gib=1)
        async with world.node(settings=settings, **machine.options()) as node:
            assert [one.model for one in node.register.offers] == [a.digest, b.digest]
            assert machine.loaded == [a.digest], "the first one stays"
            assert machine.loads == 2
            first = [await tokens_of(world, node, 1, a), await tokens_of(world, node, 2, b)]
            assert machine.loaded == [b.digest]
            again = [await tokens_of(world, node, 3, a), await tokens_of(world, node, 4, b)]
            assert machine.loads == 5
            assert first[0] != first[1]
            assert len(again[0]) == 20
            beat = await world.coordinator.hear(Heartbeat)
            assert beat.models is not None
            assert {one.model for one in beat.models} == {a.digest, b.digest}
        assert node.code == 0
    states = {one["model"]: one["state"] for one in read_status(tmp_path)["models"]}
    assert states == {a.digest.hex(): "absent", b.digest.hex(): "resident"}
    assert not machine.loaded


async def test_where_both_fit_both_stay_loaded_and_answer_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    a, b = cards = machine.cards(2)
    async with open_world(tmp_path) as world:
        settings = machine.settings(world, cards, memory_gib=2)
        async with world.node(settings=settings, **machine.options()) as node:
            async with trio.open_nursery() as nursery:
                for number, card in enumerate((a, b, a, b)):
                    nursery.start_soon(tokens_of, world, node, number, card)
            assert sorted(machine.loaded) == [a.digest, b.digest]
            assert machine.loads == 2
        assert node.code == 0


async def test_a_broken_model_is_left_out_at_the_start(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    a, b = cards = machine.cards(2)
    machine.broken = {a.digest}
    async with open_world(tmp_path) as world:
        settings = machine.settings(world, cards)
        async with world.node(settings=settings, **machine.options(need_gib=0)) as node:
            assert [one.model for one in node.register.offers] == [b.digest]
            assert len(await tokens_of(world, node, 1, b)) == 20
        machine.broken = {a.digest, b.digest}
        with pytest.raises(AssayError) as caught:
            await run_node(settings, host_factory=world.host, **machine.options())
        assert caught.value.code == "model_corrupt"


async def test_a_model_that_breaks_later_is_withdrawn_and_the_other_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    a, b = cards = machine.cards(2)
    async with open_world(tmp_path) as world:
        settings = machine.settings(world, cards, memory_gib=1)
        async with world.node(settings=settings, **machine.options()) as node:
            machine.broken = {b.digest}
            with pytest.raises(RemoteError) as caught:
                await tokens_of(world, node, 1, b)
            assert caught.value.code == "engine_failed"
            withdrawn = await world.coordinator.hear(Register, 2)
            assert [one.model for one in withdrawn.offers] == [a.digest]
            assert len(await tokens_of(world, node, 2, a)) == 20
            machine.broken = set()
            back = await world.coordinator.hear(Register, 3)
            assert len(back.offers) == 2
            assert len(await tokens_of(world, node, 3, b)) == 20
        assert node.code == 0


async def test_two_cards_of_one_model_are_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    card, other = machine.cards(2)
    async with open_world(tmp_path) as world:
        settings = machine.settings(world, [card, replace(other, digest=card.digest)])
        with pytest.raises(AssayError) as caught:
            await run_node(settings, host_factory=world.host, **machine.options())
        assert caught.value.code == "config_invalid"
