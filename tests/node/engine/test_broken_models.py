"""Files that are no models, given to the engine's process itself: a code, and the node lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_node.engine.supervisor import open_llama_engine
from assay_protocol.errors import AssayError
from gguf_cases import VALUES, gguf

pytestmark = pytest.mark.slow
WHOLE = gguf()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage" * 1000,
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-1],
        gguf(VALUES | {"general.architecture": "nobody-knows-it"}),
        WHOLE[:8] + b"\xff" * 16 + WHOLE[24:],
        WHOLE,  # whole, but without a vocabulary or most of its tensors
    ],
)
async def test_a_broken_file_is_refused_by_the_engine(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("llama_cpp")
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(AssayError) as refused:
        async with open_llama_engine(path, bytes(32), slots=1, context=64, threads=1):
            raise AssertionError("it was loaded")
    assert refused.value.code == "engine_failed"
