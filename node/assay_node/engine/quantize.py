"""Write a model file in another format: how a demonstration gets a cheaper model.

From a quantized file the result carries that file's rounding, too: good for tests of what an audit
sees, not for serving.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from assay_protocol.errors import AssayError

EXIT_DONE, EXIT_FAILED, EXIT_MISSING = 0, 3, 4

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
    partial = target.with_name(target.name + ".part")
    # In a process of its own, like the engine: a fault in the library must not be ours.
    command = [sys.executable, "-m", __name__, str(source), str(partial), kind, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != EXIT_DONE:
        partial.unlink(missing_ok=True)
        code = "engine_missing" if done.returncode == EXIT_MISSING else "engine_failed"
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise AssayError(code, last)
    partial.replace(target)


def main(source: str, target: str, kind: str, threads: str) -> int:
    """The process: quantize and say by the exit code how it went."""
    try:
        from llama_cpp import llama_cpp as library
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return EXIT_MISSING
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = KINDS[kind], int(threads), True
    code: int = library.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(params)
    )
    if code != 0:
        print(f"llama_model_quantize returned {code}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
