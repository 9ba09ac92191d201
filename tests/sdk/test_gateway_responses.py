"""/v1/responses: items and events in order, and responses that are kept for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from assay.gateway.api_keys import add_key
from assay_protocol.errors import AssayError
from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, gateway

PATH = "/v1/responses"
SAID = {"type": "output_text", "text": "Ho"}
ASK: dict[str, Any] = {"model": "toy", "input": "Hello", "max_output_tokens": 20}


async def test_a_whole_response(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        body = (await world.post(PATH, ASK)).json()
        assert (body["object"], body["status"], body["store"]) == ("response", "completed", False)
        (item,) = body["output"]
        assert (item["type"], item["status"]) == ("message", "completed")
        assert item["content"][0]["text"]
        assert body["usage"]["output_tokens"] == 13
        short = (await world.post(PATH, {**ASK, "max_output_tokens": 3})).json()
        assert short["status"] == "incomplete"
        assert short["incomplete_details"] == {"reason": "max_output_tokens"}
        assert (await world.http.get(f"{PATH}/{body['id']}")).status_code == 404


async def test_the_user_is_told_or_left_out(autojump_clock: object, tmp_path: Path) -> None:
    """OpenAI's schema has no null for it, unlike for its neighbours."""
    async with gateway(tmp_path) as world:
        assert "user" not in (await world.post(PATH, ASK)).json()
        assert (await world.post(PATH, {**ASK, "user": "u"})).json()["user"] == "u"


async def test_a_streams_events_are_numbered_and_in_order(
    autojump_clock: object, tmp_path: Path
) -> None:
    include = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    async with gateway(tmp_path) as world:
        events = await world.events(PATH, {**ASK, **include})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    final = events[-1]["response"]
    said = "".join(event["delta"] for event in events if event["type"].endswith("text.delta"))
    assert final["output"][0]["content"][0]["text"] == said
    assert len(final["output"][0]["content"][0]["logprobs"]) == 13
    assert {event["item_id"] for event in events[4:-4]} == {final["output"][0]["id"]}


async def test_kept_responses_are_read_continued_and_deleted(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path, responses=2) as world:
        first = (await world.post(PATH, ASK)).json()
        assert (await world.http.get(f"{PATH}/{first['id']}")).json() == first
        items = (await world.http.get(f"{PATH}/{first['id']}/input_items?limit=1")).json()
        assert items["data"][0]["content"] == [{"type": "input_text", "text": "Hello"}]
        assert not items["has_more"]
        more = {**ASK, "previous_response_id": first["id"], "instructions": "Be brief"}
        second = (await world.post(PATH, more)).json()
        one, two = world.network.coordinator.asked
        assert two.n_in > 2 * one.n_in
        await world.events(PATH, ASK)  # a stream is kept as well, and pushes the oldest out
        assert (await world.http.get(f"{PATH}/{first['id']}")).status_code == 404
        gone = await world.post(PATH, more)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "response_not_found")
        deleted = await world.http.request("DELETE", f"{PATH}/{second['id']}")
        assert deleted.json()["deleted"]
        assert (await world.http.get(f"{PATH}/{second['id']}")).status_code == 404
        quiet = (await world.post(PATH, {**ASK, "store": False})).json()
        assert (await world.http.get(f"{PATH}/{quiet['id']}")).status_code == 404


async def until(world: World, name: str, status: str) -> dict[str, Any]:
    with trio.fail_after(60):
        while True:
            body: dict[str, Any] = (await world.http.get(f"{PATH}/{name}")).json()
            if body["status"] == status:
                return body
            await trio.sleep(0.1)


async def test_in_the_background(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, FakeNetwork(), responses=8) as world:
        queued = (await world.post(PATH, {**ASK, "background": True})).json()
        assert queued["status"] == "queued"
        done = await until(world, queued["id"], "incomplete")
        assert done["output"][0]["content"][0]["text"]
        long = {**ASK, "background": True, "max_output_tokens": 2_000}
        running = (await world.post(PATH, long)).json()
        await trio.sleep(0.5)
        cancelled = await world.post(f"{PATH}/{running['id']}/cancel", {})
        assert cancelled.json()["status"] == "cancelled"
        await trio.sleep(5)
        assert world.service.responses.running() == 0
        assert (await until(world, running["id"], "cancelled"))["id"] == running["id"]
        assert len(world.service._receipts) == 2, "what was drawn before it was cancelled is paid"
        plain = (await world.post(PATH, ASK)).json()
        refused = await world.post(f"{PATH}/{plain['id']}/cancel", {})
        assert refused.json()["error"]["code"] == "not_cancellable"


