"""Where a model file comes from: other nodes first, over TCP; then the hub."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from assay_network.host import open_host
from assay_node.models import store
from assay_node.models.obtain import obtain
from assay_node.models.peers import BlockPeer
from assay_node.models.sharing import BlockServer, hash_blocks, share
from assay_protocol.blocks import block_root
from assay_protocol.links import BLOCKS
from card_cases import small_card
from gguf_cases import gguf

WHOLE = gguf()
CARD = small_card(digest=hashlib.sha256(WHOLE).digest(), size_bytes=len(WHOLE))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that has every file; the names it was asked for."""
    asked: list[str] = []

    def download(card: object, directory: Path, progress: object) -> Path:
        asked.append(CARD.name)
        path = directory / f"{CARD.name}.gguf"
        directory.mkdir(exist_ok=True)
        path.write_bytes(WHOLE)
        return path

    monkeypatch.setattr(store, "fetch_from_hub", download)
    return asked


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[BlockPeer]:
    """A node that shares the file, in a thread of its own."""
    source = tmp_path / "source.gguf"
    source.write_bytes(WHOLE)
    ready, found, stop = threading.Event(), [], trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        async with open_host(bytes(range(32)), ["/ip4/127.0.0.1/tcp/0"]) as host:
            host.serve(BLOCKS, BlockServer([share(CARD, source)], 1e9).handle)
            found.append(BlockPeer(host.public_key, host.addresses))
            token.append(trio.lowlevel.current_trio_token())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10.0)
    yield found[0]
    token[0].run_sync_soon(stop.set)
    thread.join(10.0)


def test_a_node_is_asked_before_the_hub(tmp_path: Path, hub: list[str], sharing: BlockPeer) -> None:
    rooted = replace(CARD, block_root=block_root(len(WHOLE), hash_blocks(tmp_path / "source.gguf")))
    path = obtain(rooted, tmp_path / "models", peers=[sharing])
    assert path.read_bytes() == WHOLE
    assert hub == []
    assert json.loads((tmp_path / "models" / "tiny-1.gguf.json").read_text())["fetched"] is True
    assert obtain(rooted, tmp_path / "models") == path


def test_the_hub_gives_what_no_node_has(tmp_path: Path, hub: list[str]) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / f".{CARD.digest.hex()}.blocks").write_bytes(b"left by an earlier try")
    nobody = BlockPeer(bytes(range(32)), ("/ip4/127.0.0.1/tcp/1",))
    path = obtain(CARD, folder, peers=[nobody])
    assert path.read_bytes() == WHOLE
    assert hub == ["tiny-1"]
    assert sorted(os.listdir(folder)) == [".verified.json", "tiny-1.gguf", "tiny-1.gguf.json"]
