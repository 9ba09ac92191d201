"""A thin layer over llama.cpp's C calls: a model, a context, a batch, and views of its logits.

Imported only in the engine's child process (and by offline tools), because an assert in the library
ends the process. Nothing here decides anything; loop.py does.

How it computes is the profile's business (profiles.py). What must be avoided:

- A copy of a *range* between KV streams aborts the process: `Context.copy` copies whole sequences.
- With flash attention on a CPU, a row alone in its pass sums long KV memory (512 cells) in as
  many parts as there are threads (`use_split_kv_path` in ggml's ops.cpp), which gives other bits
  than any pass of several rows. So `Context.decode` puts one that counts for nothing beside it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_node.engine import library
from assay_node.engine.costs import lonely
from assay_node.engine.profiles import Profile, library_folder
from assay_node.engine.quantize import KINDS
from assay_protocol.errors import AssayError
from assay_protocol.limits import CARD_PIECE_BYTES_MAX

try:
    import llama_cpp
    from llama_cpp import llama_cpp as _c
except ImportError as missing:  # pragma: no cover - depends on the installation
    raise AssayError("engine_missing", f"llama-cpp-python cannot be loaded: {missing}") from None

# What a build may use of a processor, the latest first: with another one, other bits.
_ISAS: Final = (
    "AMX_INT8",
    "AVX512_BF16",
    "AVX512_VNNI",
    "AVX512",
    "AVX_VNNI",
    "AVX2",
    "AVX",
    "SME",
    "SVE",
    "MATMUL_INT8",
    "DOTPROD",
    "NEON",
)
_KV_TYPES: Final = {"f16": 1}  # ggml_type of ggml.h
_QUANTS: Final = {number: name.lower() for name, number in KINDS.items()} | {0: "f32"}
_VALUE_BYTES_MAX: Final = 64
ADAPTERS_MAX: Final = 16  # of one model: all are kept in memory
_LONG: Final = 256  # tokens of a sequence: from here on llama.cpp pads its KV memory to 512 cells
_LOG_WARNING: Final = 3
_LOG_CONTINUE: Final = 5


def _print_warning(level: int, text: bytes, _user_data: object) -> None:
    if _LOG_WARNING <= level < _LOG_CONTINUE:
        os.write(2, text)


_log = _c.llama_log_callback(_print_warning)  # kept: the library holds only a pointer


def log_to(setter: Callable[[Any, ctypes.c_void_p], None]) -> None:
    """Have a library, whose setter of a log function this is, print no more than warnings."""
    setter(_log, ctypes.c_void_p(0))


class Model:
    """The weights, read once and shared by every context. Raises AssayError("engine_failed")."""

    def __init__(self, path: Path, profile: Profile, gpu_layers: int = -1) -> None:
        _start_library(profile.variant)
        params = _c.llama_model_default_params()
        params.use_extra_bufts = profile.repack
        if gpu_layers >= 0 and _c.llama_supports_gpu_offload():
            params.n_gpu_layers = gpu_layers
        self.handle: Any = _c.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise AssayError("engine_failed", f"llama.cpp cannot load {path.name}")
        vocab: Any = _c.llama_model_get_vocab(self.handle)
        self.n_vocab = int(_c.llama_vocab_n_tokens(vocab))
        self.trained_context = int(_c.llama_model_n_ctx_train(self.handle))
        self.window = int(_c.llama_model_n_swa(self.handle))  # tokens some layers see; 0: all do
        self.eog = frozenset(t for t in range(self.n_vocab) if _c.llama_vocab_is_eog(vocab, t))

    @property
    def quant(self) -> str:
        """The file's format as its header says, such as "q4_0"."""
        number = self.value("general.file_type")
        return _QUANTS.get(int(number), f"type{number}") if number.isdecimal() else "unknown"

    def value(self, key: str) -> str:
        """What the file's header has under `key`, as text; empty if there is nothing."""
        text = ctypes.create_string_buffer(_VALUE_BYTES_MAX)
        size = _c.llama_model_meta_val_str(self.handle, key.encode(), text, len(text))
        return text.value.decode("utf-8", "replace") if size > 0 else ""

    def adapter(self, path: Path) -> Any:
        """Read a LoRA adapter, for contexts made afterwards; it lives as long as the model.

        Raises AssayError("engine_failed") if it is not one of this model. Activated adapters are
        refused: they would be for the tokens after some phrase only.
        """
        handle: Any = _c.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not handle or _c.llama_adapter_get_alora_n_invocation_tokens(handle):
            raise AssayError("engine_failed", f"llama.cpp cannot load the adapter {path.name}")
        return handle

    def pieces(self) -> list[bytes]:
        """The bytes each token adds to an answer, none for control tokens (as cards have them)."""
        vocab: Any = _c.llama_model_get_vocab(self.handle)
        room = ctypes.create_string_buffer(CARD_PIECE_BYTES_MAX)
        found = []
        for token in range(self.n_vocab):
            size = _c.llama_token_to_piece(vocab, token, room, len(room), 0, False)
            found.append(room.raw[: max(0, size)])
        return found

    def close(self) -> None:
        _c.llama_model_free(self.handle)


