"""An upstream over real HTTP on loopback: chosen, forbidden, failing, broken; never silently."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from asgi_caller import Answer
from assay.gateway.api_keys import add_key
from assay.gateway.app import gateway_app
from assay.gateway.spending import Spending
from assay.gateway.upstream import Passage, Upstream
from assay.gateway.upstream_budget import UpstreamBudget
from assay.gateway.usage import read_usage
from assay.routing.core.plans import CASES, Terms
from assay_network.http_listener import listener_url, listening_socket
from assay_network.http_server import serve_http
from sdk.client_network import FakeNetwork
from sdk.gateway_world import SECRET, gateway
from sdk.routing.upstream_gateway import ASK, CHAT, PLAN, asked, chunks, routes
from sdk.routing.upstream_server import (
    CUT,
    DONE,
    USAGE,
    Reply,
    Script,
    delta,
    event,
    scripted_upstream,
    whole,
)

STREAM = Reply(pieces=(delta("fr"), delta("om"), delta("", "stop"), USAGE, DONE))


async def test_a_whole_answer_says_who_gave_it(tmp_path: Path) -> None:
    async with scripted_upstream(whole()) as script:
        answer, world = await asked(tmp_path, script)
    body = answer.json()
    assert (answer.status_code, body["model"]) == (200, "closed-1")
    assert body["choices"][0]["message"]["content"] == "from afar"
    assert answer.headers["x-assay-route"] == "upstream afar"
    assert body["assay"]["receipts"] == []
    assert body["assay"]["route"]["by"] == "upstream"
    assert body["assay"]["route"]["case"] == "unserved"
    assert "x-assay-node" not in answer.headers
    assert script.paths == ["/v1/chat/completions"]
    assert f"authorization: Bearer {SECRET}" in script.heads[0]
    assert script.bodies[0] == {**ASK, "model": "m-1", "stream": False}
    (decision,) = world.service.router.decisions
    assert (decision.upstream, decision.model, decision.price) == ("afar", "m-1", 7 + 15)
    (used,) = read_usage(tmp_path / "usage")
    assert (used.upstream, used.tokens_in, used.tokens_out, used.price) == ("afar", 7, 5, 22)


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_is_passed_on_and_marked(tmp_path: Path, usage: bool) -> None:
    async with scripted_upstream(STREAM) as script:
        async with gateway(tmp_path, routes=routes(script.url)) as world:
            options = {"stream_options": {"include_usage": True}} if usage else {}
            answer = await world.post(CHAT, {**ASK, "stream": True, **options})
    assert answer.headers["x-assay-route"] == "upstream afar"
    told = chunks(answer)
    texts = [one["choices"][0]["delta"]["content"] for one in told if one["choices"]]
    assert "".join(texts) == "from"
    assert told[0]["assay"]["route"]["upstream"] == "afar"
    assert [one for one in told if not one["choices"]] == (told[-1:] if usage else [])
    assert answer.pieces[-1] == DONE
    assert answer.whole
    assert script.bodies[0]["stream_options"] == {"include_usage": True}
    assert world.service.router.decisions[0].price == 22


async def test_the_request_can_forbid_it(tmp_path: Path) -> None:
    async with scripted_upstream(whole()) as script:
        answer, world = await asked(tmp_path, script, only=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert script.bodies == [], "nothing left"
    assert world.service.router.decisions[0].barred == "request_forbids"


@pytest.mark.parametrize(
    "field", [{"verify": "now"}, {"verify": "quorum"}, {"license": "mit"}, {"node": "00" * 32}]
)
async def test_what_only_the_network_gives_stays_there(
    tmp_path: Path, field: dict[str, str]
) -> None:
    async with scripted_upstream(whole()) as script:
        async with gateway(tmp_path, routes=routes(script.url)) as world:
            answer = await world.post(CHAT, {**ASK, **field})
    assert answer.status_code == 404
    assert script.bodies == []


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_apis_that_are_not_passed_on(tmp_path: Path, path: str) -> None:
    given = ASK if path == "/v1/messages" else {"model": "closed-1", "input": "Hello"}
    async with scripted_upstream(whole()) as script:
        async with gateway(tmp_path, routes=routes(script.url)) as world:
            answer = await world.post(path, given)
    assert answer.status_code == 404
    assert script.bodies == []


async def test_only_keys_that_the_owner_named(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    secrets = {name: add_key(keys, name) for name in ("alice", "bob")}
    async with scripted_upstream(whole()) as script:
        known = routes(script.url, keys=("alice",))
        async with gateway(tmp_path, routes=known, keys=str(keys)) as world:
            found = {}
            for name, secret in secrets.items():
                bearer = {"authorization": f"Bearer {secret}"}
                found[name] = (await world.post(CHAT, ASK, headers=bearer)).status_code
    assert found == {"alice": 200, "bob": 404}
    assert len(script.bodies) == 1


async def test_a_case_that_the_plan_does_not_name(tmp_path: Path) -> None:
    plan = replace(PLAN, upstream_when=("no_node", "slow"))
    async with scripted_upstream(whole()) as script:
        answer, _ = await asked(tmp_path, script, plan=plan)
    assert answer.status_code == 404
    assert script.bodies == []


async def test_a_name_that_is_only_upstream_and_barred(tmp_path: Path) -> None:
    plan = replace(PLAN, network=())
    async with scripted_upstream(whole()) as script:
        answer, _ = await asked(tmp_path, script, plan=plan, only=True)
        async with gateway(tmp_path, routes=routes(script.url, plan)) as world:
            listed = (await world.http.get("/v1/models")).json()["data"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "upstream_barred")
    assert [(one["id"], one["owned_by"]) for one in listed] == [
        ("toy", "assay"),
        ("closed-1", "afar"),
    ]


async def test_no_token_in_time_sends_it_afar(tmp_path: Path) -> None:
    plan = replace(PLAN, network=("toy",), upstream_when=("slow",), first_token_ms=100)

    class Slow(FakeNetwork):
        async def serve_job(self, index: int, peer: bytes, frames: Any) -> None:
            await trio.sleep(3)

    async with scripted_upstream(STREAM) as script:
        async with gateway(tmp_path, Slow(), routes=routes(script.url, plan)) as world:
            answer = await world.post(CHAT, {**ASK, "stream": True})
            assert (
                "".join(one["choices"][0]["delta"]["content"] for one in chunks(answer)) == "from"
            )
            (decision,) = world.service.router.decisions
            assert [one.code for one in decision.tried] == ["cancelled", ""]
            assert decision.case == "slow"


FAILURES: list[tuple[Reply, int, str]] = [
    (Reply(429, (b"{}",), {"retry-after": "7"}), 503, "upstream_rate_limited"),
    (Reply(500, (b"oops",)), 502, "upstream_failed"),
    (Reply(503, (b"",)), 502, "upstream_failed"),
    (Reply(302, (b"x",), {"location": "http://127.0.0.1:1/"}), 502, "upstream_failed"),
    (Reply(401, (b'{"error": {"message": "bad key sk-upstream"}}',)), 502, "upstream_denied"),
    (Reply(400, (b'{"error": {"message": "no such field"}}',)), 400, "upstream_refused"),
    (Reply(400, (b"<html>",)), 400, "upstream_refused"),
    (Reply(200, (b"not json",)), 502, "upstream_malformed"),
    (Reply(200, (b"[1]",)), 502, "upstream_malformed"),
    (Reply(200, (b'{"choices": []}',)), 502, "upstream_malformed"),
    (Reply(200, (b'{"choices": [3]}',)), 502, "upstream_malformed"),
    (Reply(200, (b"\xff\xfe",)), 502, "upstream_malformed"),
    (Reply(200, (b'{"choices"', CUT)), 502, "upstream_broken"),
]


@pytest.mark.parametrize(("reply", "status", "code"), FAILURES)
async def test_an_upstream_that_fails(
    tmp_path: Path, reply: Reply, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "assay")
    async with scripted_upstream(reply) as script:
        answer, world = await asked(tmp_path, script)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if code == "upstream_rate_limited":
        assert answer.headers["retry-after"] == "7"
    if code == "upstream_refused" and b"field" in reply.pieces[0]:  # type: ignore[operator]
        assert "no such field" in answer.json()["error"]["message"]
    assert "sk-upstream" not in answer.text, "what it says of the key is not passed on"
    assert "routed" in caplog.text
    assert "Hello" not in caplog.text
    assert SECRET not in caplog.text
    assert world.service.router.decisions[0].code == code


BREAKS: list[tuple[tuple[bytes | float, ...], str]] = [
    ((delta("fr"), CUT), "upstream_broken"),
    ((delta("fr"),), "upstream_broken"),
    ((delta("fr"), event({"error": {"message": "x"}})), "upstream_broken"),
    ((delta("fr"), event(b"{")), "upstream_malformed"),
    ((delta("fr"), event({"choices": 3})), "upstream_malformed"),
    ((delta("fr"), 1.0), "upstream_timeout"),
]


@pytest.mark.parametrize(("pieces", "code"), BREAKS)
async def test_a_stream_that_breaks_is_an_error_event(
    tmp_path: Path, pieces: tuple[bytes | float, ...], code: str
) -> None:
    plan = replace(PLAN, network=("gone", "gone2"))
    async with scripted_upstream(Reply(pieces=pieces), whole()) as script:
        answer, world = await asked(tmp_path, script, stream=True, plan=plan, retries=2)
    told = chunks(answer)
    assert answer.status_code == 200
    assert told[0]["choices"][0]["delta"]["content"] == "fr"
    assert told[-1]["error"]["code"] == code
    assert "[DONE]" not in answer.text
    assert len(script.bodies) == 1, "no other answer is spliced in"
    (decision,) = world.service.router.decisions
    assert decision.code == code
    assert decision.price == world.service.router.upstreams["afar"].budget.spent > 0, (
        "what it may cost"
    )


@pytest.mark.parametrize(
    ("pieces", "code"),
    [((event({"error": {}}),), "upstream_failed"), ((event(b"x"),), "upstream_malformed")],
)
async def test_a_stream_that_fails_before_it_begins_has_a_status(
    tmp_path: Path, pieces: tuple[bytes, ...], code: str
) -> None:
    async with scripted_upstream(Reply(pieces=pieces)) as script:
        answer, _ = await asked(tmp_path, script, stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, code)


async def test_an_upstream_that_is_silent(tmp_path: Path) -> None:
    async with scripted_upstream(Reply(pieces=(2.0,))) as script:
        answer, _ = await asked(tmp_path, script, stream=True, first_token_ms=100)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


async def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    answer, world = await asked(tmp_path, Script("http://127.0.0.1:1/v1"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
    assert world.service.router.decisions[0].price == 0


async def test_a_failure_is_tried_again_and_told(tmp_path: Path) -> None:
    async with scripted_upstream(Reply(500), whole()) as script:
        answer, world = await asked(tmp_path, script, retries=1)
    assert answer.status_code == 200
    tried = [(one.why, one.code) for one in world.service.router.decisions[0].tried]
    assert tried == [
        ("first", "model_not_found"),
        ("fallback", "upstream_failed"),
        ("retry", ""),
    ]


async def test_a_client_that_leaves_ends_the_upstreams_stream(tmp_path: Path) -> None:
    slow = Reply(pieces=(delta("a"), *([0.05, delta("b")] * 100)))
    async with scripted_upstream(slow) as script:
        async with gateway(tmp_path, routes=routes(script.url)) as world:

            def leave(answer: Answer) -> bool:
                return len(answer.pieces) > 2

            answer = await world.http.post(CHAT, json={**ASK, "stream": True}, leave=leave)
            assert not answer.whole
            with trio.fail_after(20):
                while not script.left:
                    await trio.sleep(0.02)
            (decision,) = world.service.router.decisions
            assert decision.code == "cancelled"
            assert decision.price > 0


async def test_the_budget_of_an_upstream_outlives_the_gateway(tmp_path: Path) -> None:
    terms = routes("http://127.0.0.1:1/v1").upstreams["afar"]
    most = terms.price(len(json.dumps(ASK)), 8)
    async with scripted_upstream(whole()) as script:
        for want in (200, 404):  # an answer costs 22, and the budget covers the most of one
            answer, world = await asked(tmp_path, script, budget=most + 30)
            assert answer.status_code == want
    assert world.service.router.decisions[0].barred == "budget_spent"
    assert len(script.bodies) == 1


async def test_our_own_gateway_as_an_upstream(tmp_path: Path) -> None:
    """Two networks: what one does not serve, the other one's gateway answers over real HTTP."""
    async with gateway(tmp_path / "far") as far, trio.open_nursery() as tasks:
        with closing(listening_socket("127.0.0.1", 0)) as listener:
            url = listener_url(listener)
            stop = trio.Event()
            tasks.start_soon(
                partial(
                    serve_http,
                    gateway_app(far.service),
                    listener,
                    graceful_seconds=1.0,
                    stop=stop.wait,
                )
            )
            plan = replace(PLAN, upstream_model="toy", upstream_when=CASES)
            known = routes(f"{url}/v1", plan)
            async with gateway(tmp_path / "near", routes=known) as near:
                answer = await near.post(CHAT, ASK)
                assert answer.json()["usage"]["completion_tokens"] == 8
                assert answer.json()["assay"]["route"]["upstream"] == "afar"
                told = await near.events(CHAT, ASK)
                assert told[-1]["assay"]["route"]["model"] == "toy"
                assert near.network.coordinator.asked == []
                assert len(far.network.coordinator.asked) == 2
                assert [one.tokens_out for one in near.service.router.decisions] == [8, 8]
            stop.set()


@pytest.mark.parametrize("given", [None, 3, 10_000])
def test_an_answer_is_bounded_by_the_owner(given: int | None) -> None:
    terms = Terms(url="http://127.0.0.1:1/v1", max_tokens=64)
    upstream = Upstream(terms, "", UpstreamBudget("afar", terms, Spending()))
    body = {"model": "a", **({} if given is None else {"max_completion_tokens": given})}
    sent = upstream.body(Passage(CHAT, body, 32), "m")
    name = "max_tokens" if given is None else "max_completion_tokens"
    assert sent[name] == {None: 32, 3: 3, 10_000: 64}[given]


def test_of_two_bounds_the_one_that_is_reserved_for_is_sent() -> None:
    terms = Terms(url="http://127.0.0.1:1/v1", price_out=1_000)
    upstream = Upstream(terms, "", UpstreamBudget("afar", terms, Spending()))
    passage = Passage(CHAT, {"max_tokens": 4_000, "max_completion_tokens": 5}, 32)
    assert upstream.body(passage, "m") == {"model": "m", "max_completion_tokens": 5}
    assert upstream.most(passage).price == 5
