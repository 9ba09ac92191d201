"""The coordinator's follower tells what changed on the chain, once, and waits where it is down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_contracts.records import Block
from assay_coordinator.adapters.governance import RULES_SECONDS, RulesFollower
from assay_coordinator.core.events import RulesRead, SplitsDecided
from assay_protocol.errors import AssayError
from assay_protocol.messages import Share
from assay_protocol.splits import PUBLISHER
from contracts.registry_chain import RegistryChain, registry_chain

MODEL = b"m" * 32
SHARE = Share(account=b"a" * 32, role=PUBLISHER, bps=500)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RegistryChain]:
    with registry_chain(tmp_path) as made:
        yield made


class Told:
    """What the core would get."""

    def __init__(self, world: RegistryChain, chain: Any = None) -> None:
        self.events: list[RulesRead | SplitsDecided] = []
        self.follower = RulesFollower(
            chain or world.chain, world.registry, self.events.append, lambda: None
        )

    async def look(self) -> list[RulesRead | SplitsDecided]:
        before = len(self.events)
        await self.follower.look()
        return self.events[before:]


async def test_changes_are_told_once(world: RegistryChain) -> None:
    told = Told(world)
    [first, splits] = await told.look()
    assert isinstance(first, RulesRead)
    assert (first.rules.version, splits) == (0, SplitsDecided(()))
    assert await told.look() == []
    world.set_model(MODEL, False, SHARE)
    [changed, splits] = await told.look()
    assert isinstance(changed, RulesRead)
    assert isinstance(splits, SplitsDecided)
    assert changed.rules.models[0].allowed is False
    assert splits.splits[0].shares == (SHARE,)
    assert await told.look() == []


class Unfinal:
    """A chain whose newest blocks are not final yet."""

    def __init__(self, world: RegistryChain, final: Block) -> None:
        self._world, self.final = world, final

    async def finalized(self) -> Block:
        return self.final

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.chain, name)


async def test_only_what_is_final_counts(world: RegistryChain) -> None:
    chain = Unfinal(world, world.local.head_block())
    told = Told(world, chain)
    await told.look()
    world.set_open(False)
    assert await told.look() == []
    chain.final = world.local.head_block()
    assert len(await told.look()) == 2


async def test_a_chain_that_is_down_is_asked_again(
    world: RegistryChain, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, tries = Told(world), list[float]()

    async def look() -> None:
        tries.append(trio.current_time())
        raise AssayError("chain_unavailable")

    monkeypatch.setattr(told.follower, "look", look)
    with trio.move_on_after(10 * RULES_SECONDS):
        await told.follower.run()
    assert len(tries) == 10
