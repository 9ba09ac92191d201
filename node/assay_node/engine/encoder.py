"""A thin layer over llama.cpp for embeddings: whole texts in, the last layer's rows out.

Imported only in the engine's child process, like llama.py. Two kinds of models:

- Encoders (BERT and its kin) have no memory between calls; every token sees its whole text, so a
  text must lie in one batch. Texts of one batch are sequences and do not see each other.
- Models that generate have KV memory. A causal one is fed in pieces, as with `embeddings` set
  llama.cpp computes logits for every token of a batch, whatever the batch asks for (output_all in
  llama-context.cpp): 128 rows of a large vocabulary fit into memory, a whole text's might not.

llama.cpp's own pooling is off (pooling.py says why).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as _c
from numpy.typing import NDArray

from assay_node.engine import llama
from assay_node.engine.packing import ALONE, TEXTS_MAX, TOGETHER
from assay_node.engine.profiles import Profile
from assay_protocol.errors import AssayError

PIECE: Final = 128  # tokens of a causal model in one decode

Rows = NDArray[np.float32]


class Encoder:
    """A context of `model` for texts of up to `context` tokens. Raises AssayError on opening."""

    def __init__(self, model: llama.Model, *, context: int, threads: int, profile: Profile) -> None:
        architecture = model.value("general.architecture")
        translates = bool(_c.llama_model_has_encoder(model.handle))
        if translates and _c.llama_model_has_decoder(model.handle):
            raise AssayError("engine_failed", f"{architecture} models are not supported here")
        causal = model.value(f"{architecture}.attention.causal") != "false"
        self.context = min(context, model.trained_context)
        self.dims = int(_c.llama_model_n_embd_out(model.handle))
        whole = max(TEXTS_MAX, TOGETHER, self.context)  # llama.cpp dies of fewer places than texts
        self._batch = llama.Batch(whole)
        self._piece = PIECE if causal else whole
        self._handle = _make(model, whole, self._piece, threads, profile)
        self._memory: Any = _c.llama_get_memory(self._handle)
        if causal and not self._memory:  # an encoder whose header does not say that it is one
            _c.llama_free(self._handle)
            self._handle = _make(model, whole, whole, threads, profile)
        # By flash attention, in a batch this small, a row is computed from its own text's rows and
        # no others, one after the other. Without it they are summed over the whole batch, in its
        # lanes; T5 never uses it, and other builds' kernels and a GPU's were not tried.
        tried = not profile.library and llama.device() == "cpu"
        row_by_row = profile.flash and not translates and tried
        self.together = TOGETHER if row_by_row and not self._memory else ALONE

    def rows(self, texts: Sequence[tuple[int, ...]]) -> list[Rows]:
        """float32[tokens, dims] of each: one text, or several of `together` tokens in all."""
        if self._memory:
            return [self._read(text) for text in texts]
        # One row alone goes through other kernels than one among others: it is computed twice.
        doubled = [*texts, *texts] if sum(map(len, texts)) == 1 else texts
        self._batch.clear()
        for sequence, text in enumerate(doubled):
            self._batch.add(text, 0, sequence, wanted=len(text))
        rows = self._run(_c.llama_encode)
        ends = np.cumsum([len(text) for text in texts])
        return np.split(rows[: ends[-1]], ends[:-1])

    def _read(self, text: tuple[int, ...]) -> Rows:
        """One text's, in pieces, through the memory."""
        _c.llama_memory_clear(self._memory, False)
        pieces = []
        for begin in range(0, len(text), self._piece):
            piece = text[begin : begin + self._piece]
            self._batch.clear()
            self._batch.add(piece, begin, 0, wanted=len(piece))
            pieces.append(self._run(_c.llama_decode))
        return np.concatenate(pieces)

    def _run(self, call: Any) -> Rows:
        """A copy of the batch's rows, as the next call overwrites them."""
        shape = self._batch.wanted, self.dims
        if (code := call(self._handle, self._batch.struct())) != 0:
            raise AssayError("engine_failed", f"llama.cpp returned {code}")
        address = ctypes.cast(_c.llama_get_embeddings(self._handle), ctypes.c_void_p).value
        assert address is not None
        raw = (ctypes.c_float * (shape[0] * shape[1])).from_address(address)
        return np.ctypeslib.as_array(raw).reshape(shape).copy()

    def close(self) -> None:
        _c.llama_free(self._handle)


def _make(model: llama.Model, whole: int, piece: int, threads: int, profile: Profile) -> Any:
    """A context for batches of `piece` tokens; one text at a time where they are not whole."""
    params = _c.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = whole, piece, piece
    params.n_seq_max, params.kv_unified = (TEXTS_MAX if piece == whole else 1), True
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = int(profile.flash)
    params.embeddings, params.pooling_type = True, _c.LLAMA_POOLING_TYPE_NONE
    params.no_perf = True
    handle: Any = _c.llama_init_from_model(model.handle, params)
    if not handle:
        raise AssayError("engine_failed", "llama.cpp cannot make a context of this size")
    return handle
