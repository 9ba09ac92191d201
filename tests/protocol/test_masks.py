"""Grammars: how they travel, what they allow, and that bad ones are refused in bounded work."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_protocol import sampling
from assay_protocol.errors import ProtocolError
from assay_protocol.grammars import grammar_fits, pack_grammar, read_grammar
from assay_protocol.hashing import grammar_hash, prompt_hash
from assay_protocol.limits import GRAMMAR_BYTES_MAX
from assay_protocol.masks import Matcher, Vocabulary, explain
from assay_protocol.messages import Sampler

END, OTHER_END, CONTROL = 0, 1, 2
WORDS = (b'{"', b'": ', b"name", b"yes", b"no", b'", "', b'"}', b"ab")
PIECES = (b"", b"<end>", b"", *(bytes([i]) for i in range(256)), *WORDS)
VOCABULARY = Vocabulary(PIECES, (END, OTHER_END))
SEED, NONCE = bytes(range(32)), bytes(32)
SAMPLER = Sampler(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)


def ids(text: bytes) -> list[int]:
    return [3 + byte for byte in text]


def allowed_texts(matcher: Matcher) -> set[bytes]:
    return {PIECES[token] for token in matcher.allowed()}


def schema(value: Any) -> bytes:
    return pack_grammar("json_schema", json.dumps(value))


def refused(grammar: bytes, before: tuple[int, ...] = ()) -> str:
    with pytest.raises(ProtocolError) as caught:
        Matcher(VOCABULARY, grammar, before)
    assert caught.value.code == "grammar_refused"
    return caught.value.message


# ---- how they travel ----


def test_a_grammar_is_packed_and_read() -> None:
    assert read_grammar(pack_grammar("lark", "start: /é+/\n")) == ("lark", "start: /é+/\n")


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"regex",
        b"regexx\na",
        b"\n",
        b"REGEX\na",
        b"\xff\na",
        b"regex\n\xff",
        b"regex\n\xed\xa0\x80",
    ],
)
def test_what_is_no_grammar_is_refused(packed: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_grammar(packed)
    assert caught.value.code == "grammar_refused"


def test_a_grammar_is_bounded() -> None:
    most = GRAMMAR_BYTES_MAX - len(b"regex\n")
    assert len(pack_grammar("regex", "a" * most)) == GRAMMAR_BYTES_MAX
    for text in ("a" * (most + 1), "\ud800"):
        with pytest.raises(ProtocolError):
            pack_grammar("regex", text)


def test_a_commitment_binds_text_nonce_and_kind_of_hash() -> None:
    grammar = pack_grammar("regex", "a+")
    held = Sampler(
        temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, grammar=grammar_hash(NONCE, grammar)
    )
    assert grammar_fits(held, NONCE, grammar)
    assert grammar_fits(SAMPLER, NONCE, None)
    assert not grammar_fits(SAMPLER, NONCE, grammar)
    assert not grammar_fits(held, NONCE, None)
    assert not grammar_fits(held, NONCE, grammar + b"b")
    assert not grammar_fits(held, b"x" * 32, grammar)
    assert grammar_hash(NONCE, grammar) != prompt_hash(NONCE, grammar)


# ---- what they allow ----


def test_end_tokens_are_allowed_exactly_when_the_grammar_is_complete() -> None:
    matcher = Matcher(VOCABULARY, pack_grammar("regex", "ab?"))
    assert allowed_texts(matcher) == {b"a", b"ab"}
    assert matcher.accept(ids(b"a")[0])
    assert set(matcher.allowed()) == {END, OTHER_END, *ids(b"b")}
    assert matcher.accept(ids(b"b")[0])
    assert list(matcher.allowed()) == [END, OTHER_END], "nothing but the end is left"


def test_an_end_or_control_token_named_by_a_grammar_ends_nothing_half_way() -> None:
    matcher = Matcher(VOCABULARY, pack_grammar("lark", 'start: (<[0]> | <[2]> | "x") "y"'))
    assert set(matcher.allowed()) == {CONTROL, *ids(b"x")}


def test_a_schema_allows_its_json_and_nothing_else() -> None:
    grammar = schema(
        {
            "type": "object",
            "properties": {"name": {"enum": ["yes", "no"]}},
            "required": ["name"],
            "additionalProperties": False,
        }
    )
    matcher = Matcher(VOCABULARY, grammar)
    assert allowed_texts(matcher) == {b'{"'}, "forced text is cut longest first"
    written = b""
    while (token := int(matcher.allowed()[-1])) > OTHER_END:
        written += PIECES[token]
        matcher.advance(token)
    assert json.loads(written) in ({"name": "yes"}, {"name": "no"})


def test_a_resumed_matcher_stands_where_the_first_one_stood() -> None:
    grammar = pack_grammar("regex", "(ab|ba){3}")
    whole = Matcher(VOCABULARY, grammar)
    text = ids(b"abbaab")
    for count in range(len(text) + 1):
        again = Matcher(VOCABULARY, grammar, text[:count])
        assert list(again.allowed()) == list(whole.allowed())
        if count < len(text):
            assert whole.accept(text[count])
    assert "so far" in refused(grammar, (*ids(b"aa"),))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(["[ab]{1,6}", "(yes|no|y)+", "a(b|c.)*d"]))
def test_masks_follow_from_the_text_alone(seed: int, regex: str) -> None:
    grammar, rng = pack_grammar("regex", regex), np.random.default_rng(seed)
    first = Matcher(VOCABULARY, grammar)
    drawn: list[int] = []
    for _ in range(8):
        allowed = first.allowed()
        assert list(allowed) == list(Matcher(VOCABULARY, grammar, drawn).allowed())
        token = int(rng.choice(allowed))
        if token in (END, OTHER_END):
            break
        drawn.append(token)
        first.advance(token)


# ---- what is refused ----

DEEP = '{"items":' * 1600 + "{}" + "}" * 1600
DOUBLING = "\n".join(f"T{i}: T{i - 1} T{i - 1}" for i in range(1, 60))
BRANCHES: list[Any] = [
    {"anyOf": [{"properties": {f"p{i}": {}}}, {"properties": {f"q{i}": {}}}]} for i in range(150)
]
BAD = {
    "no JSON": ("json_schema", '{"type":'),
    "no object": ("json_schema", "[1]"),
    "a lone surrogate": ("json_schema", '{"const":"\\ud800"}'),
    "nested too deep": ("json_schema", DEEP),
    "an unsupported keyword": ("json_schema", '{"type":"array","uniqueItems":true}'),
    "an unsupported keyword, waved through": (
        "json_schema",
        '{"type":"array","uniqueItems":true,"x-guidance":{"lenient":true}}',
    ),
    "a reference elsewhere": ("json_schema", '{"$ref":"file:///etc/hostname"}'),
    "a reference to itself": ("json_schema", '{"$ref":"#"}'),
    "too many branches": ("json_schema", json.dumps({"allOf": BRANCHES})),
    "a regex that is none": ("regex", "(a"),
    "a lookahead": ("regex", "(?=a)b"),
    "parentheses without end": ("regex", "(" * 8000 + "a" + ")" * 8000),
    "a regex that allows nothing": ("regex", r"[^\s\S]"),
    "no rules": ("lark", ""),
    "an unknown rule": ("lark", "start: foo"),
    "rules that never end": ("lark", 'start: start "a"'),
    "rules nested too deep": ("lark", "start: " + "(" * 8000 + '"a"' + ")" * 8000),
    "doubling terminals": ("lark", f'T0: "a"\n{DOUBLING}\nstart: T59'),
}


@pytest.mark.parametrize(("kind", "text"), BAD.values(), ids=BAD.keys())
def test_a_bad_grammar_is_refused_without_quoting_it(kind: str, text: str) -> None:
    packed = pack_grammar(kind, text)
    said = refused(packed)
    assert len(said) < 80, "a message for logs"
    assert not text or text[:12] not in said
    refused(packed), "and again, the same"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("lark", 'start: s\ns: s s s | s s | "a" | ""'),
        ("lark", 'start: start start | "a" |'),
        ("lark", 'start: a{1,9999}\na: b{1,9999}\nb: "a"{1,9999}'),
        ("regex", "(.{1,1000}){1,1000}"),
    ],
)
def test_a_grammar_that_explodes_on_the_way_is_refused_there(kind: str, text: str) -> None:
    matcher = Matcher(VOCABULARY, pack_grammar(kind, text))
    with pytest.raises(ProtocolError) as caught:
        for _ in range(600):
            assert matcher.accept(ids(b"a")[0])
    assert caught.value.code == "grammar_refused"


def test_the_one_who_wrote_a_grammar_is_told_what_is_wrong() -> None:
    assert "uniqueItems" in explain(VOCABULARY, schema({"type": "array", "uniqueItems": True}))
    assert "JSON" in explain(VOCABULARY, pack_grammar("json_schema", "{"))
    assert explain(VOCABULARY, schema({"type": "integer"})) == ""


# ---- what is drawn ----


def test_a_token_outside_the_mask_loses_by_infinity_and_never_fails() -> None:
    logits = np.random.default_rng(3).standard_normal((3, len(PIECES))).astype(np.float32)
    allowed = np.array([4, 9, 200])
    for temperature in (0.0, 1.0):
        sampler = Sampler(temperature=temperature, top_k=0, top_p=1.0, min_p=0.0)
        masks: list[sampling.Allowed] = [allowed, allowed, None]
        compared = sampling.replay(logits, (5, 9, 7), sampler, SEED, 0, (), masks)
        assert compared.margins[0] == math.inf
        assert math.isfinite(compared.margins[1])
        assert math.isfinite(compared.margins[2])
        assert set(compared.drawn[:2]) <= set(allowed.tolist())
