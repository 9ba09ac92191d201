"""/v1/completions with `echo`: prompts weighed token by token, several at once, also streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.gateway.choice_runs import AT_ONCE_MAX
from assay.gateway.completions_api import ANSWERS_MAX, PROMPTS_MAX
from assay.gateway.logprob_words import CompletionLogprobs
from assay.gateway.upstream import Passage
from assay_protocol.logprobs import TokenLogprobs
from sdk.gateway_world import World, chat_card, gateway

PATH = "/v1/completions"
WEIGH = {"model": "toy", "prompt": "Once", "max_tokens": 1, "logprobs": 1, "echo": True}


async def weighed(world: World, **changes: Any) -> dict[str, Any]:
    answer = await world.post(PATH, {**WEIGH, **changes})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def told_logprob(token: int) -> float:
    """What the fake node tells of a prompt token (told_cases.told_of)."""
    return -0.25 * (1 + token % 8)


async def test_a_prompt_is_told_token_by_token_before_the_answer(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        prompt = [79, 110, 99, 101]  # the bytes of "Once"
        (choice,) = (await weighed(world, prompt=prompt, max_tokens=3))["choices"]
        told = choice["logprobs"]
        assert {len(column) for column in told.values()} == {len(prompt) + 3}
        assert told["token_logprobs"][0] is None
        assert told["top_logprobs"][0] is None
        assert told["token_logprobs"][1:4] == [told_logprob(token) for token in prompt[1:]]
        assert all(value == -0.5 for value in told["token_logprobs"][4:])
        assert told["tokens"][:4] == ["O", "n", "c", "e"]
        assert told["text_offset"][:5] == [0, 1, 2, 3, 4]
        assert choice["text"].startswith("Once")
        assert world.network.coordinator.asked[-1].sampler.prompt_logprobs == 1


async def test_tokens_are_given_back_as_text_without_logprobs_too(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        (choice,) = (await weighed(world, prompt=[79, 110], logprobs=None))["choices"]
        assert choice["text"].startswith("On")
        assert choice["logprobs"] is None
        assert world.network.coordinator.asked[-1].sampler.prompt_logprobs is None


@pytest.mark.parametrize("prompt", ["caf\u00e9 \U0001f600!", [99, 0xC3], [0xA9, 99]])
async def test_a_character_in_pieces_stands_where_it_begins(
    autojump_clock: object, tmp_path: Path, prompt: str | list[int]
) -> None:
    """text_offset counts characters, and every whole token is found in `text` at its offset."""
    async with gateway(tmp_path) as world:
        (choice,) = (await weighed(world, prompt=prompt, max_tokens=4))["choices"]
        told = choice["logprobs"]
        offsets = told["text_offset"]
        assert offsets == sorted(offsets)
        for token, at in zip(told["tokens"], offsets, strict=True):
            if "\ufffd" not in token:
                assert choice["text"][at : at + len(token)] == token
        if isinstance(prompt, str):
            assert choice["text"].startswith(prompt)


async def test_nothing_but_the_prompt_may_be_asked_for(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        body = await weighed(world, max_tokens=0)
        (choice,) = body["choices"]
        assert choice["text"] == "Once"
        assert {len(column) for column in choice["logprobs"].values()} == {4}
        assert choice["finish_reason"] == "length"
        asked = world.network.coordinator.asked[-1]
        assert asked.max_tokens == 1, "a job draws a token at least"
        assert body["usage"]["completion_tokens"] == 1, "which is paid"
        assert body["assay"]["credit"] == 6  # 4 tokens of the prompt at 1, one drawn at 2
        plain = await weighed(world, max_tokens=0, logprobs=None)
        assert plain["choices"][0]["text"] == "Once"
        refused = await world.post(PATH, {**WEIGH, "echo": False, "max_tokens": 0})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "max_tokens"


@pytest.mark.parametrize("most", [0, 4])
async def test_a_stream_tells_the_same(autojump_clock: object, tmp_path: Path, most: int) -> None:
    async with gateway(tmp_path) as world:
        (whole,) = (await weighed(world, max_tokens=most))["choices"]
        events = await world.events(PATH, {**WEIGH, "max_tokens": most})
        chunks = [one["choices"][0] for one in events]
        first = chunks[0]
        assert (first["text"], len(first["logprobs"]["tokens"])) == ("Once", 4)
        columns = [one["logprobs"] for one in chunks if one["logprobs"]]
        for name, column in whole["logprobs"].items():
            joined = [entry for one in columns for entry in one[name]]
            assert len(joined) == len(column) == 4 + most
            assert joined[:4] == column[:4]
        assert chunks[-1]["finish_reason"] == "length"


async def test_several_prompts_are_answered_in_the_order_of_their_choices(
    autojump_clock: object, tmp_path: Path
) -> None:
    prompts = [[65, 66], [67], [68, 69, 70]]
    async with gateway(tmp_path) as world:
        body = await weighed(world, prompt=prompts, n=2, max_tokens=0)
        choices = body["choices"]
        assert [one["index"] for one in choices] == list(range(6))
        assert [one["text"] for one in choices] == ["AB", "AB", "C", "C", "DEF", "DEF"]
        assert choices[2]["logprobs"]["token_logprobs"] == [None]
        assert body["usage"]["prompt_tokens"] == 6
        assert len(body["assay"]["receipts"]) == 6
        texts = await weighed(world, prompt=["x", "yy"], max_tokens=2)
        assert [one["text"][:1] for one in texts["choices"]] == ["x", "y"]
        events = await world.events(PATH, {**WEIGH, "prompt": prompts, "max_tokens": 0})
        first = {one["choices"][0]["index"]: one["choices"][0]["text"] for one in reversed(events)}
        assert first == {0: "AB", 1: "C", 2: "DEF"}


async def test_many_prompts_are_drawn_a_few_at_a_time(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        prompts = [[65 + i % 26] for i in range(PROMPTS_MAX)]
        body = await weighed(world, prompt=prompts, n=ANSWERS_MAX // PROMPTS_MAX, max_tokens=1)
        assert len(body["choices"]) == ANSWERS_MAX
        assert AT_ONCE_MAX < ANSWERS_MAX
        receipts = [json.dumps(one) for one in body["assay"]["receipts"]]
        assert len(set(receipts)) == ANSWERS_MAX


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt"),
        ({"prompt": ["x", [1, "y"]]}, "prompt"),
        ({"prompt": [["x"]]}, "prompt"),
        ({"prompt": [[True]]}, "prompt"),
        ({"prompt": [[-1]]}, "prompt"),
        ({"prompt": ["x"] * (PROMPTS_MAX + 1)}, "prompt"),
        ({"prompt": ["x"] * PROMPTS_MAX, "n": 3}, "n"),
        ({"prompt": ["x", ""]}, "prompt"),
        ({"prompt": [[999_999], [1]]}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"max_tokens": -1}, "max_tokens"),
    ],
)
async def test_what_is_no_prompt_or_too_many_is_refused_by_its_name(
    autojump_clock: object, tmp_path: Path, changes: dict[str, Any], param: str
) -> None:
    async with gateway(tmp_path) as world:
        refused = await world.post(PATH, {**WEIGH, **changes})
        assert refused.status_code == 400, refused.text
        assert refused.json()["error"]["param"] == param
        assert not world.network.coordinator.asked


def test_of_tokens_written_alike_the_likeliest_is_told() -> None:
    """Halves of characters all show as U+FFFD, and a dictionary has one place for them."""
    pieces = (b"\xc3", b"\xe2", b"a")
    entry = TokenLogprobs(2, -2.0, ((0, -0.5), (1, -1.5), (2, -2.0)))
    told = CompletionLogprobs().add([2], [entry], pieces, 0)
    assert told.top_logprobs == [{"\ufffd": -0.5, "a": -2.0}]


@pytest.mark.parametrize(
    ("body", "answers"),
    [
        ({}, 1),
        ({"prompt": "x", "n": 3}, 3),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"prompt": ["x", "y", "z"]}, 3),
    ],
)
def test_an_upstreams_budget_counts_the_answers_to_all_prompts(
    body: dict[str, Any], answers: int
) -> None:
    assert Passage(PATH, body, 9).answers == answers


def test_the_fake_card_has_a_byte_for_each_token() -> None:
    """The tests above write prompts as bytes."""
    assert chat_card().pieces[:2] == (b"\x00", b"\x01")
