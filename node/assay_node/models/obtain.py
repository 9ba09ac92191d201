"""Gets the file of a card into the models folder: found there, or room made and fetched."""

from __future__ import annotations

from pathlib import Path

from assay_node.models.fetch import Progress
from assay_node.models.library import ModelLibrary
from assay_node.models.store import ModelStore
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError


def obtain(
    card: ModelCard, folder: Path, quota_bytes: int = 0, progress: Progress | None = None
) -> Path:
    """The checked file of `card` in `folder`. Blocks for long; a cut download is taken up again.

    Longest unused files that were fetched before make room under the quota. Raises AssayError
    "model_missing", "model_corrupt", "gguf_invalid" or "disk_full".
    """
    store, models = ModelStore(folder), ModelLibrary(folder, quota_bytes)
    try:
        path = store.find(card)
    except AssayError as error:
        if error.code != "model_missing":
            raise
        models.make_room(card.size_bytes)
        path = store.find_or_fetch(card, progress)
        models.add(path, card.digest, fetched=True)
    else:
        models.touch(path)
    return path
