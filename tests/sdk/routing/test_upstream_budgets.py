"""What a key may spend at an upstream: reserved at the most, settled by counts, never exceeded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from asgi_caller import Answer
from assay.gateway.api_keys import ApiKey, ApiKeys, add_key
from assay.gateway.refusal import Refusal
from assay.gateway.spending import Spending, read_spent_upstream
from assay.gateway.upstream import Passage
from assay.gateway.upstream_answers import Most, UpstreamAnswer
from assay.gateway.upstream_budget import UpstreamBudget
from assay.routing.core.plans import Terms
from assay_protocol.errors import AssayError
from sdk.gateway_world import World, gateway
from sdk.routing.upstream_gateway import ASK, CHAT, PLAN, routes
from sdk.routing.upstream_server import Reply, scripted_upstream, whole

ONLY = replace(PLAN, network=())  # nobody but the upstream has the model
COSTS = 7 + 3 * 5  # what `whole()` counts
MOST = len(json.dumps(ASK)) + 3 * 8


def most_of(world: World) -> int:
    return world.service.router.upstreams["afar"].most(Passage(CHAT, ASK, 8)).price


async def ask(world: World, secret: str) -> Answer:
    return await world.post(CHAT, ASK, headers={"authorization": f"Bearer {secret}"})


async def test_a_key_spends_its_own_budget_and_no_other_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    alice = add_key(keys, "alice", upstream_budgets={"afar": MOST + COSTS})
    bob = add_key(keys, "bob")
    async with scripted_upstream(whole()) as script:
        known = routes(script.url, ONLY)
        async with gateway(tmp_path, routes=known, keys=str(keys)) as world:
            assert most_of(world) == MOST
            found = [(await ask(world, alice)) for _ in range(3)]
            assert [one.status_code for one in found] == [200, 200, 402]
            error = found[2].json()["error"]
            assert error["code"] == "insufficient_quota"
            assert f"{MOST - COSTS} micro-units of USD left" in error["message"]
            assert str(MOST) in error["message"]
            assert found[2].headers["x-should-retry"] == "false"
            assert (await ask(world, bob)).status_code == 200
            told = [(one.code, one.barred) for one in world.service.router.decisions]
            assert told[2] == ("insufficient_quota", "key_budget_spent")
            assert read_spent_upstream(tmp_path / "gateway.sqlite") == {
                ("alice", "afar"): 2 * COSTS,
                ("bob", "afar"): COSTS,
            }, "on disk before anything is closed"
    assert len(script.bodies) == 3


async def test_a_budget_that_is_spent_bars_the_way_out_of_the_network(tmp_path: Path) -> None:
    """The caller is told of the network's failure, the log of both."""
    keys = tmp_path / "keys"
    alice = add_key(keys, "alice", upstream_budgets={"afar": 1})
    async with scripted_upstream(whole()) as script:
        async with gateway(tmp_path, routes=routes(script.url), keys=str(keys)) as world:
            answer = await ask(world, alice)
            (decision,) = world.service.router.decisions
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert decision.barred == "key_budget_spent"
    assert script.bodies == []


@pytest.mark.parametrize("own", [None, 0, 10_000])
async def test_the_upstreams_key_budget_is_of_keys_without_their_own(
    tmp_path: Path, own: int | None
) -> None:
    keys = tmp_path / "keys"
    alice = add_key(keys, "alice", upstream_budgets={} if own is None else {"afar": own})
    async with scripted_upstream(whole()) as script:
        known = routes(script.url, ONLY, key_budget=1)
        async with gateway(tmp_path, routes=known, keys=str(keys)) as world:
            answer = await ask(world, alice)
    assert answer.status_code == (402 if own is None else 200)


