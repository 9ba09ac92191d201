"""Routing within the network: other names, fallbacks, hedges; in virtual time, over streams."""

from __future__ import annotations

from pathlib import Path

import trio

from assay.gateway.api_keys import add_key
from assay.routing.core.plans import Plan, Routes
from assay_network.frames import Frames
from assay_protocol.messages import AbandonJob, SubmitReceipt
from sdk.client_network import FakeNetwork
from sdk.gateway_world import NODES, World, gateway

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


class Slow(FakeNetwork):
    """The first node draws nothing for `wait` seconds."""

    wait = 5.0

    async def serve_job(self, index: int, peer: bytes, frames: Frames) -> None:
        if index == 0:
            await trio.sleep(self.wait)
        await super().serve_job(index, peer, frames)


def planned(**plans: Plan) -> Routes:
    return Routes(plans={name.replace("_", "-"): plan for name, plan in plans.items()})


async def settled(world: World) -> list[type]:
    await trio.sleep(30)
    return [type(body) for body in world.network.coordinator.handed_in]


async def test_another_name_for_a_model(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, routes=planned(gpt_x=Plan(network=("toy",)))) as world:
        answer = await world.post(CHAT, {**ASK, "model": "gpt-x"})
        body = answer.json()
        assert (answer.status_code, body["model"]) == (200, "toy")
        assert answer.headers["x-assay-route"] == "network"
        assert body["assay"]["route"] == {
            "by": "network",
            "upstream": None,
            "model": "toy",
            "case": None,
            "attempts": 1,
            "also": {"credit": 0, "receipts": []},
        }
        listed = (await world.http.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["toy", "gpt-x"]
        told = (await world.http.get("/v1/models/gpt-x")).json()
        assert (told["id"], told["license"]) == ("gpt-x", "apache-2.0")
        for path, more in (("/v1/messages", {}), ("/v1/responses", {"input": "Hello"})):
            asked = {**ASK, "model": "gpt-x"} if not more else {"model": "gpt-x", **more}
            other = await world.post(path, asked)
            assert (other.status_code, other.json()["model"]) == (200, "toy"), other.text


async def test_the_next_model_of_a_chain_answers(autojump_clock: object, tmp_path: Path) -> None:
    routes = planned(best=Plan(network=("gone", "toy")))
    async with gateway(tmp_path, routes=routes) as world:
        events = await world.events(CHAT, {**ASK, "model": "best"})
        assert events[-1]["assay"]["route"]["case"] == "unserved"
        assert events[-1]["assay"]["route"]["attempts"] == 2
        (decision,) = (await world.http.get("/v1/routes")).json()["data"]
        tried = [(one["model"], one["why"], one["code"]) for one in decision["tried"]]
        assert tried == [("gone", "first", "model_not_found"), ("toy", "fallback", "")]
        assert (decision["code"], decision["asked"], decision["model"]) == ("", "best", "toy")
        assert decision["tokens_out"] == 8
        assert decision["credit"] == events[-1]["assay"]["credit"] > 0


async def test_a_name_that_is_nobodys_is_not_kept(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(CHAT, {**ASK, "model": "my secret prompt"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        (decision,) = (await world.http.get("/v1/routes")).json()["data"]
        assert decision["code"] == "model_not_found"
        assert "secret" not in str(decision)


async def test_a_hedge_answers_where_a_node_is_slow(autojump_clock: object, tmp_path: Path) -> None:
    routes = planned(toy=Plan(network=("toy",), hedge_after_ms=300))
    async with gateway(tmp_path, Slow(end_at=12), routes=routes) as world:
        began = trio.current_time()
        events = await world.events(CHAT, {**ASK, "model": "toy"})
        assert trio.current_time() - began < 5 - 0.5, "it did not wait for the slow node"
        told = events[-1]["assay"]
        assert told["nodes"] == [NODES[1].public_key.hex()]
        assert told["route"]["attempts"] == 2
        first, second = world.network.coordinator.asked
        assert first.exclude == ()
        assert second.exclude == (NODES[0].public_key,)
        # The slow one drew nothing: its ticket is given back, the other one's receipt handed in.
        assert sorted(kind.__name__ for kind in await settled(world)) == [
            "AbandonJob",
            "SubmitReceipt",
        ]


class Even(FakeNetwork):
    """Both nodes wait as long, so both draw: what the hedge loses has to be paid, too."""

    async def serve_job(self, index: int, peer: bytes, frames: Frames) -> None:
        await trio.sleep(1.0 if index == 0 else 0.5)
        await super().serve_job(index, peer, frames)


async def test_both_jobs_of_a_hedge_are_settled_and_told(
    autojump_clock: object, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    secret = add_key(keys, "alice", budget=1_000_000)
    routes = planned(toy=Plan(network=("toy",), hedge_after_ms=450))
    async with gateway(tmp_path, Even(end_at=30), routes=routes, keys=str(keys)) as world:
        asked = {**ASK, "model": "toy", "max_tokens": 40}
        bearer = {"authorization": f"Bearer {secret}"}
        answer = await world.post(CHAT, asked, headers=bearer)
        told = answer.json()["assay"]
        handed = await settled(world)
        spent = world.service.admission._spending
        assert spent is not None
        both = told["credit"] + told["route"]["also"]["credit"]
        assert spent.by_name["alice"] == both
        assert world.service.admission._accounts["alice"].purse.reserved == 0
        (decision,) = world.service.router.decisions
        assert decision.credit == both
        assert handed.count(SubmitReceipt) == 1 + len(told["route"]["also"]["receipts"])
        assert len(handed) == 2, "each ticket ends by a receipt or is given back"
        also = told["route"]["also"]
        assert also["credit"] > 0, "the one that lost had drawn tokens"
        for name in (*told["receipts"], *also["receipts"]):
            kept = await world.http.get(f"/v1/receipts/{name}", headers=bearer)
            assert kept.status_code == 200


async def test_a_hedge_that_the_budget_does_not_cover_is_not_run(
    autojump_clock: object, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    secret = add_key(keys, "alice", budget=60)  # one answer costs 45 at most, two 90
    routes = planned(toy=Plan(network=("toy",), hedge_after_ms=300))
    async with gateway(tmp_path, Slow(end_at=12), routes=routes, keys=str(keys)) as world:
        bearer = {"authorization": f"Bearer {secret}"}
        answer = await world.post(CHAT, {**ASK, "model": "toy"}, headers=bearer)
        assert answer.status_code == 200, answer.text
        (decision,) = world.service.router.decisions
        assert [one.code for one in decision.tried] == ["", "insufficient_quota"]
        assert len(world.network.coordinator.asked) == 1


async def test_several_choices_and_quorums_are_not_hedged(
    autojump_clock: object, tmp_path: Path
) -> None:
    routes = planned(toy=Plan(network=("toy",), hedge_after_ms=300))
    async with gateway(tmp_path, Slow(end_at=12), routes=routes) as world:
        answer = await world.post(CHAT, {**ASK, "model": "toy", "n": 2})
        assert answer.json()["assay"]["route"]["attempts"] == 1


async def test_leaving_cancels_both_jobs_of_a_hedge(autojump_clock: object, tmp_path: Path) -> None:
    routes = planned(toy=Plan(network=("toy",), hedge_after_ms=300))

    class AllSlow(Slow):
        async def serve_job(self, index: int, peer: bytes, frames: Frames) -> None:
            await trio.sleep(3)
            await super().serve_job(index, peer, frames)

    async with gateway(tmp_path, AllSlow(end_at=12), routes=routes) as world:
        answer = await world.http.post(CHAT, json={**ASK, "model": "toy"}, patience=1.0)
        assert answer.status_code == 0
        assert await settled(world) == [AbandonJob, AbandonJob]
        (decision,) = world.service.router.decisions
        assert decision.code == "cancelled"


async def test_a_key_sees_its_own_decisions_and_an_owners_key_all(
    autojump_clock: object, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    alice, boss = add_key(keys, "alice"), add_key(keys, "boss", owner=True)
    async with gateway(tmp_path, keys=str(keys)) as world:
        for secret in (alice, boss):
            bearer = {"authorization": f"Bearer {secret}"}
            await world.post(CHAT, {**ASK, "model": "toy"}, headers=bearer)
        seen = {}
        for name, secret in (("alice", alice), ("boss", boss)):
            bearer = {"authorization": f"Bearer {secret}"}
            told = (await world.http.get("/v1/routes", headers=bearer)).json()["data"]
            seen[name] = [one["caller"] for one in told]
        assert seen == {"alice": ["alice"], "boss": ["boss", "alice"]}


async def test_a_header_that_says_something_else(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(
            CHAT, {**ASK, "model": "toy"}, headers={"x-assay-route": "anywhere"}
        )
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-assay-route")
