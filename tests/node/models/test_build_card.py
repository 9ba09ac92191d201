from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from assay_node.models.card import build_card, file_sha256
from assay_protocol.cards import (
    ModelCard,
    ModelSource,
    SentencePieces,
    TokenType,
    decode_card,
    encode_card,
)
from assay_protocol.errors import AssayError

TOKENS = ["<|endoftext|>", "<|im_start|>", "a", "Ġ", "Ċ", "Ã", "©", "Ġa", "Ã©", "<think>"]
KINDS = [3, 3, 1, 1, 1, 1, 1, 1, 1, 4]
MERGES = ["Ġ a", "Ã ©"]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a GGUF file without tensors; arguments replace or, as None, drop keys."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny.gguf"
        writer = GGUFWriter(path, "llama")
        plan: dict[str, Any] = {
            "add_context_length": 512,
            "add_file_type": 3,
            "add_license": "apache-2.0",
            "add_tokenizer_model": "gpt2",
            "add_tokenizer_pre": "smollm",
            "add_token_list": TOKENS,
            "add_token_types": KINDS,
            "add_token_merges": MERGES,
            "add_bos_token_id": 1,
            "add_eos_token_id": 0,
            "add_chat_template": "{{ messages }}",
        } | changes
        for method, value in plan.items():
            if value is not None:
                getattr(writer, method)(*(value if isinstance(value, tuple) else (value,)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def card_of(path: Path, **options: Any) -> ModelCard:
    return build_card(path, name="tiny", price_in=1, price_out=2, **options)


def test_a_card_says_what_the_file_says(write: Write) -> None:
    path = write()
    source = ModelSource(hf_repo="a/b", filename="tiny.gguf", revision="main")
    card = card_of(path, source=source)
    assert card.digest == hashlib.sha256(path.read_bytes()).digest() == file_sha256(path)
    assert card.size_bytes == path.stat().st_size
    assert (card.architecture, card.quantization, card.context) == ("llama", "Q4_1", 512)
    assert (card.n_vocab, card.bos, card.eos, card.add_bos) == (10, 1, 0, False)
    assert (card.tokenizer_model, card.tokenizer_pre) == ("gpt2", "smollm")
    assert (card.license, card.chat_template) == ("apache-2.0", "{{ messages }}")
    assert (card.price_in, card.price_out, card.source) == (1, 2, source)
    assert decode_card(encode_card(card)) == card


def test_pieces_are_bytes_and_markers_are_silent(write: Write) -> None:
    card = card_of(write())
    expected = (b"", b"", b"a", b" ", b"\n", b"\xc3", b"\xa9", b" a", b"\xc3\xa9", b"<think>")
    assert card.pieces == expected
    assert card.texts == ((0, "<|endoftext|>"), (1, "<|im_start|>"), (9, "<think>"))
    assert card.merges == ((3, 2), (5, 6))
    assert card.token_types == bytes(KINDS)


def test_sentencepiece_pieces(write: Write) -> None:
    card = card_of(
        write(
            add_tokenizer_model="llama",
            add_token_list=["<unk>", "<s>", "</s>", "<0x0A>", "▁a", "b"],
            add_token_types=[2, 3, 3, 6, 1, 5],
            add_token_merges=None,
            add_bos_token_id=None,
            add_eos_token_id=None,
            add_token_scores=[0.0, 0.0, 0.0, 0.0, -1.5, -2.5],
        )
    )
    assert card.pieces == (b"", b"", b"", b"\n", b" a", b"")
    assert (card.bos, card.eos, card.add_bos) == (1, 2, True)  # what such files need not say
    assert card.eog == (2,)
    scores = struct.pack("<6f", 0, 0, 0, 0, -1.5, -2.5)
    expected = SentencePieces(scores=scores, space_first=True, swallows=())
    assert card.sentence_pieces == expected
    assert decode_card(encode_card(card)) == card


def test_what_a_model_called_phi_3_swallows(write: Write) -> None:
    path = write(
        add_name="Phi-3 mini",
        add_tokenizer_model="llama",
        add_token_list=["<unk>", "<s>", "</s>", "<|user|>", "<|unused|>", "b"],
        add_token_types=[2, 3, 4, 3, 5, 1],
        add_token_merges=None,
        add_token_scores=[0.0] * 6,
        add_add_space_prefix=False,
    )
    pieces = card_of(path).sentence_pieces
    assert pieces is not None
    assert (pieces.space_first, pieces.swallows) == (False, (2, 3))


def test_what_surrounds_a_gap_steers_the_model_unless_the_file_names_it(write: Write) -> None:
    texts = ["<PRE>", "<|fim_prefix|>", "<fim_suffix>", "<MID>", "a"]
    listed: dict[str, Any] = {"add_token_list": texts, "add_token_types": [4, 4, 1, 1, 1]}
    quiet: dict[str, Any] = {"add_token_merges": None, "add_eos_token_id": 4}
    card = card_of(write(**listed, **quiet))
    assert list(card.token_types[:4]) == [4, 3, 3, 3]
    named = write(**listed, **quiet, add_uint32=("tokenizer.ggml.fim_mid_token_id", 3))
    card = card_of(named)
    assert list(card.token_types[:4]) == [4, 3, 3, 1]  # by its text it would be a control


def test_a_token_written_with_what_is_no_byte_is_never_used(write: Write) -> None:
    changes = {"add_token_list": [*TOKENS[:9], "日"], "add_token_types": [*KINDS[:9], 1]}
    card = card_of(write(**changes))
    assert (card.token_types[9], card.pieces[9], card.texts[-1]) == (5, b"", (9, "日"))


def test_ends_and_kinds_are_set_as_llama_cpp_sets_them(write: Write) -> None:
    """A marker listed as plain text is still a marker; `<|end|>` is no end beside `<|call|>`."""
    texts = ["<|eot_id|>", "<|end|>", "<|call|>", "<|return|>", "<|channel|>", "[PAD]", "x"]
    changes = {"add_token_list": texts, "add_token_types": [1, 1, 3, 3, 3, 1, 1]}
    card = card_of(write(**changes, add_token_merges=None, add_eos_token_id=3, add_eot_token_id=6))
    assert card.eog == (0, 2, 3, 5, 6)
    control, shown = TokenType.CONTROL, TokenType.USER_DEFINED
    assert list(card.token_types) == [control, shown, control, control, shown, control, control]


def test_what_the_file_need_not_say(write: Write) -> None:
    optional = ("file_type", "license", "tokenizer_pre", "token_types", "token_merges")
    dropped: dict[str, Any] = {f"add_{key}": None for key in optional}
    dropped |= {"add_bos_token_id": None, "add_eos_token_id": None, "add_chat_template": None}
    card = card_of(write(**dropped, add_token_list=["a", "b"]))
    assert (card.quantization, card.license, card.tokenizer_pre) == ("unknown", "", "default")
    assert (card.bos, card.eos, card.eog, card.merges) == (None, None, (), ())
    assert card.token_types == b"\x01\x01"


@pytest.mark.parametrize(
    "changes",
    [
        {"add_token_list": None, "add_token_types": None, "add_token_merges": None},
        {"add_token_list": ["a", "a"], "add_token_types": [1, 1], "add_token_merges": None},
        {"add_token_types": [1]},
        {"add_token_types": [9] * 10},
        {"add_token_merges": ["a zzz"]},
        {"add_token_merges": ["a"]},
        {"add_eos_token_id": 99},
        {"add_tokenizer_model": None},
        {"add_context_length": None},
        {"add_tokenizer_model": "llama", "add_token_scores": [0.0] * 9},
        {"add_tokenizer_model": "llama", "add_token_scores": [float("nan")] * 10},
        {"add_token_list": [*TOKENS[:9], "<0xZZ>"], "add_token_types": [*KINDS[:9], 6]},
    ],
)
def test_a_file_that_contradicts_itself_has_no_card(write: Write, changes: dict[str, Any]) -> None:
    with pytest.raises(AssayError) as refused:
        card_of(write(**changes))
    assert refused.value.code == "card_invalid"


@pytest.mark.parametrize("keep", [0, 3, 24, 200])
def test_a_file_that_is_no_gguf_has_no_card(write: Write, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(write().read_bytes()[:keep])
    with pytest.raises(AssayError) as refused:
        card_of(path)
    assert refused.value.code == "card_invalid"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AssayError) as refused:
        card_of(tmp_path / "nothing.gguf")
    assert refused.value.code == "model_missing"
