"""The test model, whole and with most of its layers left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from models import remove_layers

NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS: Final = 30  # of the whole


def whole_model() -> Path:
    """What `make setup` keeps in the cache, or the file ASSAY_TEST_MODEL names."""
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / NAME)
    assert found.is_file(), f"put {NAME} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


def shallow_model(target: Path, layers: int) -> Path:
    """The first and last of its layers at `target`, all else as it is: the same kernels on the same
    shapes in less time. What it writes says nothing, so it is for questions of bits alone."""
    remove_layers(whole_model(), target, LAYERS - layers)
    return target
