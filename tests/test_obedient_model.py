"""The simulated model of make conformance does what it is asked, and only that."""

from __future__ import annotations

import json

import pytest

from assay.gateway.tool_calls import Tool, told
from conformance.obedient_node import meant

TOOLS = told(
    [
        Tool("paint", "", {"type": "object", "properties": {"n": {"type": "integer"}}}),
        Tool("greet", "", {"type": "object", "properties": {"who": {"type": "string"}}}),
    ]
)


@pytest.mark.parametrize(
    ("asked", "name", "arguments"),
    [
        ("Call paint(3).", "paint", {"n": 3}),
        ("greet 'Ann', please", "greet", {"who": "Ann"}),
        ("Hello!", "paint", {"n": 1}),
    ],
)
def test_a_function_that_is_offered_is_called(asked: str, name: str, arguments: object) -> None:
    said = json.loads(meant(f"<|system|>Be kind.\n\n{TOOLS}<|user|>{asked}<|assistant|>"))
    assert said == {"name": name, "arguments": arguments}


def test_a_result_is_spoken_about_and_json_has_its_keys() -> None:
    prompt = f"<|system|>{TOOLS}<|user|>x<|assistant|>y<|user|><tool_response>\n1<|assistant|>"
    assert meant(prompt) == "As you say."
    assert json.loads(meant("<|user|>JSON with 'a' and 'b'<|assistant|>")).keys() == {"a", "b"}


def test_it_reasons_first_where_the_prompt_has_begun_to() -> None:
    prompt = f"<|system|>{TOOLS}<|user|>Call paint(3).<|assistant|>"
    thought, closed, said = meant(f"{prompt}<think>\n").partition("</think>")
    assert (bool(thought), closed, said.strip()) == (True, "</think>", meant(prompt))
    assert meant(f"{prompt}<think>\n\n</think>\n\n") == meant(prompt)
