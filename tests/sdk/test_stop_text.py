"""Stop strings: however the text is cut into pieces, the same of it is given out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.stop_text import StopText

_TEXT = st.text("ab\n", max_size=40)
_STOPS = st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4)


def _plain(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: cut at what is complete first, at the longest such."""
    for end in range(1, len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)], True
    return text, False


@given(text=_TEXT, stops=_STOPS, cuts=st.lists(st.integers(0, 40), max_size=10))
def test_any_pieces_give_the_same(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    filtering = StopText(stops)
    out = ""
    expected, stopped = _plain(text, stops)
    for begin, end in itertools.pairwise(edges):
        out += filtering.push(text[begin:end])
        assert expected.startswith(out), "given out and then taken back"
    out += filtering.flush()
    assert (out, filtering.stopped) == (expected, stopped)


@given(text=_TEXT, stops=_STOPS)
def test_no_more_is_held_back_than_may_become_a_stop(text: str, stops: list[str]) -> None:
    filtering = StopText(stops)
    out = filtering.push(text)
    held = text[len(out) :]
    assert filtering.stopped or not held or any(stop.startswith(held) for stop in stops)


def test_nothing_follows_a_stop() -> None:
    filtering = StopText(["END"])
    assert [filtering.push(part) for part in ("a E", "N", "D", "b")] == ["a ", "", "", ""]
    assert filtering.flush() == ""
    assert filtering.again().push("b") == "b"


@pytest.mark.parametrize("stops", [["a"] * 5, [""], ["a" * 257]])
def test_bounds(stops: list[str]) -> None:
    with pytest.raises(ValueError, match="stop string"):
        StopText(stops)
