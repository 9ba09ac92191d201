"""Which answers a caller allows, as they say it: OpenAI's response_format, or a kind of grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from assay_protocol.errors import AssayError
from assay_protocol.grammars import KINDS, pack_grammar


def answer_grammar(
    response_format: Mapping[str, Any] | None, grammar: Mapping[str, str] | None
) -> bytes | None:
    """The packed grammar of at most one of the two, None if every answer is allowed.

    `response_format`: {"type": "text"}, {"type": "json_object"} or {"type": "json_schema",
    "json_schema": {"schema": {...}}}. `grammar`: one pair of a kind and its text: "json_schema",
    "regex" (Rust's syntax), "lark" (llguidance's) or "gbnf" (llama.cpp's; needs the `grammar`
    extra). Raises AssayError("grammar_refused") for anything else, or if it is too large.
    """
    if response_format is not None and grammar is not None:
        raise AssayError("grammar_refused", "either response_format or grammar")
    if grammar is not None:
        return _of_grammar(grammar)
    if response_format is not None:
        return _of_format(response_format)
    return None


def _of_format(response_format: Mapping[str, Any]) -> bytes | None:
    match response_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            schema: Any = {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            pass
        case _:
            raise AssayError("grammar_refused", "a response_format of an unknown form")
    try:
        return pack_grammar("json_schema", json.dumps(schema, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise AssayError("grammar_refused", "the schema cannot be written as JSON") from error


def _of_grammar(grammar: Mapping[str, str]) -> bytes:
    if len(grammar) != 1:
        raise AssayError("grammar_refused", "a grammar is one pair of a kind and its text")
    [(kind, text)] = grammar.items()
    if kind == "gbnf":
        return pack_grammar("lark", _lark(text))
    if kind not in KINDS:
        raise AssayError("grammar_refused", f"a grammar is one of {', '.join(KINDS)}, gbnf")
    return pack_grammar(kind, text)


def _lark(gbnf: str) -> str:
    """llama.cpp's form of grammars, translated here: nodes know one form less."""
    try:
        from llguidance.gbnf_to_lark import gbnf_to_lark
    except ImportError as missing:
        raise AssayError("grammar_refused", "gbnf needs the `grammar` extra") from missing
    try:
        return str(gbnf_to_lark(gbnf))
    except Exception as error:  # the translator raises whatever its parser meets
        raise AssayError("grammar_refused", f"not GBNF: {error}") from error
