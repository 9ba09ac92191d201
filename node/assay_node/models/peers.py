"""Fetches a model file from several nodes at once, checking every block before it is kept.

Rules: a peer that lies, stalls or breaks the protocol is asked no more, and its block is asked of
another. What is on disk is never believed: at a start each block is hashed against the list. The
file gets its name after its whole sha256 was checked. Without a root in the card the list is one
peer's word; if it proves wrong that peer is blamed and the next one's list is tried.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from assay_network.durable import name_durably
from assay_network.frames import Frames
from assay_network.host import Host
from assay_network.logs import get_logger
from assay_node.coordinator import parse_coordinator
from assay_node.models.card import file_sha256
from assay_node.models.fetch import Progress, check_room, disk_errors
from assay_protocol.blocks import (
    BLOCK,
    HASH_BYTES,
    LIST,
    BlockRequest,
    block_count,
    block_holds,
    block_root,
    block_size,
    check_granted,
    encode_request,
)
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError, ProtocolError, RemoteError
from assay_protocol.limits import BLOCK_BYTES, BLOCK_PIECE_BYTES
from assay_protocol.links import BLOCKS

PEERS_MAX: Final = 8
PIECE_SECONDS_MAX: Final = 20.0  # of silence
BLOCK_SECONDS_MAX: Final = 120.0  # a peer slower than 9 kB/s is no help
LIST_SECONDS_MAX: Final = 600.0

log = get_logger("blocks")


@dataclass(frozen=True, slots=True)
class BlockPeer:
    """A node that may have the file."""

    key: bytes
    addresses: tuple[str, ...]


def block_peers(texts: Sequence[str]) -> tuple[BlockPeer, ...]:
    """Nodes named as a coordinator is. Raises AssayError("config_invalid")."""
    named = [parse_coordinator(text) for text in texts]
    return tuple(BlockPeer(one.key, one.addresses) for one in named)


def forget_parts(card: ModelCard, folder: Path) -> None:
    """Delete what an unfinished fetch of this file left."""
    for path in _parts(card, folder):
        path.unlink(missing_ok=True)


class PeerFetch:
    """One file on its way. `dropped` tells which peers failed, with the code."""

    def __init__(
        self, host: Host, card: ModelCard, folder: Path, progress: Progress | None = None
    ) -> None:
        self._host, self._card, self._folder = host, card, folder
        self._progress = progress
        self._data, self._list = _parts(card, folder)
        self._hashes = b""
        self._todo: collections.deque[int] = collections.deque()
        self._missing = 0
        self._fault: Exception | None = None
        self._changed = trio.Event()
        self.dropped: dict[bytes, str] = {}

    async def run(self, peers: Sequence[BlockPeer]) -> Path:
        """The checked file under its name. What was fetched stays on disk if this fails.

        Raises AssayError "model_missing" (no peer had the rest), "model_corrupt" (the card's root
        and sha256 contradict each other) or "disk_full".
        """
        check_room(self._folder, self._card.size_bytes, self._folder / ".none")
        peers = peers[:PEERS_MAX]
        with disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                giver = await self._learn_list(peers)
                await self._fetch_all([peer for peer in peers if peer.key not in self.dropped])
                if await trio.to_thread.run_sync(file_sha256, self._data) == self._card.digest:
                    return self._finish()
                forget_parts(self._card, self._folder)
                if self._card.block_root is not None:
                    raise AssayError("model_corrupt", "the card's root is not that of its file")
                if giver is not None:
                    self._drop(giver, "model_corrupt")

    async def _learn_list(self, peers: Sequence[BlockPeer]) -> BlockPeer | None:
        """Take the list from disk, or from the first peer with a good one; who gave it."""
        if self._list.is_file() and self._accept_list(self._list.read_bytes()):
            return None
        for peer in peers:
            if peer.key in self.dropped:
                continue
            try:
                async with self._open(peer, LIST, 0) as frames:
                    with trio.fail_after(LIST_SECONDS_MAX):
                        size = HASH_BYTES * block_count(self._card.size_bytes)
                        hashes = await _receive(frames, size)
                if not self._accept_list(hashes):
                    raise ProtocolError("proof_invalid", "a block list of another root")
                self._list.write_bytes(hashes)
                return peer
            except (AssayError, trio.TooSlowError) as error:
                self._drop(peer, _code(error))
        raise AssayError("model_missing", "no peer has the list of blocks")

    def _accept_list(self, hashes: bytes) -> bool:
        size = self._card.size_bytes
        if len(hashes) != HASH_BYTES * block_count(size):
            return False
        self._hashes = hashes
        return self._card.block_root in (None, block_root(size, hashes))

    async def _fetch_all(self, peers: Sequence[BlockPeer]) -> None:
        self._todo.extend(await trio.to_thread.run_sync(self._absent))
        self._missing = len(self._todo)
        self._tell()
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._ask, peer, nursery.cancel_scope)
        if self._fault is not None:
            raise self._fault
        if self._missing:
            self._todo.clear()
            raise AssayError("model_missing", f"no peer gave the last {self._missing} blocks")

    def _absent(self) -> list[int]:
        """Which blocks are not, or not right, in the file on disk."""
        absent = []
        with self._data.open("a+b") as file:
            file.seek(0)
            for index in range(block_count(self._card.size_bytes)):
                block = file.read(block_size(self._card.size_bytes, index))
                if not block_holds(self._hashes, index, block):
                    absent.append(index)
            file.truncate(self._card.size_bytes)
        return absent

    async def _ask(self, peer: BlockPeer, everybody: trio.CancelScope) -> None:
        """One peer's stream: a block after the other until nothing is missing or it fails."""
        index: int | None = None
        try:
            while (index := await self._next()) is not None:
                async with self._open(peer, BLOCK, index) as frames:
                    while index is not None:
                        await self._take(frames, index)
                        if (index := await self._next()) is not None:
                            request = BlockRequest(BLOCK, self._card.digest, index)
                            with trio.fail_after(PIECE_SECONDS_MAX):
                                await frames.send(encode_request(request))
        except (AssayError, trio.TooSlowError) as error:
            if _code(error) == "disk_full" and not isinstance(error, RemoteError):
                self._fault = error
                everybody.cancel()
            else:
                self._drop(peer, _code(error))
        finally:
            if index is not None:
                self._todo.append(index)
            self._stir()

    async def _next(self) -> int | None:
        """A block to ask for; None when all are here. Waits while others' may still fail."""
        while not self._todo:
            if not self._missing:
                return None
            await self._changed.wait()
        return self._todo.popleft()

    async def _take(self, frames: Frames, index: int) -> None:
        with trio.fail_after(BLOCK_SECONDS_MAX):
            block = await _receive(frames, block_size(self._card.size_bytes, index))
        if not block_holds(self._hashes, index, block):
            raise ProtocolError("proof_invalid", f"block {index} is not the one in the list")
        await trio.to_thread.run_sync(self._write, index, block)
        self._missing -= 1
        self._tell()
        if not self._missing:
            self._stir()

    def _write(self, index: int, block: bytes) -> None:
        with disk_errors(), self._data.open("r+b") as file:
            file.seek(index * BLOCK_BYTES)
            file.write(block)

    def _open(self, peer: BlockPeer, kind: int, index: int) -> AbstractAsyncContextManager[Frames]:
        first = encode_request(BlockRequest(kind, self._card.digest, index))
        return self._host.open(peer.key, BLOCKS, first, addresses=peer.addresses)

    def _finish(self) -> Path:
        target = self._folder / f"{self._card.name}.gguf"
        name_durably(self._data, target)
        self._list.unlink(missing_ok=True)
        return target

    def _drop(self, peer: BlockPeer, code: str) -> None:
        self.dropped[peer.key] = code
        log.warning("block_peer_dropped", peer=peer.key.hex(), code=code)

    def _tell(self) -> None:
        if self._progress is not None:
            done = block_count(self._card.size_bytes) - self._missing
            self._progress(min(done * BLOCK_BYTES, self._card.size_bytes), self._card.size_bytes)

    def _stir(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _parts(card: ModelCard, folder: Path) -> tuple[Path, Path]:
    """The unfinished file and its block list."""
    name = f".{card.digest.hex()}"
    return folder / f"{name}.blocks", folder / f"{name}.list"


async def _receive(frames: Frames, size: int) -> bytes:
    """One answer of `size` bytes. Raises AssayError for a refusal, silence or other lengths."""
    check_granted(await frames.receive(PIECE_SECONDS_MAX))
    data = bytearray()
    while len(data) < size:
        piece = await frames.receive(PIECE_SECONDS_MAX)
        if len(piece) != min(BLOCK_PIECE_BYTES, size - len(data)):
            raise ProtocolError("malformed", "a piece of a wrong length")
        data += piece
    return bytes(data)


def _code(error: Exception) -> str:
    return error.code if isinstance(error, AssayError) else "timeout"
