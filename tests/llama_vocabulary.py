"""Vocabularies inside llama.cpp itself, to compare ours with, and files of small ones."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from assay_node.engine import vocabularies

MARKERS = ("<unk>", "<s>", "</s>", "<|user|>", "<|endoftext|>")
VOCABULARIES = vocabularies.installed()
needs_vocabularies = pytest.mark.skipif(
    VOCABULARIES is None, reason="llama.cpp's vocabularies are not here (scripts/setup.sh)"
)


class LlamaVocabulary:
    """The vocabulary of one GGUF file as llama.cpp reads it."""

    def __init__(self, llama: Any, vocab: Any) -> None:
        self._llama, self._vocab = llama, vocab
        self._buffer = ctypes.create_string_buffer(1 << 12)

    def encode(self, text: str, special: bool = False, *, whole: bool = False) -> tuple[int, ...]:
        """Ids of `text`; `whole` adds what the model begins and ends a text with."""
        data = text.encode()
        ids = (self._llama.llama_token * (len(data) + 8))()
        n = self._llama.llama_tokenize(self._vocab, data, len(data), ids, len(ids), whole, special)
        assert n >= 0
        return tuple(ids[:n])

    def piece(self, token: int) -> bytes:
        """The bytes `token` adds to an answer."""
        size = len(self._buffer)
        n = self._llama.llama_token_to_piece(self._vocab, token, self._buffer, size, 0, False)
        assert n >= 0
        return self._buffer.raw[:n]

    def ends(self, token: int) -> bool:
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token))


@contextmanager
def opened(path: Path) -> Iterator[LlamaVocabulary]:
    """Without weights, without a word on stderr."""
    llama = pytest.importorskip("llama_cpp.llama_cpp")
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    parameters = llama.llama_model_default_params()
    parameters.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, path
    yield LlamaVocabulary(llama, llama.llama_model_get_vocab(model))
    llama.llama_model_free(model)


def with_pre(path: Path, pre: str, target: Path) -> Path:
    """A copy of the file whose `tokenizer.ggml.pre` says `pre`, which llama.cpp reads anew."""
    data = path.read_bytes()
    key = b"tokenizer.ggml.pre"
    at = data.index(struct.pack("<Q", len(key)) + key) + 8 + len(key)
    kind, length = struct.unpack_from("<IQ", data, at)
    assert kind == 8  # a string
    written = pre.encode()
    value = struct.pack("<IQ", 8, len(written)) + written
    target.write_bytes(data[:at] + value + data[at + 12 + length :])
    return target


def write_sentence_pieces(
    path: Path, words: Sequence[tuple[str, float]], *, name: str = "made", space_first: bool = True
) -> Path:
    """A SentencePiece vocabulary: MARKERS, all bytes, then `words` with their scores. A word that
    ends in a line feed is user defined."""
    singles = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = [text for text, _ in words]
    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*MARKERS, *singles, *texts])
    writer.add_token_scores([0.0] * (len(MARKERS) + 256) + [score for _, score in words])
    kinds = [4 if text.endswith("\n") else 1 for text in texts]
    writer.add_token_types([2, 3, 3, 3, 3, *[6] * 256, *kinds])
    writer.add_add_space_prefix(space_first)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
