"""Memory before loading: what it counts, what it gives up first, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_node import loading
from assay_node.config import Settings
from assay_node.models.fit import PROCESS_BYTES, Fit, estimate, fit, gpu_layers
from assay_node.models.gguf import GgufHeader, read_header
from assay_protocol.errors import AssayError
from gguf_cases import VALUES, gguf, tensor

LAYER = 4096
BIG = VALUES | {"llama.context_length": 1 << 16, "llama.block_count": 2}
TENSORS = tuple(
    tensor(name, (32, 32), 0, number * LAYER)
    for number, name in enumerate(("token_embd.weight", "blk.0.x.weight", "blk.1.x.weight"))
)


@pytest.fixture
def header(tmp_path: Path) -> GgufHeader:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(BIG, tensors=TENSORS, weights=bytes(3 * LAYER)))
    return read_header(path)


def test_kv_is_counted_by_hand(header: GgufHeader) -> None:
    need = estimate(header, slots=3, context=1000)
    # 2 layers, 2 heads, keys and values of 8, 2 bytes each; 1024 tokens; a replay is one slot more
    assert need.kv == 2 * 2 * (8 + 8) * 2 * 1024 * 4
    assert need.weights == 3 * LAYER
    assert need.total == need.kv + need.weights + need.compute + PROCESS_BYTES


def test_slots_go_before_context(header: GgufHeader) -> None:
    def room_for(slots: int, context: int) -> int:
        return estimate(header, slots=slots, context=context).total * 100 // 90 + 100

    def fitted(free: int) -> Fit:
        return fit(header, free, slots=8, context=32_768, shrink=True)

    assert fitted(room_for(8, 32_768)) == Fit(8, 32_768)
    assert fitted(room_for(8, 32_768) - 200) == Fit(4, 32_768)
    assert fitted(room_for(1, 32_768)) == Fit(1, 32_768)
    assert fitted(room_for(1, 16_384)) == Fit(1, 16_384)
    with pytest.raises(AssayError, match="slots 4 and context 32768 would fit") as refused:
        fit(header, room_for(4, 32_768), slots=8, context=32_768, shrink=False)
    assert refused.value.code == "model_too_large"
    with pytest.raises(AssayError, match="smaller quant"):
        fitted(PROCESS_BYTES)


def test_layers_go_to_the_gpu_while_they_fit(header: GgufHeader) -> None:
    def layers(vram: int) -> int:
        return gpu_layers(header, vram, slots=1, context=512)

    counts = [layers(vram) for vram in range(0, 8 << 20, 1 << 14)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 3)
    assert set(counts) == {0, 1, 2, 3}


def test_a_start_is_refused_or_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(BIG, tensors=TENSORS, weights=bytes(3 * LAYER)))
    free = [100 << 20, 0]
    monkeypatch.setattr(loading, "free_memory", lambda: tuple(free))
    big = {"slots": 64, "context": 65_536}
    assert loading.fitted_settings(Settings(fit="off", **big), path) == Fit(64, 65_536)
    shrunk = loading.fitted_settings(Settings(**big), path)
    assert shrunk.slots < 64
    with pytest.raises(AssayError, match="would fit"):
        loading.fitted_settings(Settings(fit="refuse", **big), path)
    free[1] = 1 << 30
    assert loading.fitted_settings(Settings(slots=1, context=512), path) == Fit(1, 512, 3)
