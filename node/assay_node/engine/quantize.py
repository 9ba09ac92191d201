"""Write a model file in another format: how a demonstration gets a cheaper model.

From a quantized file the result carries that file's rounding, too: good for tests of what an audit
sees, not for serving.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from assay_protocol.errors import AssayError

# llama_ftype of llama.h
KINDS: Final[dict[str, int]] = {
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q2_K": 10,
    "Q3_K_M": 12,
    "Q4_K_M": 15,
    "Q6_K": 18,
}


def requantize(source: Path, target: Path, kind: str, *, threads: int = 1) -> None:
    """Write `source` to `target` in `kind` (a key of KINDS); blocks for seconds to minutes.

    The target appears only when complete. Raises AssayError: "config_invalid" for an unknown kind,
    "model_missing", "engine_missing", "engine_failed".
    """
    if kind not in KINDS:
        raise AssayError("config_invalid", f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    if not source.is_file():
        raise AssayError("model_missing", f"no file {source}")
    try:
        from llama_cpp import llama_cpp as library
    except ImportError as missing:
        raise AssayError("engine_missing", str(missing)) from None
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = KINDS[kind], threads, True
    partial = target.with_name(target.name + ".part")
    code = library.llama_model_quantize(
        os.fsencode(source), os.fsencode(partial), ctypes.byref(params)
    )
    if code != 0:
        partial.unlink(missing_ok=True)
        raise AssayError("engine_failed", f"llama_model_quantize returned {code}")
    partial.replace(target)
