"""The pictures of docs/concepts.md are those of the tables that the code obeys now."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

import draw_states
from assay_coordinator.core import standing
from assay_coordinator.core.standing import fresh_row, moved
from tidy_rules import ROOT

PICTURES = {picture.name: picture for picture in draw_states.pictures()}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_of_the_table_as_it_is(name: str) -> None:
    drawn = draw_states.draw(PICTURES[name])
    assert (draw_states.PICTURES / f"{name}.svg").read_text() == drawn, "run `make pictures`"
    page = (ROOT / "docs" / "concepts.md").read_text()
    assert f"](pictures/{name}.svg)" in page


@pytest.mark.parametrize("name", PICTURES)
def test_it_has_an_arrow_with_words_for_each_move_and_all_on_the_page(name: str) -> None:
    picture = PICTURES[name]
    tree = ElementTree.fromstring(draw_states.draw(picture))
    svg = "{http://www.w3.org/2000/svg}"
    width = float(tree.attrib["viewBox"].split()[2])
    words = [node for node in tree.iter(f"{svg}text") if node.get("class") == "w"]
    assert [node.text for node in words] == list(picture.moves.values())
    assert len(list(tree.findall(f"{svg}path"))) == len(picture.moves)
    for node in words:
        half = len(node.text or "") * draw_states.LETTER / 2
        assert half <= float(node.attrib["x"]) <= width - half


def test_no_picture_is_left_of_a_table_that_is_gone() -> None:
    assert {path.stem for path in draw_states.PICTURES.glob("*.svg")} == set(PICTURES)


def test_the_code_makes_no_move_that_is_not_in_the_table() -> None:
    row = fresh_row(b"n" * 32, b"o" * 32, 0)
    assert {state for pair in standing.MOVES for state in pair} >= {row.state, "convicted"}
    assert moved(row, "inquiry", 1).state == "inquiry"
    with pytest.raises(AssertionError, match="convicted"):
        moved(replace(row, state="convicted"), "probation", 2)
