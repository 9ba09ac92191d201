"""A LoRA file is looked at before anything loads it, and is the one its card names."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_node.config import Settings
from assay_node.loading import prepare_model
from assay_node.models.adapters import base_of, check_adapter
from assay_node.models.card import file_sha256
from assay_protocol.errors import AssayError
from card_cases import small_card
from gguf_cases import VALUES, gguf
from lora_cases import write_adapter


def code_of(path: Path, architecture: str = "llama") -> str:
    with pytest.raises(AssayError) as refused:
        check_adapter(path, architecture)
    return refused.value.code


def test_a_lora_file_for_the_model_passes_and_nothing_else(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", 1, layers=1)
    check_adapter(adapter, "llama")
    assert code_of(adapter, "gemma3") == "gguf_invalid"
    assert code_of(tmp_path / "none.gguf") == "model_missing"
    model = tmp_path / "model.gguf"
    model.write_bytes(gguf(VALUES))
    assert code_of(model) == "gguf_invalid"
    model.write_bytes(b"no GGUF file")
    assert code_of(model) == "gguf_invalid"


def test_the_file_of_an_adapters_card_is_the_adapters(tmp_path: Path) -> None:
    file = write_adapter(tmp_path / "a.gguf", 1, layers=1)
    card = small_card(adapter=file_sha256(file))
    settings = Settings(card="x", model=str(file), data_dir=str(tmp_path))
    assert prepare_model(settings, card).path == file
    other = write_adapter(tmp_path / "b.gguf", 2, layers=1)
    for path, code in ((other, "model_corrupt"), ("", "config_invalid"), ("no", "model_missing")):
        with pytest.raises(AssayError) as refused:
            wrong = Settings(card="x", model=str(path), data_dir=str(tmp_path))
            prepare_model(wrong, card)
        assert refused.value.code == code


def test_the_model_of_an_adapter_is_found_by_its_file() -> None:
    plain, styled = small_card(), small_card(adapter=bytes(32))
    assert base_of(styled, [styled, plain]) is plain
    with pytest.raises(AssayError):
        base_of(styled, [styled, small_card(digest=b"o" * 32)])