@pytest.mark.parametrize("error", [AssayError("storage_failed"), KeyError("a fault of ours")])
async def test_a_fault_in_the_background_ends_that_response_only(
    autojump_clock: object, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*arguments: object) -> tuple[int, ...]:
        raise error

    async with gateway(tmp_path, responses=8) as world:
        with monkeypatch.context() as patched:
            patched.setattr(world.service, "read_prompts", fails)
            queued = (await world.post(PATH, {**ASK, "background": True})).json()
            failed = await until(world, queued["id"], "failed")
        assert failed["error"]["code"] in ("storage_failed", "internal")
        assert "ours" not in failed["error"]["message"]
        assert (await world.post(PATH, ASK)).status_code == 200, "the gateway goes on"


async def test_a_key_draws_no_more_at_once_in_the_background_than_it_may(
    autojump_clock: object, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    mine, other = (
        {"authorization": f"Bearer {add_key(keys, name, at_once=2)}"} for name in ("a", "b")
    )
    long = {**ASK, "background": True, "max_output_tokens": 2_000}
    async with gateway(tmp_path, FakeNetwork(), responses=8, keys=str(keys)) as world:
        begun = [await world.post(PATH, long, headers=mine) for _ in range(3)]
        assert [one.status_code for one in begun] == [200, 200, 429]
        assert begun[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert (await world.post(PATH, long, headers=other)).status_code == 200
        for one in begun[:2]:
            path = f"{PATH}/{one.json()['id']}"
            assert (await world.http.get(path, headers=mine)).status_code == 200, "it may look"
            assert (await world.http.get(path, headers=other)).status_code == 404
            await world.http.request("DELETE", path, headers=mine)
        assert (await world.post(PATH, long, headers=mine)).status_code == 200


async def test_a_page_of_items_has_a_limit(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, responses=1) as world:
        path = f"{PATH}/{(await world.post(PATH, ASK)).json()['id']}/input_items"
        for limit in ("0", "101", "-1", "x", "000000001" + "9" * 5_000):
            answer = await world.http.get(f"{path}?limit={limit}")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


async def test_items_of_other_turns(autojump_clock: object, tmp_path: Path) -> None:
    items = [
        {"role": "developer", "content": "Be brief"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "summary": []},
        {"role": "assistant", "content": [SAID]},
        {"type": "function_call", "call_id": "c1", "name": "paint", "arguments": '{"n": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
    ]
    tool = {"type": "function", "name": "paint", "parameters": {"type": "object"}}
    shape = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    async with gateway(tmp_path) as world:
        answer = await world.post(PATH, {**ASK, "input": items, "tools": [tool]})
        assert answer.status_code == 200, answer.text
        shaped = await world.post(PATH, {**ASK, "text": shape})
        assert shaped.json()["text"] == shape
        assert world.network.coordinator.asked[-1].sampler.grammar is not None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"input": None}, "missing_required_parameter"),
        ({"input": []}, "invalid_value"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "missing_required_parameter",
        ),
        ({"input": [{"role": "user", "content": [{**SAID, "annotations": "x"}]}]}, "invalid_type"),
        ({"background": True}, "unsupported_parameter"),
        ({"truncation": "auto"}, "unsupported_parameter"),
        ({"conversation": "conv_1"}, "unsupported_parameter"),
        ({"previous_response_id": "resp_1"}, "response_not_found"),
        ({"text": {"format": {"type": "json_schema"}}}, "missing_required_parameter"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "missing_required_parameter"),
        ({"text": {"format": {"type": "json_schema", "schema": {}, "name": "ä"}}}, "invalid_value"),
        ({"metadata": {"a": 1}}, "invalid_value"),
    ],
)
async def test_what_is_refused(
    autojump_clock: object, tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(PATH, {**ASK, **change})
        assert answer.status_code in (400, 404)
        assert answer.json()["error"]["code"] == code
