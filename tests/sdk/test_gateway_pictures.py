"""Pictures through the gateway's APIs: the same prompt and pixels whichever API brought them."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay.chat_template import ChatTemplate
from assay.gateway.chat_request import read_chat
from assay.gateway.messages_request import read_message_request
from assay.gateway.refusal import Refusal
from assay.gateway.responses_request import read_response_request
from assay.gateway.settings import Settings
from assay.pictures import take_pictures
from assay_protocol.cards import decode_card
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.hashing import unpack_tokens
from assay_protocol.images import IMAGE_TOKEN, spans
from assay_protocol.messages import StartJob
from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, chat_card, gateway
from sdk.picture_cases import SEES, data_url, picture_file, shown

FILE = picture_file((1, 2, 3), (30, 20))
BLOCK = {
    "type": "image",
    "source": {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(FILE).decode(),
    },
}
SEEING = chat_card(vision=SEES)
TEXT = {"type": "text", "text": "What is it?"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


def chat(*parts: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    said = [{"role": role, "content": list(parts), **more}]
    return {"model": "toy", "messages": said, "max_tokens": 3}


def response(*parts: Any) -> dict[str, Any]:
    said = [{"type": "message", "role": "user", "content": list(parts)}]
    return {"model": "toy", "input": said, "max_output_tokens": 3}


INPUT_IMAGE = {"type": "input_image", "image_url": data_url(FILE)}
INPUT_TEXT = {"type": "input_text", "text": "What is it?"}
ASKED = {
    CHAT: chat(shown(FILE), TEXT),
    RESPONSES: response(INPUT_IMAGE, INPUT_TEXT),
    MESSAGES: chat(BLOCK, TEXT),
}


def started(world: World) -> StartJob:
    (first,) = world.network.firsts
    return decode_as(StartJob, first)


@pytest.mark.parametrize("path", ASKED)
async def test_each_api_sends_the_picture_as_the_prompt_spells_it(
    path: str, tmp_path: Path
) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        answer = await world.post(path, ASKED[path])
        assert answer.status_code == 200, answer.text
        start = started(world)
        prompt, images = unpack_tokens(start.prompt), start.images
        assert images is not None
        (begin,) = spans(prompt, images, SEES.tokens)
        (image,) = images
        assert (image.width, image.height, image.pixels[:3]) == (30, 20, b"\1\2\3")
        head, tail = (
            ChatTemplate(SEEING)
            .render_around(
                [{"role": "user", "content": [{"type": "image", "image": 0}, TEXT]}], images=1
            )
            .pieces
        )
        places = prompt[begin : begin + SEES.tokens]
        assert prompt == (*head, *SEES.before, *places, *SEES.after, *tail)
        usage = answer.json()["usage"]
        assert usage.get("prompt_tokens", usage.get("input_tokens")) == len(prompt)
        (asked,) = world.network.coordinator.asked
        assert asked.n_in == len(prompt)


async def test_tokens_are_counted_and_listed_with_pictures(tmp_path: Path) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        listed = (await world.post("/tokenize", {"model": "toy", **pick(ASKED[CHAT])})).json()
        assert sum(token >= IMAGE_TOKEN for token in listed["tokens"]) == SEES.tokens
        asked = {"model": "toy", "messages": ASKED[MESSAGES]["messages"]}
        counted = (await world.post(f"{MESSAGES}/count_tokens", asked)).json()
        assert counted["input_tokens"] == listed["count"]


def pick(asked: dict[str, Any]) -> dict[str, Any]:
    return {"messages": asked["messages"]}


RESULTS = {
    CHAT: {
        "model": "toy",
        "max_tokens": 3,
        "messages": [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": [shown(FILE)]},
        ],
    },
    RESPONSES: {
        "model": "toy",
        "max_output_tokens": 3,
        "input": [
            {"type": "message", "role": "user", "content": "look"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [INPUT_IMAGE]},
        ],
    },
    MESSAGES: {
        "model": "toy",
        "max_tokens": 3,
        "messages": [
            {"role": "user", "content": "look"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": [BLOCK]}],
            },
        ],
    },
}


@pytest.mark.parametrize("path", RESULTS)
async def test_a_functions_result_may_be_a_picture(path: str, tmp_path: Path) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        answer = await world.post(path, RESULTS[path])
        assert answer.status_code == 200, answer.text
        start = started(world)
        assert start.images is not None
        prompt = unpack_tokens(start.prompt)
        (begin,) = spans(prompt, start.images, SEES.tokens)
        pieces = decode_card(world.network.card).pieces
        before = b"".join(pieces[token] for token in prompt[:begin] if token not in SEES.before)
        assert before.endswith(b"<tool_response>\n")


@pytest.mark.parametrize("path", ASKED)
async def test_a_model_of_text_says_that_it_reads_none(path: str, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(path, ASKED[path])
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "image_refused")
        assert error.get("param", "messages") == "messages"
        assert not world.network.coordinator.asked


@pytest.mark.parametrize(
    ("path", "asked", "code", "param"),
    [
        (CHAT, chat(shown(b"no picture")), "invalid_image", None),
        (CHAT, chat({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x"}}),
         "invalid_image_url", "messages[0].content[0].image_url.url"),
        (CHAT, chat({"type": "image_url"}), "missing_required_parameter",
         "messages[0].content[0].image_url"),
        (CHAT, chat(shown(FILE, detail="blurred")), "invalid_value",
         "messages[0].content[0].image_url.detail"),
        (CHAT, chat(*[shown(FILE)] * 9), "invalid_image", None),
        (CHAT, chat(shown(FILE), role="system"), "unsupported_parameter",
         "messages[0].content[0].type"),
        (CHAT, chat(shown(FILE), role="assistant"), "unsupported_parameter",
         "messages[0].content[0].type"),
        (CHAT, chat({"type": "input_audio"}), "unsupported_parameter",
         "messages[0].content[0].type"),
        (RESPONSES, response({"type": "input_image", "image_url": "https://x.example/y.png"}),
         "invalid_image_url", "input[0].content[0].image_url"),
        (RESPONSES, response({"type": "input_image", "file_id": "file-1"}),
         "unsupported_parameter", "input[0].content[0].file_id"),
        (MESSAGES, chat({"type": "image", "source": {"type": "url", "url": "https://x.example"}}),
         "invalid_image_url", None),
        (MESSAGES, chat({**BLOCK, "source": {**BLOCK["source"], "data": "@"}}),
         "invalid_image", None),
    ],
)  # fmt: skip
async def test_what_is_refused(
    path: str, asked: dict[str, Any], code: str, param: str | None, tmp_path: Path
) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        answer = await world.post(path, asked)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, code), answer.text
        assert error.get("param") == param
        assert not world.network.coordinator.asked


async def test_the_resolution_asked_for_is_told_to_have_no_effect(tmp_path: Path) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        answer = await world.post(CHAT, chat(shown(FILE, detail="high"), TEXT))
        assert answer.headers["x-assay-ignored"] == "detail"
        answer = await world.post(CHAT, chat(shown(FILE, detail="auto"), TEXT))
        assert "x-assay-ignored" not in answer.headers


async def test_models_say_whether_they_read_pictures(tmp_path: Path) -> None:
    for card, told in ((SEEING, ["text", "image"]), (chat_card(), ["text"])):
        async with gateway(tmp_path, FakeNetwork(end_at=3), card=card) as world:
            (listed,) = (await world.http.get("/v1/models")).json()["data"]
            one = (await world.http.get("/v1/models/toy")).json()
            assert listed["input_modalities"] == one["input_modalities"] == told


async def test_logprobs_of_answers_are_told_with_pictures(tmp_path: Path) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        asked = {**ASKED[CHAT], "n": 2, "verify": "none"}
        answer = await world.post(CHAT, asked)
        assert [one["index"] for one in answer.json()["choices"]] == [0, 1]
        assert len(world.network.firsts) == 2
        assert len({decode_as(StartJob, one).images for one in world.network.firsts}) == 1


async def test_a_lost_node_is_followed_by_one_that_gets_the_pictures(tmp_path: Path) -> None:
    fake = FakeNetwork(end_at=40, lose_after={0: 6})
    async with gateway(tmp_path, fake, card=SEEING) as world:
        answer = await world.post(CHAT, {**ASKED[CHAT], "max_tokens": 30})
        assert answer.json()["usage"]["completion_tokens"] == 30, answer.text
        first, second = [decode_as(StartJob, one) for one in world.network.firsts]
        assert second.prompt.startswith(first.prompt)
        assert len(second.prompt) > len(first.prompt)
        assert first.images == second.images is not None


async def test_a_second_operator_gets_the_pictures_too(tmp_path: Path) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        answer = await world.post(CHAT, {**ASKED[CHAT], "verify": "quorum"})
        assert answer.status_code == 200, answer.text
        first, second = [decode_as(StartJob, one) for one in world.network.firsts]
        assert (first.prompt, first.images) == (second.prompt, second.images)


async def test_tokens_of_a_completion_spell_no_picture(tmp_path: Path) -> None:
    async with gateway(tmp_path, card=SEEING) as world:
        asked = {"model": "toy", "prompt": [1, 2, IMAGE_TOKEN + 5], "max_tokens": 3}
        answer = await world.post("/v1/completions", asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
        assert not world.network.coordinator.asked


_WORDS = st.sampled_from([
    "image_url", "input_image", "image", "text", "base64", "url", "auto", "low", "image/png",
    "data:", "data:;base64,", "data:image/png;base64,AAAA", "http://x.example", "AAAA", "",
])  # fmt: skip
_NAMES = st.sampled_from([
    "type", "image_url", "url", "detail", "source", "data", "media_type", "text", "file_id",
])  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=12,
)
_PARTS = st.dictionaries(_NAMES, _VALUES, max_size=5)


@given(st.lists(_PARTS.flatmap(lambda part: st.just({"type": "image_url"} | part)), max_size=3))
@example([BLOCK])
@example([INPUT_IMAGE])
def test_any_parts_are_pictures_or_refused(parts: list[dict[str, Any]]) -> None:
    settings, statuses = Settings(coordinator="x"), {400}
    for read, body in (
        (read_chat, chat(*parts)),
        (read_response_request, response(*parts)),
        (read_message_request, chat(*parts)),
    ):
        try:
            made = read(body, settings)
        except Refusal as refusal:
            statuses.add(refusal.status)
            continue
        asked = made[0] if isinstance(made, tuple) else made.asked
        with suppress(AssayError):
            _, files = take_pictures(asked.messages or ())
            assert all(isinstance(file, bytes) for file in files)
    assert statuses == {400}
