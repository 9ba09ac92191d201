"""Reasoning is told from the answer, wherever the text is cut and whatever the model writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.reasoning_split import ChannelSplit, MarkSplit, Split

OPEN, CLOSE = "<think>", "</think>"
# Pieces of marks among text, so that what nearly is a mark comes often.
WRITTEN = st.lists(
    st.sampled_from(
        [OPEN, CLOSE, "<", "</", "think", ">", "<thi", "</thin", "k>", "a", "b c", " ", "\n", "é"]
    ),
    max_size=12,
).map("".join)
HEAD, END = "<|start|>assistant<|channel|>", "<|end|>"
ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
HARMONY = st.lists(
    st.sampled_from(
        [
            "<|start|>", "assistant", "<|channel|>", "analysis", "final", "<|message|>", "<|end|>",
            "to=functions.paint", "<", "|>", "<|", "a", " ", "<|call|>", '{"n":1}', "é",
        ]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def told(split: Split, pieces: Sequence[str]) -> tuple[str, str]:
    said = [split.push(piece) for piece in pieces] + [split.flush()]
    return "".join(thought for thought, _ in said), "".join(text for _, text in said)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def read_whole(text: str, inside: bool) -> tuple[str, str]:
    """What MarkSplit means, by regular expressions over the whole text."""
    begun = re.match(rf"\s*{OPEN}", text)
    if begun is None and not inside:
        return "", text
    rest = text[begun.end() if begun else 0 :].lstrip()
    thought, closed, answer = rest.partition(CLOSE)
    if closed:
        return thought.rstrip(), answer.lstrip()
    return rest, ""


@given(WRITTEN, st.booleans(), st.lists(st.integers(0, 200), max_size=8))
def test_wherever_the_text_is_cut_it_reads_the_same(
    text: str, inside: bool, places: list[int]
) -> None:
    whole = read_whole(text, inside)
    thought, answer = told(MarkSplit(OPEN, CLOSE, inside=inside), cut(text, places))
    # Blanks at the end of reasoning that was cut off may come or not; nothing else may differ.
    assert (thought.rstrip(), answer) == (whole[0].rstrip(), whole[1])


@given(WRITTEN, st.booleans())
def test_nothing_given_out_is_taken_back_and_nothing_is_lost(text: str, inside: bool) -> None:
    thought, answer = told(MarkSplit(OPEN, CLOSE, inside=inside), list(text))
    bare = re.sub(r"\s", "", text)
    left = re.sub(r"\s", "", thought + answer)
    marks = len(bare) - len(left)
    assert marks in (0, len(OPEN), len(CLOSE), len(OPEN + CLOSE))
    if not thought and not inside and OPEN not in text:
        assert answer == text


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("<think>\nso\n</think>\n\nYes.", False, ("so", "Yes.")),
        ("so\n</think>\n\nYes.", True, ("so", "Yes.")),
        ("<think>so</think>Yes.", True, ("so", "Yes.")),
        ("<think>\n\n</think>\n\nYes.", False, ("", "Yes.")),
        ("<think>cut off </thi", False, ("cut off </thi", "")),
        ("<thi", False, ("", "<thi")),
        ("Write <think> and </think>.", False, ("", "Write <think> and </think>.")),
        ("<think>a</think>b</think><think>c", False, ("a", "b</think><think>c")),
        ("\n Yes.", False, ("", "\n Yes.")),
        ("", True, ("", "")),
    ],
)
def test_what_models_write(text: str, inside: bool, expected: tuple[str, str]) -> None:
    assert told(MarkSplit(OPEN, CLOSE, inside=inside), list(text)) == expected


def test_text_is_given_out_as_soon_as_it_is_known() -> None:
    split = MarkSplit(OPEN, CLOSE)
    said = [split.push(piece) for piece in ("<think>a", " b", "\n</", "think>", "\n", "c", "<")]
    assert said == [("a", ""), (" b", ""), ("", ""), ("", ""), ("", ""), ("", "c"), ("", "<")]


@given(HARMONY, st.lists(st.integers(0, 200), max_size=8))
def test_channels_read_the_same_wherever_they_are_cut(text: str, places: list[int]) -> None:
    assert told(ChannelSplit(), cut(text, places)) == told(ChannelSplit(), [text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ANALYSIS}so{END}{HEAD}final<|message|>Yes.<|return|>", ("so", "Yes.")),
        # An end that is a silent token is known by the head that follows.
        (f"{ANALYSIS}so{HEAD}final<|message|>Yes.", ("so", "Yes.")),
        (f"{ANALYSIS}a{END}<|start|>assistant{ANALYSIS}b{END}", ("a\nb", "")),
        (f"{ANALYSIS}cut off<|st", ("cut off<|st", "")),
        (f"{ANALYSIS}so{END}<|start|>assis", ("so", "")),
        (f"{FINAL}Yes.{END}", ("", "Yes.")),
        ('{"name": "paint"}', ("", '{"name": "paint"}')),
        ("to be or not", ("", "to be or not")),
        (
            f"{ANALYSIS}so{END}<|start|>assistant<|channel|>commentary to=functions.paint "
            '<|constrain|>json<|message|>{"n": 1}<|call|>',
            ("so", '<tool_call>\n{"name": "paint", "arguments": {"n": 1}}\n</tool_call>'),
        ),
        (
            " to=functions.paint<|channel|>commentary json<|message|><|call|>",
            ("", '<tool_call>\n{"name": "paint", "arguments": {}}\n</tool_call>'),
        ),
        (f"{'<|channel|>' + 'x' * 300}", ("", "<|channel|>" + "x" * 300)),
    ],
)
def test_what_models_with_channels_write(text: str, expected: tuple[str, str]) -> None:
    assert told(ChannelSplit(), [text]) == expected
    assert told(ChannelSplit(), list(text)) == expected
