"""A JSON grammar may begin after the reasoning: what it then allows, and where it does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from assay.reasoning_grammar import grammar_after_reasoning
from assay.reasoning_marks import CHANNELS, TABLE
from assay_protocol.cards import TokenType
from assay_protocol.errors import ProtocolError
from assay_protocol.grammars import pack_grammar
from assay_protocol.limits import GRAMMAR_BYTES_MAX
from assay_protocol.masks import Matcher, Vocabulary
from sdk.gateway_world import chat_card

END = 7
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "</think>"]}, "n": {"type": "integer"}},
    "required": ["a", "n"],
    "additionalProperties": False,
}
PACKED = pack_grammar("json_schema", json.dumps(SCHEMA))
CARD = chat_card()
THINK = next(marks for marks in TABLE if marks.name == "think")
# All bytes are tokens but END, which ends an answer; the marks are tokens, too.
PIECES = (*(bytes([i]) if i != END else b"" for i in range(256)), b"<think>", b"</think>")
VOCABULARY = Vocabulary(PIECES, (END,))
GOOD, WRONG = b'{"a": "x", "n": 1}', b'{"a": "y"'


def allowed(tail: str, *tokens: int) -> bool:
    """Whether an answer of `tokens` may stand there whole."""
    packed = grammar_after_reasoning(CARD, THINK, tail, PACKED)
    assert packed is not None
    matcher = Matcher(VOCABULARY, packed)
    return all(matcher.accept(token) for token in tokens) and END in matcher.allowed()


@pytest.mark.parametrize("closing", [(257,), tuple(b"</think>")])
@pytest.mark.parametrize("blanks", [b"", b"\n\n"])
def test_json_follows_the_closing_mark(closing: tuple[int, ...], blanks: bytes) -> None:
    thought = (*b'{"a": free text </thi', *closing, *blanks)
    assert allowed("<think>\n", *thought, *GOOD)
    assert not allowed("<think>\n", *thought, *WRONG)
    assert not allowed("<think>\n", *thought)
    assert not allowed("<think>\n", *GOOD), "it is reasoning that does not end"


def test_where_the_prompt_opens_nothing_reasoning_may_come_or_not() -> None:
    for opening in ((256,), tuple(b"<think>")):
        assert allowed("assistant\n", *opening, *b"so", 257, *GOOD)
    assert allowed("assistant\n", *GOOD)
    assert not allowed("assistant\n", *b"so", 257, *GOOD)


def test_a_mark_within_the_json_is_a_text() -> None:
    assert allowed("<think>", *b"so", 257, *b'{"a": "</think>", "n": 1}')


def test_some_grammars_bind_from_the_first_token() -> None:
    def begun(packed: bytes = PACKED, tail: str = "", marks=THINK, card=CARD) -> bytes | None:  # type: ignore[no-untyped-def]
        return grammar_after_reasoning(card, marks, tail, packed)

    assert begun() is not None
    assert begun(pack_grammar("regex", "a+")) is None
    assert begun(pack_grammar("lark", "start: /a/")) is None
    assert begun(pack_grammar("json_schema", "true")) is None
    assert begun(tail="<think>\n\n</think>\n\n") is None
    assert begun(marks=CHANNELS) is None
    pieces = (*CARD.pieces[:300], b"", *CARD.pieces[301:])
    types = bytearray(CARD.token_types)
    types[300] = TokenType.CONTROL
    texts = (*CARD.texts, (300, "</think>"))
    silent = replace(CARD, pieces=pieces, token_types=bytes(types), texts=texts)
    assert begun(card=silent) is None


def test_one_that_becomes_too_large_is_refused() -> None:
    room = GRAMMAR_BYTES_MAX - len("json_schema\n") - len('{"const": ""}')
    packed = pack_grammar("json_schema", json.dumps({"const": "x" * room}))
    with pytest.raises(ProtocolError) as refused:
        grammar_after_reasoning(CARD, THINK, "<think>", packed)
    assert refused.value.code == "grammar_refused"
