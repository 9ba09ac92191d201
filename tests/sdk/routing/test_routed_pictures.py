"""Chats with pictures go to a model that reads them, or, where the plan has one, to an upstream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay.gateway.upstream import PICTURE_TOKENS_MAX, Passage, Upstream
from assay.routing.core.plans import Plan, Terms
from sdk.gateway_world import chat_card, gateway
from sdk.picture_cases import SEES, picture_file, shown
from sdk.routing.upstream_gateway import CHAT, routes
from sdk.routing.upstream_server import scripted_upstream, whole

PLAN = Plan(network=("toy",), upstream="afar", upstream_model="m-1", upstream_when=("unserved",))
CONTENT = [{"type": "text", "text": "What is it?"}, shown(picture_file())]
ASK: dict[str, Any] = {
    "model": "closed-1",
    "messages": [{"role": "user", "content": CONTENT}],
    "max_tokens": 4,
}


async def test_an_upstream_gets_pictures_as_they_came(tmp_path: Path) -> None:
    async with (
        scripted_upstream(whole()) as script,
        gateway(tmp_path, routes=routes(script.url, PLAN)) as world,
    ):
        answer = await world.post(CHAT, ASK)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-assay-route"] == "upstream afar"
        assert answer.json()["assay"]["route"]["case"] == "unserved"
        (sent,) = script.bodies
        assert sent["messages"] == ASK["messages"]
        assert not world.network.coordinator.asked


async def test_a_model_that_reads_them_is_asked_first(tmp_path: Path) -> None:
    async with (
        scripted_upstream(whole()) as script,
        gateway(tmp_path, card=chat_card(vision=SEES), routes=routes(script.url, PLAN)) as world,
    ):
        answer = await world.post(CHAT, ASK)
        assert answer.headers["x-assay-route"] == "network"
        assert not script.bodies


async def test_what_cannot_be_read_is_told_and_not_passed_on(tmp_path: Path) -> None:
    async with (
        scripted_upstream(whole()) as script,
        gateway(tmp_path, card=chat_card(vision=SEES), routes=routes(script.url, PLAN)) as world,
    ):
        said = [{"role": "user", "content": [shown(b"no picture")]}]
        answer = await world.post(CHAT, {**ASK, "messages": said})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_image")
        assert not script.bodies


def test_a_picture_sets_its_most_aside_whatever_its_bytes() -> None:
    terms = Terms(url="https://afar.example/v1", keys=("*",), price_in=1_000, price_out=1_000)
    upstream = Upstream(terms, "", None)  # type: ignore[arg-type]  # no budget is asked
    texts = [{"role": "user", "content": CONTENT[:1]}]
    size = len(json.dumps({**ASK, "messages": texts}, ensure_ascii=False).encode())
    for file in (picture_file(), picture_file(size=(300, 300), kind="JPEG")):
        said = [{"role": "user", "content": [CONTENT[0], shown(file)]}]
        most = upstream.most(Passage(CHAT, {**ASK, "messages": said}, 16))
        assert most.tokens_in == size + PICTURE_TOKENS_MAX