class Context:
    """KV memory for `sequences` sequences of `context` tokens each, and one batch to fill."""

    def __init__(
        self,
        model: Model,
        *,
        sequences: int,
        context: int,
        batch: int,
        threads: int,
        profile: Profile,
    ) -> None:
        self.n_vocab, self._causal = model.n_vocab, True
        params = _c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * sequences, sequences
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type, params.kv_unified = int(profile.flash), profile.unified
        params.type_k = params.type_v = _KV_TYPES[profile.kv]
        params.no_perf = True
        self.handle: Any = _c.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise AssayError("engine_failed", "llama.cpp cannot make a context of this size")
        self._memory: Any = _c.llama_get_memory(self.handle)
        if not self._memory:
            raise AssayError("engine_failed", "the model only embeds: it cannot generate")
        self._adapter: Any = None
        self._logits_at = 0
        self._views: dict[int, NDArray[np.float32]] = {}  # by rows: at most the batch has
        self._company = profile.flash and not profile.unified and threads > 1 and device() == "cpu"
        self.batch = Batch(batch)

    def adapt(self, adapter: Any) -> None:
        """Decode with this one (of Model.adapter) from now on, or with none."""
        if adapter is self._adapter:
            return
        some = adapter is not None
        handles = (_c.llama_adapter_lora_p_ctypes * 1)(adapter) if some else None
        scales = (ctypes.c_float * 1)(1.0) if some else None
        if _c.llama_set_adapters_lora(self.handle, handles, int(some), scales) != 0:
            raise AssayError("engine_failed", "llama.cpp cannot use an adapter")
        self._adapter = adapter

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all tokens of `sequence` from position `length` on."""
        _c.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def copy(self, source: int, target: int) -> None:
        """Make `target` hold what `source` holds, and nothing else.

        Between KV streams the bytes are copied when the next decode begins: until then neither
        sequence's state may be saved or restored.
        """
        _c.llama_memory_seq_rm(self._memory, target, -1, -1)
        _c.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def state_bytes(self, sequence: int) -> int:
        """How many bytes `state` would take."""
        return int(_c.llama_state_seq_get_size(self.handle, sequence))

    def state(self, sequence: int) -> NDArray[np.uint8]:
        """What `sequence` holds, to be given to `restore`; not between a copy and its decode."""
        state = np.empty(self.state_bytes(sequence), np.uint8)
        wrote = _c.llama_state_seq_get_data(self.handle, _bytes_of(state), len(state), sequence)
        if wrote != len(state):
            raise AssayError("engine_failed", "llama.cpp cannot save a sequence")
        return state

    def restore(self, sequence: int, state: NDArray[np.uint8]) -> None:
        """Make `sequence` hold `state`, and nothing else. At once, unlike a copy."""
        read = _c.llama_state_seq_set_data(self.handle, _bytes_of(state), len(state), sequence)
        if read != len(state):
            raise AssayError("engine_failed", "llama.cpp cannot restore a sequence")

    def decode(self, *, causal: bool = True) -> NDArray[np.float32]:
        """Run the batch; float32[rows wanted, n_vocab], valid until the next call.

        Without `causal` all rows of a sequence see each other.
        """
        rows = self.batch.wanted
        if causal != self._causal:
            _c.llama_set_causal_attn(self.handle, causal)
            self._causal = causal
        added = self.batch.add_company() if self._company else []
        code = _c.llama_decode(self.handle, self.batch.struct())
        for sequence, length in added:
            self.truncate(sequence, length)
        if code != 0:
            raise AssayError("engine_failed", f"llama_decode returned {code}")
        if rows == 0:
            return np.empty((0, self.n_vocab), np.float32)
        return self._rows(ctypes.addressof(_c.llama_get_logits(self.handle).contents), rows)

    def _rows(self, address: int, rows: int) -> NDArray[np.float32]:
        """A view of the library's memory: made once, as long as it does not move its rows."""
        if address != self._logits_at:
            self._logits_at, self._views = address, {}
        view = self._views.get(rows)
        if view is None:
            raw = (ctypes.c_float * (rows * self.n_vocab)).from_address(address)
            view = np.ctypeslib.as_array(raw).reshape(rows, self.n_vocab)
            self._views[rows] = view
        return view

    def close(self) -> None:
        _c.llama_free(self.handle)


