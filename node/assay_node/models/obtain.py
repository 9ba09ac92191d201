"""Gets the file of a card into the models folder: found there, or room made and fetched.

Other nodes are asked first, because they are many and cost nobody a hub's bandwidth; what they
send proves itself. Then the hub the card names.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import trio

from assay_network.host import open_host
from assay_network.logs import get_logger
from assay_node.models.fetch import Progress
from assay_node.models.library import ModelLibrary
from assay_node.models.peers import BlockPeer, PeerFetch, forget_parts
from assay_node.models.store import ModelStore
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

log = get_logger("models")


def obtain(
    card: ModelCard,
    folder: Path,
    quota_bytes: int = 0,
    progress: Progress | None = None,
    peers: Sequence[BlockPeer] = (),
) -> Path:
    """The checked file of `card` in `folder`. Blocks for long; a cut download is taken up again.

    Call it where no trio runs: in a thread of its own, if need be. Longest unused files that were
    fetched before make room under the quota. Raises AssayError "model_missing",
    "model_corrupt", "gguf_invalid" or "disk_full".
    """
    store, models = ModelStore(folder), ModelLibrary(folder, quota_bytes)
    try:
        path = store.find(card)
    except AssayError as error:
        if error.code != "model_missing":
            raise
    else:
        models.touch(path)
        return path
    models.make_room(card.size_bytes)
    found = _from_peers(card, folder, progress, peers) if peers else None
    path = found or store.find_or_fetch(card, progress)
    forget_parts(card, folder)
    models.add(path, card.digest, fetched=True)
    return path


def _from_peers(
    card: ModelCard, folder: Path, progress: Progress | None, peers: Sequence[BlockPeer]
) -> Path | None:
    """Under a key of the moment: who asks for which model is nobody's business."""

    async def fetch() -> Path:
        async with open_host(secrets.token_bytes(32)) as host:
            return await PeerFetch(host, card, folder, progress).run(peers)

    try:
        return trio.run(fetch)
    except AssayError as error:
        if error.code == "disk_full":
            raise
        log.warning("peers_gave_no_model", code=error.code)
        return None
