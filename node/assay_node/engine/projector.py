"""A thin layer over libmtmd's C calls: a projector beside a model, from pixels to embeddings.

Imported only in the engine's child process, as llama.py is. libmtmd cuts, scales and encodes; what
it would put around an image as text stands in the prompt already (`Vision.before`, `Vision.after`),
so only the image's own embeddings are taken.

An image must take a fixed number of positions, whatever its size: whoever counts, prices or checks
a prompt does so without the projector. That is tried at opening with images of other shapes.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_node.engine import llama
from assay_protocol.errors import AssayError
from assay_protocol.limits import IMAGE_SIDE_MAX, IMAGE_TOKENS_MAX, IMAGE_TOKENS_MIN
from assay_protocol.messages import Image

try:
    from llama_cpp import llama_cpp as _c
    from llama_cpp import mtmd_cpp as _m
except (ImportError, OSError) as missing:  # pragma: no cover - depends on the installation
    raise AssayError("engine_missing", f"libmtmd cannot be loaded: {missing}") from None

# Fields for which such a number would be found are not looked at: other shapes tell.
_SHAPES: Final = ((64, 64), (1, 1), (1, IMAGE_SIDE_MAX), (IMAGE_SIDE_MAX, 64))
_MARKER: Final = b"<__image__>"

Embedded = NDArray[np.float32]  # [positions, width of the model]


class Projector:
    """Reads images for `model`; each takes `tokens` positions.

    `whole`: these see each other, so all must be in one decode, with attention that is not causal.
    Raises AssayError("engine_failed") if it is not one of this model, or of a kind that cannot be
    served.
    """

    def __init__(
        self, path: Path, model: llama.Model, *, threads: int, flash: bool, gpu: bool
    ) -> None:
        llama.log_to(_m.mtmd_log_set)
        params = _m.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.flash_attn_type = gpu, threads, int(flash)
        params.print_timings = params.warmup = False
        params.media_marker = _MARKER
        self.handle: Any = _m.mtmd_init_from_file(os.fsencode(path), model.handle, params)
        if not self.handle:
            raise AssayError("engine_failed", f"llama.cpp cannot load the projector {path.name}")
        self._width = int(_c.llama_model_n_embd_inp(model.handle))
        try:
            self.tokens, self.whole = self._looked_at(path.name)
        except AssayError:
            self.close()
            raise

    @property
    def image_bytes(self) -> int:
        """What one embedded image takes."""
        return self.tokens * self._width * 4

    def encode(self, image: Image) -> Embedded:
        """float32[tokens, width]: the same bits for the same pixels, on as many threads as may be.

        Raises AssayError("image_refused") for what the library cannot take.
        """
        with self.chunks(image) as chunks:
            one = chunks.only()
            if _m.mtmd_input_chunk_get_n_tokens(one) != self.tokens:
                raise AssayError("image_refused", "the projector makes another number of positions")
            if _m.mtmd_encode_chunk(self.handle, one) != 0:
                raise AssayError("image_refused", "the projector cannot encode the image")
            address = ctypes.addressof(_m.mtmd_get_output_embd(self.handle).contents)
        raw = (ctypes.c_float * (self.tokens * self._width)).from_address(address)
        embedded = np.ctypeslib.as_array(raw).reshape(self.tokens, self._width).copy()
        if not np.isfinite(embedded).all():
            raise AssayError("image_refused", "the projector makes no numbers of the image")
        embedded.flags.writeable = False
        return embedded

    def chunks(self, image: Image) -> Chunks:
        """What libmtmd makes of it, before anything is encoded."""
        return Chunks(self.handle, image)

    def close(self) -> None:
        _m.mtmd_free(self.handle)

    def _looked_at(self, name: str) -> tuple[int, bool]:
        """How many positions images take, and whether they see each other."""
        if not _m.mtmd_support_vision(self.handle):
            raise AssayError("engine_failed", f"{name} reads no images")
        if _m.mtmd_decode_use_mrope(self.handle):
            raise AssayError("engine_failed", f"{name}: positions in two dimensions are not served")
        found = set()
        for width, height in _SHAPES:
            gray = Image(width=width, height=height, pixels=bytes(3 * width * height))
            with self.chunks(gray) as chunks:
                one = chunks.only(f"{name}: cuts images into several")
                found.add(int(_m.mtmd_input_chunk_get_n_tokens(one)))
                whole = bool(_m.mtmd_decode_use_non_causal(self.handle, one))
        if len(found) > 1:
            raise AssayError("engine_failed", f"{name}: an image's size changes its positions")
        tokens = found.pop()
        if not IMAGE_TOKENS_MIN <= tokens <= IMAGE_TOKENS_MAX:
            raise AssayError("engine_failed", f"{name}: {tokens} positions an image")
        return tokens, whole


class Chunks:
    """What libmtmd makes of a prompt that is one image: text around it, and the image's chunks."""

    def __init__(self, handle: Any, image: Image) -> None:
        self._pixels = (ctypes.c_uint8 * len(image.pixels)).from_buffer_copy(image.pixels)
        self._bitmap = _m.mtmd_bitmap_init(image.width, image.height, self._pixels)
        self._chunks = _m.mtmd_input_chunks_init()
        text = _m.mtmd_input_text(_MARKER, len(_MARKER), False, True)
        bitmaps = (_m.mtmd_bitmap_p_ctypes * 1)(self._bitmap)
        self._code = _m.mtmd_tokenize(handle, self._chunks, ctypes.byref(text), bitmaps, 1)

    def __enter__(self) -> Chunks:
        return self

    def __exit__(self, *_: object) -> None:
        _m.mtmd_input_chunks_free(self._chunks)
        _m.mtmd_bitmap_free(self._bitmap)

    def only(self, otherwise: str = "") -> Any:
        """The image's chunk. Raises AssayError: "image_refused", or "engine_failed" where it is
        said what it means that there is not one."""
        if self._code != 0:
            raise AssayError("image_refused", "llama.cpp cannot take the image")
        count = _m.mtmd_input_chunks_size(self._chunks)
        every = [_m.mtmd_input_chunks_get(self._chunks, place) for place in range(count)]
        images = [
            one
            for one in every
            if _m.mtmd_input_chunk_get_type(one) == _m.MTMD_INPUT_CHUNK_TYPE_IMAGE
        ]
        if len(images) != 1:
            code = "engine_failed" if otherwise else "image_refused"
            raise AssayError(code, otherwise or "the projector cuts the image into several")
        return images[0]