async def test_what_a_key_spent_outlives_a_gateway_that_crashed(tmp_path: Path) -> None:
    """No totals were written: usage.sqlite is empty, as after a crash within its second."""
    keys = tmp_path / "keys"
    alice = add_key(keys, "alice", upstream_budgets={"afar": 150})
    statuses = []
    async with scripted_upstream(whole()) as script:
        for _ in range(4):
            known = routes(script.url, ONLY, budget=1_000)
            async with gateway(tmp_path, routes=known, keys=str(keys)) as world:
                statuses.append((await ask(world, alice)).status_code)
                total = world.service.router.upstreams["afar"].budget.spent
            (tmp_path / "usage").unlink()
    assert statuses == [200, 200, 402, 402]
    assert total == 2 * COSTS


async def test_requests_at_once_cannot_spend_a_budget_twice(tmp_path: Path) -> None:
    """All pass the first look, before the network was asked; the second is at the door."""
    keys = tmp_path / "keys"
    slow = Reply(pieces=(0.2, *whole().pieces))
    alice = add_key(keys, "alice", upstream_budgets={"afar": 2 * MOST})
    found: list[tuple[int, str]] = []
    async with scripted_upstream(slow) as script:
        async with gateway(tmp_path, routes=routes(script.url), keys=str(keys)) as world:

            async def one() -> None:
                answer = await ask(world, alice)
                found.append((answer.status_code, answer.json().get("error", {}).get("code")))

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(one)
            spent = world.service.router.upstreams["afar"].budget.spent
    assert sorted(status for status, _ in found) == [200, 200, 402, 402, 402]
    assert {code for status, code in found if status == 402} == {"insufficient_quota"}
    assert (len(script.bodies), spent) == (2, 2 * COSTS)


async def test_the_upstreams_own_budget_holds_for_requests_at_once(tmp_path: Path) -> None:
    slow = Reply(pieces=(0.2, *whole().pieces))
    statuses: list[int] = []
    async with scripted_upstream(slow) as script:
        async with gateway(tmp_path, routes=routes(script.url, budget=120)) as world:

            async def one() -> None:
                statuses.append((await world.post(CHAT, ASK)).status_code)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(one)
            codes = [one.code for one in world.service.router.decisions]
    assert sorted(statuses) == [200, 403, 403]
    assert sorted(codes) == ["", "upstream_barred", "upstream_barred"]
    assert len(script.bodies) == 1


def test_a_budget_at_an_upstream_that_is_none_is_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    add_key(keys, "alice", upstream_budgets={"afra": 5})
    ApiKeys(keys)  # a gateway without upstreams has nothing to hold it against
    with pytest.raises(AssayError, match=r"alice has a budget at 'afra'.*mean 'afar'") as caught:
        ApiKeys(keys, {"afar", "other"})
    assert caught.value.code == "config_invalid"


STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(0, 60), st.booleans()),
    max_size=25,
)


@given(STEPS, st.integers(1, 150), st.integers(1, 100))
def test_no_order_of_answers_spends_more_than_a_budget(
    steps: list[tuple[str, int, int, bool]], budget: int, key_budget: int
) -> None:
    terms = Terms(budget=budget, key_budget=key_budget)

    async def run() -> None:
        book = UpstreamBudget("afar", terms, spending := Spending())
        refused = 0

        async def one(name: str, most: int, price: int, fails: bool) -> None:
            nonlocal refused
            answer = UpstreamAnswer()
            try:
                async with book.reserved(ApiKey(name, ""), Most(0, 0, most), answer):
                    await trio.lowlevel.checkpoint()
                    answer.price = min(price, most)
                    if fails:
                        raise Refusal(502, "upstream_broken", "it broke", charged=True)
            except Refusal as refusal:
                refused += refusal.code != "upstream_broken"
            kept = spending.at_upstream("afar")
            assert book.spent == sum(kept.values()) <= budget
            assert all(micro <= key_budget for micro in kept.values())

        async with trio.open_nursery() as nursery:
            for step in steps:
                nursery.start_soon(one, *step)
        assert refused or sum(most for _, most, _, _ in steps) <= budget
        nobody: Any = ApiKey("c", "")
        free = Most(0, 0, min(budget - book.spent, key_budget))
        assert book.barred(nobody, free) == "", "nothing is still set aside"

    trio.run(run)
