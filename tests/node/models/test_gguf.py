"""The bounded reader of GGUF headers: right on whole files, and a code for anything else."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay_node.models.gguf import BLOCKS, read_header
from assay_protocol.errors import AssayError
from gguf_cases import VALUES, gguf, pair, tensor, text

WHOLE = gguf()


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(AssayError) as error:
        read_header(path)
    assert error.value.code == "gguf_invalid"
    return error.value.message


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    strings = text("a.list") + struct.pack("<IIQ", 9, 8, 2) + text("one") + text("two")
    numbers = text("b.list") + struct.pack("<IIQ3f", 9, 6, 3, 0, 1, 2)
    path.write_bytes(gguf(extra=(strings, numbers)))
    header = read_header(path)
    assert dict(header.values) == VALUES
    assert dict(header.lengths) == {"a.list": 2, "b.list": 3}
    assert [one.size_bytes for one in header.tensors] == [1024]
    assert header.architecture == "llama"
    assert header.number("context_length") == 512
    with pytest.raises(AssayError, match="no number expert_count"):
        header.number("expert_count")


def test_the_table_of_types_is_that_of_the_format() -> None:
    from gguf.constants import GGML_QUANT_SIZES

    theirs = {int(kind): tuple(sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in BLOCKS} == BLOCKS


@pytest.mark.parametrize("size", range(0, len(WHOLE), 7))
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    refused(tmp_path, WHOLE[:size])


HUGE = (1 << 63) - 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GGML" + WHOLE[4:], "begin like"),
        (WHOLE[:4] + struct.pack("<I", 99) + WHOLE[8:], "version"),
        (WHOLE[:8] + struct.pack("<QQ", HUGE, 1) + WHOLE[24:], "too many tensors"),
        (WHOLE[:8] + struct.pack("<QQ", 1, HUGE) + WHOLE[24:], "too many keys"),
        (WHOLE[:24] + struct.pack("<Q", HUGE) + WHOLE[32:], "text is too long"),
        (gguf(extra=(text("a") + struct.pack("<IIQ", 9, 4, HUGE),)), "array is too long"),
        (gguf(extra=(text("a") + struct.pack("<IIQ", 9, 9, 1),)), "of arrays"),
        (gguf(extra=(text("a") + struct.pack("<IIQQ", 9, 8, 1, HUGE),)), "cut off"),
        (gguf(extra=(text("a") + struct.pack("<I", 77),)), "value type"),
        (gguf(extra=(pair("general.license", "x"),)), "twice"),
        (gguf(extra=(pair("general.alignment", 3),)), "alignment"),
        (gguf({"llama.context_length": 5}), "architecture"),
        (gguf({"general.architecture": 5}), "architecture"),
        (gguf(tensors=(tensor("t", (32, 9), 0, 0),)), "cut off"),
        (gguf(tensors=(tensor("t", (HUGE, 9), 0, 0),)), "impossible size"),
        (gguf(tensors=(tensor("t", (0, 9), 0, 0),)), "impossible size"),
        (gguf(tensors=(tensor("t", (31,), 2, 0),)), "whole blocks"),
        (gguf(tensors=(tensor("t", (32,), 250, 0),)), "tensor type"),
        (gguf(tensors=(tensor("t", (32,), 0, 1),)), "aligned"),
        (gguf(tensors=(tensor("t", (1,) * 9, 0, 0),)), "dimensions"),
        (gguf(tensors=(tensor("t", (32,), 0, 0), tensor("t", (32,), 0, 128))), "one name"),
        (gguf(tensors=(tensor("t", (32,), 0, 0), tensor("u", (32,), 0, 64))), "overlap"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, why: str) -> None:
    assert why in refused(tmp_path, data)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AssayError) as error:
        read_header(tmp_path / "none.gguf")
    assert error.value.code == "model_missing"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.integers(0, len(WHOLE) - 1),
    data=st.one_of(
        st.binary(max_size=64),
        st.sampled_from([struct.pack("<Q", n) for n in (HUGE, 1 << 20, 1 << 32, 0)]),
    ),
)
def test_any_bytes_give_a_header_or_a_code(tmp_path: Path, place: int, data: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(WHOLE[:place] + data + WHOLE[place + len(data) :])
    tracemalloc.start()
    code = "gguf_invalid"
    try:
        read_header(path)
    except AssayError as error:
        code = error.code
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert code == "gguf_invalid"
    assert peak < 4 << 20
