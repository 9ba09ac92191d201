"""Which marks a model has, and where its answer begins: by its card and its prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.chat_template import render_chat
from assay.reasoning_marks import TABLE, marks_of, prompt_tail, shown_pieces
from assay.reasoning_split import ChannelSplit, MarkSplit
from assay_protocol.cards import TokenType
from sdk.gateway_world import TEMPLATE, chat_card

# How each cuts reasoning out of earlier turns, or spells it: from the published templates.
SPELLED = {
    "think": "{% if '</think>' in m %}{{ m.split('</think>')[-1] }}{% endif %}",
    "seed": "{{ '<seed:think>' + r + '</seed:think>' }}",
    "bracket": "{{ '[THINK]' + r + '[/THINK]' }}",
    "channels": "{{ '<|channel|>final<|message|>' + m }}",
}


@pytest.mark.parametrize("name", SPELLED)
def test_a_template_that_spells_the_marks_names_them(name: str) -> None:
    card = chat_card(chat_template=SPELLED[name], name="deepseek-r1-of-some-name")
    marks = marks_of(card)
    assert marks is not None
    assert marks.name == name
    assert isinstance(marks.split(""), ChannelSplit if name == "channels" else MarkSplit)


def test_a_vocabulary_that_has_both_marks_names_them_and_a_name_does_not() -> None:
    plain = chat_card(name="deepseek-r1-think")
    assert marks_of(plain) is None
    opening = replace(plain, texts=(*plain.texts, (300, "<think>")))
    assert marks_of(opening) is None
    marks = marks_of(replace(opening, texts=(*opening.texts, (301, "</think>"))))
    assert marks is not None
    assert marks.name == "think"


def test_every_row_tells_its_source_and_has_marks_of_its_own() -> None:
    assert {marks.name for marks in TABLE} == SPELLED.keys()
    assert all(marks.source for marks in TABLE)
    assert len({mark for one in TABLE for mark in (one.opening, one.closing)}) == 2 * len(TABLE)


def test_marks_that_are_silent_tokens_are_spelled_out_and_nothing_else_is() -> None:
    card = chat_card(chat_template=SPELLED["think"])
    pieces, types = list(card.pieces), bytearray(card.token_types)
    pieces[300] = pieces[301] = b""
    types[300] = types[301] = TokenType.CONTROL
    texts = (*card.texts, (300, "<think>"), (301, "</think>"))
    silent = replace(card, pieces=tuple(pieces), token_types=bytes(types), texts=texts)
    shown = shown_pieces(silent, marks_of(silent))
    assert (shown[300], shown[301]) == (b"<think>", b"</think>")
    changed = [token for token in range(len(shown)) if shown[token] != silent.pieces[token]]
    assert changed == [300, 301]
    assert shown_pieces(card, marks_of(card)) is card.pieces
    assert prompt_tail(silent, (104, 300, 10)) == "h<think>\n"


@pytest.mark.parametrize(
    ("ends", "inside"),
    [
        ("<think>\n", True),
        ("<think>", True),
        ("<think>\n\n</think>\n\n", False),
        ("</think>", False),
        ("", False),
    ],
)
def test_an_answer_begins_where_its_prompt_ends(ends: str, inside: bool) -> None:
    card = chat_card(chat_template=TEMPLATE + "{{ " + repr(ends) + " }}")
    marks = marks_of(replace(card, chat_template=SPELLED["think"]))
    assert marks is not None
    # What a user writes of marks is not at the end.
    prompt = render_chat(card, [{"role": "user", "content": "what is <think>"}])
    split = marks.split(prompt_tail(card, prompt))
    assert split.push("so") == (("so", "") if inside else ("", "so"))
