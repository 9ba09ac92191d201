"""Whatever a query holds, it is understood as it is meant or refused with a code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.dashboard.asked import LIMIT_MAX, NUMBER_MAX, Asked, cursor
from assay_protocol.errors import AssayError

NUMBERS = st.integers(0, NUMBER_MAX)


@given(NUMBERS, NUMBERS, st.binary(min_size=16, max_size=16))
def test_a_cursor_comes_back_as_it_was_given(one: int, other: int, key: bytes) -> None:
    asked = Asked({}, [("after", cursor(one, other, key))])
    assert asked.after(0, 0, 16) == (one, other, key)


@given(st.text(max_size=300), st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9))))
def test_any_text_is_read_or_refused(text: str, query: list[tuple[str, str]]) -> None:
    asked = Asked({"node": text}, [("limit", text), ("after", text), ("state", text), *query])
    for read in (
        lambda: asked.name("node", 32),
        lambda: asked.number("node"),
        lambda: asked.key("state"),
        lambda: asked.after(0, 32),
        lambda: asked.filter("state", ("active",)),
        lambda: asked.check(("limit",)),
    ):
        assert refused_with(read) in ("", "query_invalid")
    with suppress(AssayError):
        assert 1 <= asked.limit() <= LIMIT_MAX


def refused_with(read: Callable[[], object]) -> str:
    """The code of its refusal; empty: it is taken."""
    try:
        read()
    except AssayError as error:
        return error.code
    return ""


@pytest.mark.parametrize("text", ["²", "٣", "+1", " 1", "1_0", "0x1", str(NUMBER_MAX + 1), ""])
def test_only_plain_numbers_are_numbers(text: str) -> None:
    with pytest.raises(AssayError, match="holds no number"):
        Asked({"epoch": text}, []).number("epoch")


def test_what_is_refused_is_not_sent_back_at_length() -> None:
    with pytest.raises(AssayError) as caught:
        Asked({}, [("x" * 10_000, "")]).check(())
    assert len(caught.value.message) < 100
