"""What the registry says, read from a chain, page by page; and rules held against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assay_contracts.govern import model_registry
from assay_contracts.govern.model_registry import compare_rules, read_entries, read_registry
from assay_contracts.govern.proposals import Entry
from assay_protocol.errors import AssayError
from assay_protocol.messages import ModelRule, ModelSplit, Share
from assay_protocol.splits import DATA, PUBLISHER
from contracts.registry_chain import RegistryChain, registry_chain

MODEL, OTHER = b"m" * 32, b"o" * 32
SHARES = (
    Share(account=b"a" * 32, role=PUBLISHER, bps=500),
    Share(account=b"b" * 32, role=DATA, bps=1),
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RegistryChain]:
    with registry_chain(tmp_path) as made:
        yield made


async def test_everything_it_says_is_read_at_one_block(world: RegistryChain) -> None:
    world.set_model(MODEL, True, *SHARES)
    world.set_model(OTHER, False)
    world.set_moderation(b"h" * 32)
    at = world.local.head_block().number
    world.set_open(False)  # later
    rules, splits = await read_registry(world.chain, world.registry, at)
    assert rules.models == (
        ModelRule(model=MODEL, allowed=True),
        ModelRule(model=OTHER, allowed=False),
    )
    assert (rules.version, rules.open, rules.moderation) == (3, True, b"h" * 32)
    assert (rules.chain, rules.registry, rules.block) == (
        world.local.chain_id,
        world.registry,
        at,
    )
    assert splits == (ModelSplit(model=MODEL, shares=SHARES),)
    later, _ = await read_registry(world.chain, world.registry, at + 1)
    assert (later.version, later.open) == (4, False)


async def test_a_long_list_comes_in_pages(
    world: RegistryChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_registry, "PAGE_MODELS", 2)
    models = [bytes([n]) * 32 for n in range(1, 6)]
    for model in models:
        world.set_model(model, True)
    found = await read_entries(world.chain, world.registry, world.local.head_block().number)
    assert found == {model: Entry(True) for model in models}


async def test_rules_are_held_against_the_contract(world: RegistryChain) -> None:
    world.set_model(MODEL, False)
    rules, _ = await read_registry(world.chain, world.registry, world.local.head_block().number)
    world.set_open(False)
    await compare_rules(world.chain, rules)  # of their own block, whatever came later
    for wrong in (
        replace(rules, open=False),
        replace(rules, models=()),
        replace(rules, models=(ModelRule(model=MODEL, allowed=True),)),
        replace(rules, version=2),
        replace(rules, moderation=b"h" * 32),
        replace(rules, chain=1),
        replace(rules, registry=bytes(20)),
    ):
        with pytest.raises(AssayError, match="rules_invalid"):
            await compare_rules(world.chain, wrong)
