"""Tokens become an answer and its reasoning, in whatever frames they come."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from assay.answer_text import AnswerText, Piece
from assay.reasoning_split import MarkSplit
from assay.stop_text import StopText

OPEN, CLOSE = 256, 257
PIECES = (*(bytes([i]) for i in range(256)), b"<think>", b"</think>", "é€".encode()[:3], b" ")
TOKENS = st.lists(st.sampled_from([*b"ab\n <t", 195, 169, *range(OPEN, OPEN + 4)]), max_size=14)


def read(frames: Sequence[Sequence[int]], stops: Sequence[str], inside: bool = False) -> Piece:
    split = MarkSplit("<think>", "</think>", inside=inside)
    text = AnswerText(PIECES, StopText(stops), split)
    said = [*(text.push(frame) for frame in frames), text.flush()]
    texts, thoughts, counts = zip(*said, strict=True)
    return Piece("".join(texts), "".join(thoughts), sum(counts))


@given(TOKENS, st.lists(st.integers(0, 14), max_size=5), st.booleans())
def test_frames_do_not_matter(tokens: list[int], places: list[int], inside: bool) -> None:
    ends = sorted(min(place, len(tokens)) for place in places)
    frames = [tokens[a:b] for a, b in zip([0, *ends], [*ends, len(tokens)], strict=True)]
    assert read(frames, ["ab"], inside) == read([tokens], ["ab"], inside)


@given(TOKENS, TOKENS)
def test_tokens_are_counted_up_to_the_closing_mark(thought: list[int], said: list[int]) -> None:
    thought = [token for token in thought if token < OPEN]
    found = read([[OPEN, *thought, CLOSE, *said]], [])
    assert found.reasoning_tokens == 1 + len(thought)
    assert read([[*thought, CLOSE, *said]], [], inside=True).reasoning_tokens == len(thought)
    assert found.reasoning == bytes(thought).decode(errors="replace").strip()


@given(TOKENS)
def test_a_stop_string_ends_the_answer_and_not_the_reasoning(said: list[int]) -> None:
    found = read([[OPEN, *b"ab", CLOSE, *b"x", *said]], ["ab"])
    assert found.reasoning == "ab"
    assert "ab" not in found.text
    whole = read([[OPEN, *b"ab", CLOSE, *b"x", *said]], []).text
    assert found.text == whole.partition("ab")[0]


def test_without_marks_nothing_is_told_apart() -> None:
    text = AnswerText(PIECES, StopText(), None)
    assert text.push((OPEN, *b"a", CLOSE)) == Piece("<think>a</think>")
    assert text.push("é".encode()[:1]) == Piece("")
    assert text.flush() == Piece("�")