class Batch:
    """A llama_batch whose arrays are numpy arrays: filled by slices, copied never.

    It holds tokens or embeddings, as the library wants; these are copied together.
    """

    def __init__(self, capacity: int) -> None:
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        self._pointers = self._sequences.ctypes.data + np.arange(capacity, dtype=np.uint64) * 4
        self._parts: list[tuple[int, int, int]] = []  # sequence, rows, position after the last
        self._embedded: list[NDArray[np.float32]] = []
        self._joined: NDArray[np.float32] | None = None  # kept while the library reads it
        ints = ctypes.POINTER(ctypes.c_int32)
        self._struct = _c.llama_batch()
        self._token_pointer = self._tokens.ctypes.data_as(ints)
        self._struct.token, self._struct.embd = self._token_pointer, None
        self._struct.pos = self._positions.ctypes.data_as(ints)
        self._struct.n_seq_id = self._counts.ctypes.data_as(ints)
        self._struct.seq_id = ctypes.cast(self._pointers.ctypes.data, ctypes.POINTER(ints))
        self._struct.logits = self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self._size = 0
        self.wanted = 0

    def clear(self) -> None:
        self._size = self.wanted = 0
        self._parts, self._embedded, self._joined = [], [], None

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, wanted: int) -> None:
        """Append consecutive tokens of a sequence; logits are wanted after the last `wanted`."""
        assert not self._embedded, "tokens among embeddings"
        begin = self._size
        self._place(len(tokens), position, sequence, wanted)
        self._tokens[begin : self._size] = tokens

    def add_embedded(
        self, rows: NDArray[np.float32], position: int, sequence: int, *, wanted: int
    ) -> None:
        """Append float32[positions, width] in the place of tokens."""
        assert bool(self._size) == bool(self._embedded), "embeddings among tokens"
        self._place(len(rows), position, sequence, wanted)
        self._embedded.append(rows)

    def add_company(self) -> list[tuple[int, int]]:
        """Append a row to each sequence that a pass would take one row of and nothing else, where
        its KV memory is long; these sequences, and their lengths without it.

        There is a cell for it: a job's last token is drawn and not fed.
        """
        ends = {sequence: end for sequence, _, end in self._parts if end >= _LONG}
        alone = (
            lonely(sorted((sequence, rows) for sequence, rows, _ in self._parts)) if ends else ()
        )
        found = [(sequence, ends[sequence]) for sequence in alone if sequence in ends]
        for sequence, end in found:
            if self._embedded:
                self.add_embedded(self._embedded[0][:1], end, sequence, wanted=0)
            else:
                self.add((0,), end, sequence, wanted=0)
        return found

    def _place(self, count: int, position: int, sequence: int, wanted: int) -> None:
        begin, end = self._size, self._size + count
        self._parts.append((sequence, count, position + count))
        assert end <= len(self._tokens), "batch is full"
        self._positions[begin:end] = np.arange(position, position + count)
        self._sequences[begin:end] = sequence
        self._wanted[begin:end] = 0
        self._wanted[end - wanted : end] = 1
        self._size, self.wanted = end, self.wanted + wanted

    def struct(self) -> Any:
        self._struct.n_tokens = self._size
        if self._embedded:
            self._joined = np.ascontiguousarray(np.concatenate(self._embedded), np.float32)
            floats = ctypes.POINTER(ctypes.c_float)
            self._struct.token, self._struct.embd = None, self._joined.ctypes.data_as(floats)
        else:
            self._struct.token, self._struct.embd = self._token_pointer, None
        return self._struct


def _bytes_of(state: NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def device() -> str:
    """Where llama.cpp computes: "gpu" if this build has a backend that takes layers off the CPU."""
    return "gpu" if _c.llama_supports_gpu_offload() else "cpu"


def arithmetic() -> str:
    """The device and the instruction set in use, as loaded: "cpu-avx2", "gpu-avx2"."""
    flags = _c.llama_print_system_info().decode()
    isa = next((name for name in _ISAS if f" {name} = 1" in flags), "base").lower()
    return f"{device()}-{isa}"


def commit() -> str:
    """llama.cpp's commit, as the library itself says."""
    base = ctypes.CDLL(str(_folder() / "libggml-base.so"))
    base.ggml_commit.restype = ctypes.c_char_p
    return str(base.ggml_commit().decode()).removesuffix("-dirty")


def _folder() -> Path:
    return library_folder() or Path(llama_cpp.__path__[0]) / "lib"


def _start_library(variant: str) -> None:
    if llama_cpp.__version__ != library.VERSION:
        raise AssayError("engine_missing", f"llama-cpp-python {library.VERSION} is needed")
    log_to(_c.llama_log_set)
    folder = _folder()
    if any(folder.glob("libggml-cpu-*")):  # variants: somebody has to choose one
        ggml = ctypes.CDLL(str(folder / "libggml.so"))
        load = ggml.ggml_backend_load if variant else ggml.ggml_backend_load_all_from_path
        load.argtypes, load.restype = [ctypes.c_char_p], ctypes.c_void_p
        load(os.fsencode(folder / f"libggml-cpu-{variant}.so" if variant else folder))
    _c.llama_backend_init()
