"""One attempt, asked for without the machine that decides: over the fake network, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.gateway.admission import ANYBODY
from assay.gateway.attempts import Asker, Attempt, Listener, Wanted
from assay.gateway.choice import Fresh
from assay.gateway.generation import Asked, Generation
from assay.gateway.refusal import Refusal
from assay.gateway.upstream import Passage
from assay.routing.core.events import Start
from assay.routing.core.plans import Target
from sdk.gateway_world import NODES, World, gateway

WANTED = Wanted(
    Asked("named", 8, prompts=("Hello",)),
    ANYBODY,
    Passage("/v1/completions", {}, 8),
    False,
    "req_1",
)


class Heard:
    """Listens, to the attempts that it was told to."""

    def __init__(self, *, hear: bool) -> None:
        self.hear, self.pieces, self.asked = hear, 0, 0

    def asker(self, world: World) -> Asker:
        return Asker(world.service, WANTED, Listener(self.fresh, self.passed), self.is_heard)

    def is_heard(self, attempt: Attempt) -> bool:
        self.asked += 1
        return self.hear

    async def fresh(self, generation: Generation, fresh: Fresh) -> None:
        self.pieces += 1

    async def passed(self, chunk: dict[str, Any]) -> None:
        raise AssertionError("no upstream is asked")


def attempt(model: str = "toy") -> Attempt:
    return Attempt(Start(0, Target(model), "first"), at=0)


@pytest.mark.parametrize("hear", [True, False])
async def test_what_is_not_heard_is_drawn_and_paid_all_the_same(
    autojump_clock: object, tmp_path: Path, hear: bool
) -> None:
    heard, one = Heard(hear=hear), attempt()
    async with gateway(tmp_path) as world:
        await heard.asker(world).ask(one)
        assert one.receipts
        assert world.service.receipt(ANYBODY, one.receipts[0]).credit == one.credit > 0
    assert (one.counts, one.code, one.answered) == ((5, 8), "", True)
    assert one.choices[0].completion.tokens
    assert heard.asked > 0
    assert heard.pieces == (heard.asked if hear else 0)


async def test_a_hedge_keeps_off_the_nodes_it_is_told(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        one = attempt()
        await Heard(hear=True).asker(world).ask(one, avoid=(NODES[0].public_key,))
        assert one.choices[0].completion.nodes == (NODES[1].public_key,)


async def test_a_model_that_nobody_has(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        one = attempt("gone")
        with pytest.raises(Refusal) as refused:
            await Heard(hear=True).asker(world).ask(one)
    assert refused.value.code == "model_not_found"
    assert (one.answered, one.credit, one.receipts, one.price) == (False, 0, [], 0)
