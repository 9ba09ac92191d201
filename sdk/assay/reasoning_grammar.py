"""A JSON grammar that begins where the reasoning ends, so that a model may think before it answers.

The grammar is written anew, as Lark, around the schema: free text up to the closing mark, then the
JSON. It travels, is committed to and is replayed like any other, so nodes and auditors need no rule
for it. A grammar in a form of the caller's own (regex, Lark) stays as it is, and binds from the
first token.
"""

from __future__ import annotations

import json
from typing import Final

from assay.reasoning_marks import Marks
from assay_protocol.cards import ModelCard
from assay_protocol.grammars import pack_grammar, read_grammar

# As masks.py has a schema written that stands alone.
_WRITTEN: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LARK: Final = """start: {start}
reasoning[stop={closing}]: /(?s:.*)/
blanks: /[ \\n]{{0,4}}/
answer: %json {schema}
"""


def grammar_after_reasoning(
    card: ModelCard, marks: Marks, tail: str, packed: bytes
) -> bytes | None:
    """The packed grammar for an answer to a prompt that ends in `tail`: one with reasoning, if the
    prompt has opened the mark, and else one that may begin with it.

    None if `packed` must bind from the first token: it is no JSON schema, the prompt has closed the
    mark, or the marks are not text. Raises ProtocolError("grammar_refused") if it becomes too
    large.
    """
    kind, text = read_grammar(packed)
    told = tail.rstrip()
    if kind != "json_schema" or marks.channels or told.endswith(marks.closing):
        return None
    silent = {written for token, written in card.texts if not card.pieces[token]}
    if silent & {marks.opening, marks.closing}:
        return None
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return None
    opening = json.dumps(marks.opening)
    inside = told.endswith(marks.opening)
    lark = _LARK.format(
        start="reasoning blanks answer" if inside else f"({opening} reasoning blanks)? answer",
        closing=json.dumps(marks.closing),
        schema=json.dumps(schema | {"x-guidance": _WRITTEN}),
    )
    return pack_grammar("lark", lark)
