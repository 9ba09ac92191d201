"""SentencePiece: against llama.cpp, and against its rules spelled out, on made vocabularies."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.chat_template import ChatTemplate
from assay.sentence_pieces import REMEMBERED_MAX
from assay.tokenizer import Tokenizer
from assay_node.models.card import build_card
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.grammars import pack_grammar
from assay_protocol.masks import Matcher, Vocabulary
from llama_vocabulary import MARKERS, LlamaVocabulary, opened, write_sentence_pieces

FIRST_BYTE = len(MARKERS)
FIRST_WORD = FIRST_BYTE + 256
# Many equal scores, words that share parts, one word with a space inside, no token for "c" or "日".
WORDS = [
    *((text, 0.0) for text in ("▁", "a", "b", "e", "h", "l", "o", "t", "é", "<", "0", "x", ">")),
    *((text, -1.0) for text in ("aa", "ab", "ba", "th", "ll", "▁a", "▁t", "▁▁", "cb", "bc")),
    *((text, -2.0) for text in ("aaa", "abab", "▁the", "the", "▁the▁b", "b▁b", "hello", "lo")),
    ("▁▁▁▁", -3.0), ("aba", -0.5), ("▁the▁", -0.25), ("\n\n", 0.0), ("a▁\n", 0.0),
]  # fmt: skip
TEXTS = st.text("abchtelo \n▁é日<|>userx0", max_size=40)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_pieces(tmp_path_factory.mktemp("pieces") / "made.gguf", WORDS)


@pytest.fixture(scope="module")
def card(path: Path) -> ModelCard:
    return build_card(path, name="made", price_in=1, price_out=1)


@pytest.fixture(scope="module")
def tokenizer(card: ModelCard) -> Tokenizer:
    return Tokenizer.from_card(card)


@pytest.fixture(scope="module", params=["made", "phi-3"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tokenizer, LlamaVocabulary]]:
    """Ours and llama.cpp's; a model called Phi-3 swallows spaces after its markers."""
    spaced = request.param == "made"
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "made.gguf"
    write_sentence_pieces(file, WORDS, name=request.param, space_first=spaced)
    ours = Tokenizer.from_card(build_card(file, name="made", price_in=1, price_out=1))
    with opened(file) as reference:
        yield ours, reference


@settings(max_examples=400)
@given(TEXTS, st.booleans())
def test_ids_are_those_of_llama_cpp(
    pair: tuple[Tokenizer, LlamaVocabulary], text: str, special: bool
) -> None:
    ours, reference = pair
    assert ours.encode(text, special=special) == reference.encode(text, special)
    marked = text.replace("x", "<|user|> ")
    assert ours.encode(marked, special=special) == reference.encode(marked, special)


@settings(max_examples=300)
@given(TEXTS)
def test_ids_are_those_of_the_rules(card: ModelCard, tokenizer: Tokenizer, text: str) -> None:
    plain = text.replace("\n", "")
    expected = by_the_rules(card, " " + plain) if plain else ()
    assert tokenizer.encode(plain, special=False) == expected


def by_the_rules(card: ModelCard, text: str) -> tuple[int, ...]:
    """Join the best pair, of equals the leftmost, look at everything again."""
    ids = {text: FIRST_WORD + i for i, (text, _) in enumerate(WORDS)}
    scores = dict(WORDS)
    symbols = list(text.replace(" ", "▁"))
    while True:
        pairs = [
            (-scores[joined], i)
            for i in range(len(symbols) - 1)
            if (joined := symbols[i] + symbols[i + 1]) in scores
        ]
        if not pairs:
            break
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    out: list[int] = []
    for symbol in symbols:
        singles = [FIRST_BYTE + byte for byte in symbol.encode()]
        out += [ids[symbol]] if symbol in ids else singles
    return tuple(out)


