"""What is served: adapters beside their model's file, what is left out, what prevents a start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from assay_node.config import Settings
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.engines import open_engines
from assay_node.loading import Prepared
from assay_node.serving import Candidate, Stock, find_candidates, stock
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from card_cases import small_card

PLAIN = small_card(name="plain", digest=b"p" * 32)
STYLED = small_card(name="styled", digest=PLAIN.digest, adapter=b"a" * 32)
TERSE = small_card(name="terse", digest=PLAIN.digest, adapter=b"b" * 32)
OTHER = small_card(name="other", digest=b"o" * 32)


@dataclass
class Shop:
    """Cards and files; what is prepared, and with what engines are opened."""

    folder: Path
    broken: set[bytes] = field(default_factory=set)
    unloadable: set[bytes] = field(default_factory=set)
    opened: list[tuple[bytes, tuple[bytes, ...]]] = field(default_factory=list)

    def prepare(self, settings: Settings, card: ModelCard | None) -> Prepared:
        assert card is not None
        if card.model in self.broken:
            raise AssayError("model_corrupt")
        path = self.folder / f"{card.name}.gguf"
        path.write_bytes(bytes(100))
        return Prepared(card, path)

    @asynccontextmanager
    async def engine(self, settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
        adapters = tuple(sha256 for _, sha256 in prepared.adapters)
        if self.unloadable & {prepared.digest, *adapters}:
            raise AssayError("engine_failed")
        self.opened.append((prepared.digest, adapters))
        async with open_scripted_engine(Script(model=prepared.digest)) as engine:
            yield engine

    async def candidates(self, *cards: ModelCard) -> list[Candidate]:
        names = tuple(card.name for card in cards)
        settings = Settings(models=names, data_dir=str(self.folder), fit="off")
        return await find_candidates(settings, cards, self.prepare, lambda *_: 1_000)

    async def stock(self, *cards: ModelCard, budget: int = 10_000) -> Stock:
        found = await self.candidates(*cards)
        options: dict[str, Any] = {"prepare": self.prepare, "factory": self.engine}
        async with open_engines() as engines:
            return await stock(
                engines, found, budget_bytes=budget, directory=self.folder, **options
            )


async def test_adapters_are_loaded_with_their_models_file_and_offered_as_models(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path)
    found = await shop.candidates(STYLED, PLAIN, TERSE, OTHER)
    assert [(one.card, one.need_bytes) for one in found] == [(PLAIN, 1_200), (OTHER, 1_000)]
    names = [path.name for path in found[0].files]
    assert names == ["plain.gguf", "styled.gguf", "terse.gguf"]
    stocked = await shop.stock(STYLED, PLAIN, TERSE, OTHER)
    assert [one.model for one in stocked.served] == [
        PLAIN.model,
        STYLED.model,
        TERSE.model,
        OTHER.model,
    ]
    adapters = {one.model: (one.engine, one.adapter) for one in stocked.served}
    assert adapters[TERSE.model] == (PLAIN.digest, TERSE.adapter)
    assert adapters[PLAIN.model] == (PLAIN.digest, None)
    assert stocked.resident == (OTHER.model, PLAIN.model)
    own = (b"a" * 32, b"b" * 32)
    assert shop.opened == [(OTHER.digest, ()), (PLAIN.digest, own)], "one engine for three models"


async def test_an_adapter_without_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssayError) as caught:
        await Shop(tmp_path).candidates(STYLED, OTHER)
    assert caught.value.code == "config_invalid"
    assert "styled: serve the model it is for" in caught.value.message


async def test_a_broken_adapter_is_left_out_and_its_model_served(tmp_path: Path) -> None:
    shop = Shop(tmp_path, broken={STYLED.model})
    stocked = await shop.stock(PLAIN, STYLED, TERSE)
    assert [one.model for one in stocked.served] == [PLAIN.model, TERSE.model]


async def test_where_adapters_cannot_be_loaded_the_model_is_served_without(tmp_path: Path) -> None:
    shop = Shop(tmp_path, unloadable={b"a" * 32})
    stocked = await shop.stock(PLAIN, STYLED)
    assert [one.model for one in stocked.served] == [PLAIN.model]
    assert shop.opened == [(PLAIN.digest, ())]


async def test_a_broken_model_takes_its_adapters_along_and_nothing_else(tmp_path: Path) -> None:
    shop = Shop(tmp_path, broken={PLAIN.model})
    stocked = await shop.stock(PLAIN, STYLED, OTHER)
    assert [one.model for one in stocked.served] == [OTHER.model]
    shop.unloadable = {OTHER.digest}
    with pytest.raises(AssayError) as caught:
        await shop.stock(PLAIN, STYLED, OTHER)
    assert caught.value.code == "engine_failed"


async def test_the_models_of_one_budget_make_room_for_each_other(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    third = replace(OTHER, name="third", digest=b"t" * 32)
    stocked = await shop.stock(PLAIN, OTHER, third, budget=2_500)
    assert stocked.resident == (OTHER.model, PLAIN.model), "the first ones stay"
    stocked = await shop.stock(PLAIN, OTHER, budget=900)
    assert stocked.resident == (PLAIN.model,)
    assert {one.need_bytes for one in stocked.served} == {900}, "one alone may have it all"


async def test_two_cards_of_one_model_are_refused_and_two_adapters_of_it_are_not(
    tmp_path: Path,
) -> None:
    again = replace(STYLED, name="again")
    with pytest.raises(AssayError) as caught:
        await Shop(tmp_path).candidates(PLAIN, STYLED, again)
    assert caught.value.code == "config_invalid"
    assert len((await Shop(tmp_path).candidates(PLAIN, STYLED, TERSE))[0].adapted) == 2
