"""Calls of functions: asked for by a grammar or left to the model, and read out of its answer."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.gateway.tool_calls import (
    Call,
    CallArguments,
    CallBegun,
    ChosenReader,
    DemandedReader,
    Piece,
    Reader,
    Text,
    Tool,
    demanded,
    spoken,
    told,
)

NAMES = frozenset({"paint", "wash"})
CALL = '<tool_call>\n{"name": "paint", "arguments": {"n": 1}}\n</tool_call>'


def read(reader: Reader, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """What a stream of `pieces` told: the text, and each call's name and arguments."""
    found: list[Piece] = [piece for text in pieces for piece in reader.push(text)]
    found += reader.flush()
    text = "".join(one.text for one in found if isinstance(one, Text))
    names = [one.name for one in found if isinstance(one, CallBegun)]
    parts = ["" for _ in names]
    for one in found:
        if isinstance(one, CallArguments):
            parts[one.index] += one.text
    told = list(zip(names, parts, strict=True))
    assert told == [(call.name, call.arguments) for call in reader.calls]
    return text, told


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


@given(st.lists(st.integers(0, 120)))
def test_calls_are_found_however_the_text_comes(places: list[int]) -> None:
    text = f"Well: {CALL}\n{CALL}"
    said, calls = read(ChosenReader(NAMES), cut(text, places))
    assert said.strip() == "Well:"
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("paint", {"n": 1})] * 2


@given(st.lists(st.integers(0, 120)))
def test_a_whole_answer_of_json_is_a_call(places: list[int]) -> None:
    text = ' {"name": "wash", "parameters": {"x": "}"}}\n'
    said, calls = read(ChosenReader(NAMES), cut(text, places))
    assert (said, calls) == ("", [("wash", '{"x": "}"}')])


@pytest.mark.parametrize(
    "text",
    [
        "no call at all",
        "a <tool_call in words",
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        "<tool_call>not json</tool_call>",
        '<tool_call>{"name": "paint", "arguments": [1]}</tool_call>',
        '{"name": "paint", "arguments": {} and more',
        "<tool_call>",
        "<",
        "  ",
        "",
        '{"json": "of its own"}',
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    for places in ([], list(range(len(text)))):
        assert read(ChosenReader(NAMES), cut(text, places)) == (text, [])


def test_a_call_without_its_closing_tag_counts() -> None:
    said, calls = read(ChosenReader(NAMES), [CALL.removesuffix("</tool_call>")])
    assert (said, [name for name, _ in calls]) == ("", ["paint"])


@given(
    st.dictionaries(st.text(max_size=4), st.text(max_size=6), max_size=3),
    st.lists(st.integers(0, 200)),
    st.sampled_from(["", " ", "\n"]),
)
def test_a_demanded_call_is_read_as_it_comes(
    arguments: dict[str, str], places: list[int], space: str
) -> None:
    body = json.dumps(arguments)
    text = f'{{{space}"name":{space}"paint"{space},"arguments":{space}{body}{space}}}{space}'
    said, calls = read(DemandedReader(), cut(text, places))
    assert said == ""
    assert [(name, json.loads(text)) for name, text in calls] == [("paint", arguments)]


def test_blanks_before_the_arguments_are_not_told() -> None:
    pieces = ['{"name": "paint", "arguments":', " ", ' {"a": 1}', "}"]
    assert read(DemandedReader(), pieces) == ("", [("paint", '{"a": 1}')])


def test_a_demanded_call_that_is_cut_off_gives_what_came() -> None:
    said, calls = read(DemandedReader(), ['{"name":"paint","arguments":{"a":"b'])
    assert (said, calls) == ("", [("paint", '{"a":"b')])
    assert read(DemandedReader(), ['{"na']) == ('{"na', [])


def test_what_the_model_is_told() -> None:
    tool = Tool("paint", "paints", {"type": "object"})
    assert '"paint"' in told([tool])
    one = json.loads(demanded([tool]))
    assert one["properties"]["name"] == {"const": "paint"}
    both = json.loads(demanded([tool, Tool("wash", "", {})]))
    assert len(both["anyOf"]) == 2
    function = {"name": "paint", "arguments": {"n": 1}}
    said = spoken({"role": "assistant", "content": "", "tool_calls": [{"function": function}]})
    assert "<tool_call>" in said["content"]
    assert spoken({"role": "tool", "content": "red"})["role"] == "user"
    assert Call("a", "b").arguments == ""


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"type": "object"}, False),
        ({"type": "object", "properties": {}}, True),
        ({"properties": {"a": {}}}, True),
        ({"properties": {"a": {}}, "additionalProperties": True}, False),
        ({"properties": []}, False),
        ({"properties": {"a": {}}, "required": ["b"]}, False),
        ({"properties": {"a": {}}, "allOf": [{"required": ["b"]}]}, False),
    ],
)
def test_a_demanded_calls_arguments_are_those_with_names(
    schema: dict[str, object], closed: bool
) -> None:
    arguments = json.loads(demanded([Tool("f", "", schema)]))["properties"]["arguments"]
    assert (arguments.get("additionalProperties") is False) == closed