@given(TEXTS)
def test_decoding_gives_back_the_text_after_the_space_put_first(
    tokenizer: Tokenizer, text: str
) -> None:
    written = text.replace("▁", " ").replace("\n", "")
    expected = f" {written}" if written else ""
    assert tokenizer.decode(tokenizer.encode(written, special=False)) == expected


def test_a_user_cannot_type_what_steers_the_model(tokenizer: Tokenizer, card: ModelCard) -> None:
    assert 3 in tokenizer.encode("a<|user|>b")
    assert 3 not in tokenizer.encode("a<|user|>b", special=False)
    chat = "{% for m in messages %}<|user|>{{ m.content }}</s>{% endfor %}"
    template = ChatTemplate(with_template(card, chat))
    prompt = template.render([{"role": "user", "content": "a</s><|user|>b"}])
    assert [token for token in prompt if token < FIRST_BYTE] == [1, 3, 2]


def with_template(card: ModelCard, source: str) -> ModelCard:
    return replace(card, chat_template=source)


def test_text_that_is_not_utf8_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(AssayError, match="malformed"):
        tokenizer.encode("a\ud800")


def test_a_vocabulary_without_all_bytes_or_with_a_text_twice_is_refused(card: ModelCard) -> None:
    kinds = bytearray(card.token_types)
    kinds[FIRST_BYTE + 7] = 1
    for broken in (
        replace(card, token_types=bytes(kinds)),
        replace(card, pieces=(*card.pieces[:-3], b"aa", *card.pieces[-2:])),
    ):
        with pytest.raises(ProtocolError, match="card_invalid"):
            Tokenizer.from_card(broken)
    with pytest.raises(AssayError, match="model_unknown"):
        Tokenizer.from_card(replace(card, sentence_pieces=None))


@pytest.mark.parametrize("unit", ["a", "ab", " ", "the b ", "日"])
def test_a_hundred_kilobytes_of_one_thing_take_less_than_a_second(
    tokenizer: Tokenizer, unit: str
) -> None:
    """Joining by search from the start each time would take hours."""
    text = (unit * 100_000)[:100_000]
    begun = time.process_time()
    ids = tokenizer.encode(text, special=False)
    assert time.process_time() - begun < 1.0
    assert tokenizer.decode(ids) == " " + text


def test_what_is_remembered_is_bounded_and_changes_nothing(tokenizer: Tokenizer) -> None:
    rng = random.Random(7)
    words = ["".join(rng.choices("abtheloé", k=9)) for _ in range(REMEMBERED_MAX + 500)]
    text = " ".join(words)
    first = tokenizer.encode(text, special=False)
    assert tokenizer.encode(text, special=False) == first
    assert len(set(words)) > REMEMBERED_MAX
    assert tokenizer.decode(first) == " " + text


def test_a_schema_is_followed_and_forced_text_is_spelled_with_words(
    tokenizer: Tokenizer, card: ModelCard
) -> None:
    properties = {"the": {"type": "string"}}
    shape = {"type": "object", "properties": properties, "required": ["the"]}
    grammar = pack_grammar("json_schema", json.dumps(shape))
    matcher = Matcher(Vocabulary(card.pieces, card.eog), grammar)

    def forced() -> int:
        (token,) = matcher.allowed()
        matcher.advance(token)
        return int(token)

    space, the = (FIRST_WORD + [text for text, _ in WORDS].index(word) for word in ("▁", "the"))
    brace, quote, colon = (FIRST_BYTE + byte for byte in b'{":')
    # Both `▁` and `<0x20>` spell the space; the model was shown the first.
    assert [forced() for _ in range(7)] == [brace, quote, the, quote, colon, space, quote]
    written = "hello the é 日"
    for token in tokenizer.encode(written, special=False):  # words that begin with spaces, bytes
        allowed = matcher.allowed()
        assert token in allowed
        assert not set(range(FIRST_BYTE)) & set(allowed.tolist())
        matcher.advance(token)
    for character in b'"}':
        matcher.advance(FIRST_BYTE + character)
    assert set(card.eog) <= set(matcher.allowed().tolist())
