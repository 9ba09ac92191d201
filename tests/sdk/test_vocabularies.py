"""Every vocabulary that llama.cpp carries, and every name of a pre-tokenizer we claim to know,
against llama.cpp itself, id by id.

The vocabularies are files without weights out of llama.cpp's sources (`make setup` keeps them in
the cache). Names that none of them has are tried on GPT-2's vocabulary with that name written in:
merges differ from the real model's, what is compared is how text is cut and which flags hold.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from assay.tokenizer import Tokenizer
from assay.word_rules import WORD_RULES
from assay_node.models.card import build_card
from assay_protocol.cards import ModelCard, TokenType
from llama_vocabulary import (
    VOCABULARIES,
    LlamaVocabulary,
    needs_vocabularies,
    opened,
    with_pre,
)
from tokenizer_corpus import corpus

pytestmark = [pytest.mark.model, needs_vocabularies]
# bert: ours is the model's own WordPiece, which is not llama.cpp's; nomic-bert-moe is Unigram.
FILES = [
    "aquila", "baichuan", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4",
    "gpt-2", "gpt-neox", "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact",
    "starcoder",
]  # fmt: skip
CASES_END = "\n__ggml_vocab_test__\n"
Pair = tuple[Tokenizer, LlamaVocabulary]


def file_of(name: str) -> Path:
    assert VOCABULARIES is not None
    return VOCABULARIES / f"ggml-vocab-{name}.gguf"


@cache
def texts() -> list[str]:
    return [*corpus(), *_random_texts(200)]


def _random_texts(count: int) -> list[str]:
    """Characters from all planes, so scripts no corpus has."""
    rng = random.Random(20261126)
    bands = ((0x20, 0x7F), (0, 0x3000), (0x3000, 0xD800), (0xE000, 0x11000), (0x11000, 0x32000))
    return [
        "".join(chr(rng.randrange(*rng.choice(bands))) for _ in range(rng.randrange(1, 30)))
        for _ in range(count)
    ]


def differences(pair: Pair, texts: list[str], specials: tuple[bool, ...] = (True, False)) -> list:  # type: ignore[type-arg]
    ours, reference = pair
    return [
        (text, special)
        for text in texts
        for special in specials
        if ours.encode(text, special=special) != reference.encode(text, special)
    ]


@pytest.fixture(scope="module", params=FILES)
def vocabulary(request: pytest.FixtureRequest) -> Iterator[tuple[ModelCard, Pair]]:
    path = file_of(request.param)
    card = build_card(path, name=request.param, price_in=1, price_out=1)
    with opened(path) as reference:
        yield card, (Tokenizer.from_card(card), reference)


def test_a_corpus_is_encoded_as_llama_cpp_does(vocabulary: tuple[ModelCard, Pair]) -> None:
    card, pair = vocabulary
    assert differences(pair, texts()) == []
    markers = [text for _, text in card.texts][:: max(1, len(card.texts) // 40)]
    typed = [f"a {marker} b\n{marker}{marker[:-1]}" for marker in markers]
    assert differences(pair, typed) == []


def test_llama_cpps_own_cases(vocabulary: tuple[ModelCard, Pair]) -> None:
    card, pair = vocabulary
    cases = file_of(card.name).with_suffix(".gguf.inp")
    if not cases.is_file():
        pytest.skip(f"llama.cpp has no cases for {card.name}")
    found = cases.read_text().split(CASES_END)
    assert len(found) > 40
    assert differences(pair, found, (False,)) == []


def test_pieces_and_ends_are_those_of_llama_cpp(vocabulary: tuple[ModelCard, Pair]) -> None:
    card, (_, reference) = vocabulary
    every = 1 if card.n_vocab < 70_000 else 9
    wrong = [
        token
        for token, piece in enumerate(card.pieces)
        if (token % every == 0 or card.token_types[token] != TokenType.NORMAL)
        and reference.piece(token) != piece
        # Written with what stands for no byte: llama.cpp shows "[UNK_BYTE_...]".
        and not (card.token_types[token] == TokenType.UNUSED and card.tokenizer_model == "gpt2")
    ]
    assert wrong == []
    ends = [i for i in range(0, card.n_vocab, every) if reference.ends(i)]
    assert ends == [i for i in card.eog if i % every == 0]
    assert all(reference.ends(i) for i in card.eog)


def test_a_text_begins_as_llama_cpp_begins_it(vocabulary: tuple[ModelCard, Pair]) -> None:
    _, (ours, reference) = vocabulary
    for text in ("", "x", " x"):
        assert ours.encode(text, bos=True) == reference.encode(text, True, whole=True)


@cache
def gpt2() -> ModelCard:
    return build_card(file_of("gpt-2"), name="gpt-2", price_in=1, price_out=1)


@cache
def named(first: str) -> Tokenizer:
    """GPT-2's vocabulary, cut as all the names of one family cut it."""
    return Tokenizer.from_card(replace(gpt2(), tokenizer_pre=first))


