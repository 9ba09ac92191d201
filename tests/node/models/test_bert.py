"""BERT from a sentence-transformers folder to GGUF: what is written, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st

from assay_node.models.bert import convert_bert, main, read_safetensors
from assay_node.models.gguf import read_header
from assay_protocol.errors import AssayError
from bert_cases import (
    CONFIG,
    LAYERS,
    POSITIONS,
    WORDS,
    bert_tensors,
    safetensors,
    write_bert,
)

MEAN, CLS, LAST = 1, 2, 3  # llama_pooling_type of llama.h


@pytest.mark.parametrize(("pooling", "number"), [("mean", MEAN), ("cls", CLS), ("last", LAST)])
def test_the_header_says_what_the_folder_said(tmp_path: Path, pooling: str, number: int) -> None:
    target = convert_bert(write_bert(tmp_path / "tiny", pooling), tmp_path / "tiny.gguf")
    header = read_header(target)
    assert header.architecture == "bert"
    assert header.text("general.name") == "tiny"
    assert header.number("pooling_type") == number
    assert header.number("context_length") == POSITIONS
    assert header.values["bert.attention.causal"] is False
    assert header.lengths["tokenizer.ggml.tokens"] == len(WORDS)
    assert header.values["tokenizer.ggml.bos_token_id"] == WORDS.index("[CLS]")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny", "tiny.gguf"]


def test_without_a_pooling_file_none_is_claimed(tmp_path: Path) -> None:
    target = convert_bert(write_bert(tmp_path / "tiny", None), tmp_path / "tiny.gguf")
    assert "bert.pooling_type" not in read_header(target).values


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_every_weight_arrives(tmp_path: Path, kind: str) -> None:
    target = convert_bert(write_bert(tmp_path / "tiny"), tmp_path / "tiny.gguf", kind=kind)
    there = {tensor.name: tensor.data for tensor in GGUFReader(target).tensors}
    ours = bert_tensors()
    assert len(there) == len(ours) == 3 + 2 + 16 * LAYERS
    names = {
        "token_embd.weight": "embeddings.word_embeddings.weight",
        "position_embd.weight": "embeddings.position_embeddings.weight",
        "blk.1.attn_k.weight": "encoder.layer.1.attention.self.key.weight",
        "blk.0.ffn_down.bias": "encoder.layer.0.output.dense.bias",
    }
    for name, source in names.items():
        halved = kind == "f16" and name in ("token_embd.weight", "blk.1.attn_k.weight")
        assert there[name].dtype == (np.float16 if halved else np.float32)
        assert np.array_equal(there[name], ours[source].astype(there[name].dtype))


def test_words_are_marked_where_they_begin(tmp_path: Path) -> None:
    target = convert_bert(write_bert(tmp_path / "tiny"), tmp_path / "tiny.gguf")
    tokens = GGUFReader(target).fields["tokenizer.ggml.tokens"].contents()
    assert tokens[:2] == ["[PAD]", "[UNK]"]
    assert tokens[5] == "\u2581word0"
    assert tokens[WORDS.index("##ing")] == "ing"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_type": "gpt2"}, "config_invalid"),
        ({"hidden_act": "relu"}, "config_invalid"),
        ({"num_hidden_layers": 0}, "config_invalid"),
        ({"hidden_size": "many"}, "config_invalid"),
        ({"num_hidden_layers": 1}, "config_invalid"),  # the file has tensors of a second one
        ({"vocab_size": 3}, "model_corrupt"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    folder = write_bert(tmp_path / "tiny", config=CONFIG | change)
    assert _code(folder, tmp_path) == code


def test_a_pooling_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "tiny")
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert _code(folder, tmp_path) == "config_invalid"


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    folder = write_bert(tmp_path / "tiny")
    (folder / name).unlink()
    assert _code(folder, tmp_path) == "model_missing"


def _code(folder: Path, tmp_path: Path) -> str:
    target = tmp_path / "refused.gguf"
    with pytest.raises(AssayError) as refused:
        convert_bert(folder, target)
    assert not target.exists()
    return refused.value.code


def test_the_command_prints_the_path_or_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bert(tmp_path / "tiny")
    assert main([str(folder), str(tmp_path / "t.gguf"), "--kind", "f32"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 't.gguf'}\n"
    assert main([str(tmp_path), str(tmp_path / "x.gguf")]) == 1
    assert "model_missing" in capsys.readouterr().err


def test_tensors_are_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(safetensors(bert_tensors()))
    read = read_safetensors(file)
    assert read.keys() == bert_tensors().keys()
    for name, tensor in bert_tensors().items():
        assert np.array_equal(read[name], tensor)


_ENTRIES = st.dictionaries(
    st.sampled_from(["dtype", "shape", "data_offsets"]),
    st.sampled_from(
        ["F32", "BF16", [2], [-2, -1], [1 << 60], [0, 8], [8, 0], [0, 1 << 62], 1, None]
    ),
)


@given(
    st.binary(max_size=40)
    | st.dictionaries(st.text(max_size=3), _ENTRIES | st.integers()).map(
        lambda header: struct.pack("<Q", len(json.dumps(header))) + json.dumps(header).encode()
    )
)
def test_any_bytes_give_tensors_or_model_corrupt(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    file.write_bytes(data)
    codes = set()
    try:
        read_safetensors(file)
    except AssayError as error:
        codes.add(error.code)
    assert codes <= {"model_corrupt"}


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "tiny")
    data = (folder / "model.safetensors").read_bytes()
    for end in (0, 4, 8, 100, len(data) - 1):
        (folder / "model.safetensors").write_bytes(data[:end])
        assert _code(folder, tmp_path) == "model_corrupt"
