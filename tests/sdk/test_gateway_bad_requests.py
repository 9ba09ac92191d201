"""Any method, path, query and headers: an answer or OpenAI's error with a code, never a 500."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, gateway

METHODS = ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "QUERY"]
PATHS = [
    "/", "/v1", "/v1/models", "/v1/models/", "/v1/models/toy", "/v1/models/%00", "/v1/chat",
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
    "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/responses/resp_1/input_items",
    "/v1/responses/compact", "/v1/messages", "/v1/messages/count_tokens", "/v1/receipts/00",
    "/tokenize", "/detokenize", "/healthz", "/readyz",
]  # fmt: skip
visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12)
pairs = st.tuples(st.sampled_from(["limit", "order", "after", "stream", "a"]), visible)
queries = st.lists(pairs.map("=".join), max_size=20).map("&".join) | visible
headers = st.dictionaries(
    st.sampled_from(
        ["authorization", "x-api-key", "x-request-id", "content-type", "content-length", "accept"]
    ),
    latin,
    max_size=3,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    path = draw(st.sampled_from(PATHS)) + draw(st.just("") | visible.filter(lambda t: "?" not in t))
    query = draw(queries.filter(lambda text: "#" not in text))
    more = {"headers": draw(headers), "content": draw(st.binary(max_size=20))}
    return draw(st.sampled_from(METHODS)), f"{path.replace('#', '')}?{query}", more


async def answered(world: World, method: str, path: str, more: dict[str, Any]) -> None:
    answer = await world.http.request(method, path, **more)
    assert answer.whole
    assert answer.status_code != 500, (method, path, more)
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400 and method != "HEAD" and path[:7] != "/readyz":
        error = answer.json()["error"]
        assert isinstance(error["code"], str), error
        assert error["message"]


def test_no_request_is_a_fault_of_ours(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("gateway")

    @settings(max_examples=40)
    @given(st.lists(requests(), min_size=1, max_size=12))
    def check(several: list[tuple[str, str, dict[str, Any]]]) -> None:
        async def ask() -> None:
            async with gateway(folder, FakeNetwork(end_at=2), responses=4) as world:
                for method, path, more in several:
                    await answered(world, method, path, more)

        trio.run(ask, clock=MockClock(autojump_threshold=0))

    check()


async def test_a_query_of_too_many_fields_is_refused(
    autojump_clock: object, tmp_path: Path
) -> None:
    query = "&".join(f"f{number}=1" for number in range(17))
    async with gateway(tmp_path, responses=4) as world:
        answer = await world.http.get(f"/v1/responses/resp_1?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"