@pytest.mark.parametrize("pre", sorted(WORD_RULES))
def test_words_are_cut_as_llama_cpp_cuts_them(pre: str, tmp_path: Path) -> None:
    first = first_of_family(pre)
    with opened(with_pre(file_of("gpt-2"), pre, tmp_path / "named.gguf")) as reference:
        several = texts()[:: 1 if pre == first else 40]
        assert differences((named(first), reference), several, (False,)) == []


def first_of_family(pre: str) -> str:
    return min(name for name, rules in WORD_RULES.items() if rules == WORD_RULES[pre])


def test_letters_numbers_marks_and_signs_are_those_of_llama_cpps_tables(tmp_path: Path) -> None:
    """Where a category begins or ends for either side: fails when a library learns new ones."""
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    edges: set[int] = set()
    for category in "LMNPS":
        runs = pre_tokenizers.Split(Regex(rf"\p{{{category}}}+"), behavior="removed", invert=True)
        for run, _ in runs.pre_tokenize_str(every):
            edges |= {ord(run[0]), ord(run[-1]), ord(run[0]) - 1, ord(run[-1]) + 1}
    assert len(edges) > 2_000
    around = [chr(code) for code in sorted(edges) if not 0xD800 <= code < 0xE000]
    pre = "deepseek-v3"  # the one whose words depend on all five
    ours = named(first_of_family(pre))
    with opened(with_pre(file_of("gpt-2"), pre, tmp_path / "named.gguf")) as reference:
        written = [f"a{sign}1{sign}!{sign} {sign}{sign}" for sign in around]
        assert differences((ours, reference), written, (False,)) == []


@pytest.fixture(scope="module", params=["gpt-2", "phi-3", "llama-spm", "deepseek-llm", "falcon"])
def cheap(request: pytest.FixtureRequest) -> Iterator[Pair]:
    path = file_of(request.param)
    card = build_card(path, name=request.param, price_in=1, price_out=1)
    with opened(path) as reference:
        yield Tokenizer.from_card(card), reference


@settings(max_examples=150)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), max_size=8)
        | st.sampled_from(["<s>", "</s>", "<|end|>", "  ", "\n\n", "\x00", "'ll", "▁", "<0x0A>"]),
        max_size=8,
    ).map("".join),
    st.booleans(),
)
def test_any_text_is_encoded_as_llama_cpp_does(cheap: Pair, text: str, special: bool) -> None:
    assert differences(cheap, [text], (special,)) == []


@pytest.mark.parametrize("unit", ["a", "1", " ", "!", "\n", "é"])
def test_a_hundred_kilobytes_of_one_thing_take_less_than_a_second(cheap: Pair, unit: str) -> None:
    ours, _ = cheap
    text = unit * (100_000 // len(unit.encode()))
    begun = time.process_time()
    ids = ours.encode(text, special=False)
    assert time.process_time() - begun < 1.0
    assert ours.decode(ids).lstrip(" ") == text.lstrip(" ")


@pytest.mark.parametrize("pre", sorted({first_of_family(pre) for pre in WORD_RULES}))
def test_no_run_of_characters_costs_its_square(pre: str) -> None:
    """A pattern that begins anew at each of many spaces would take seconds for these."""
    ours = named(pre)
    for run in (" ", "\t", "A", "1", "'", "\n", "\u0300"):
        text = run * 30_000 + "日"
        begun = time.process_time()
        ours.encode(text, special=False)
        assert time.process_time() - begun < 0.5, run
