"""Serves blocks of the model files to other nodes, within what the owner allows.

Rules: nothing is shared unless the owner gave a rate and the card a licence known to permit it;
the rate holds over all peers, and half of it for each; few streams at a time; one request of a
stream at a time. A request costs at most one read of one block, so a stranger can make us do no
more than what the rate pays for.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from assay_network.frames import Frames
from assay_protocol.blocks import (
    GRANTED,
    LIST,
    BlockRequest,
    block_count,
    block_root,
    block_size,
    decode_request,
    encode_refusal,
    pieces,
)
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from assay_protocol.limits import BLOCK_BYTES

STREAMS_MAX: Final = 16
PEER_STREAMS_MAX: Final = 2
IDLE_SECONDS_MAX: Final = 30.0
SEND_SECONDS_MAX: Final = 30.0
SHARED_LICENSES: Final = frozenset(
    {
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "unlicense",
    }
)


@dataclass(frozen=True, slots=True)
class Shared:
    """A file to share: its sha256, its bytes and its block list."""

    digest: bytes
    path: Path
    size_bytes: int
    hashes: bytes


def may_share(card: ModelCard) -> bool:
    """Whether the card's licence is one that lets anybody pass the file on."""
    return card.license.lower() in SHARED_LICENSES


def share(card: ModelCard, path: Path) -> Shared:
    """Read the whole file, whose sha256 was checked, for its block list. Blocks for long.

    Raises AssayError "forbidden" for a licence that does not permit sharing, "model_corrupt" if
    the blocks are not those the card means.
    """
    if not may_share(card):
        raise AssayError("forbidden", f"the licence {card.license!r} is not known to allow sharing")
    hashes = hash_blocks(path)
    size_bytes = path.stat().st_size
    if size_bytes != card.size_bytes:
        raise AssayError("model_corrupt", f"{path} has another size")
    if card.block_root not in (None, block_root(size_bytes, hashes)):
        raise AssayError("model_corrupt", "the blocks are not those of the card")
    return Shared(card.digest, path, size_bytes, hashes)


def hash_blocks(path: Path) -> bytes:
    """The block list of a file: the SHA-256 of each block, joined."""
    hashes = bytearray()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            hashes += hashlib.sha256(block).digest()
    return bytes(hashes)


class BlockServer:
    """Give `handle` to Host.serve(BLOCKS, ...). `rate` in bytes/s over all peers.

    While `is_away` says so nothing is given out ("busy"): who asks goes to others.
    """

    def __init__(
        self, shared: Iterable[Shared], rate: float, is_away: Callable[[], bool] = lambda: False
    ) -> None:
        self._is_away = is_away
        self._shared, self._rate = {one.digest: one for one in shared}, rate
        self._all = _Pace(rate)
        self._peers: dict[bytes, _Pace] = {}
        self._streams: collections.Counter[bytes] = collections.Counter()

    async def handle(self, peer: bytes, frames: Frames) -> None:
        """One stream, until the peer ends it, is gone, or is silent for too long."""
        if self._streams[peer] >= PEER_STREAMS_MAX or self._streams.total() >= STREAMS_MAX:
            await self._send(frames, encode_refusal("busy"))
            return
        self._streams[peer] += 1
        pace = self._peers.setdefault(peer, _Pace(self._rate / 2))
        try:
            while True:
                request = decode_request(await frames.receive(IDLE_SECONDS_MAX))
                await self._answer(frames, request, pace)
        except (AssayError, trio.TooSlowError):
            await frames.abort()
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]
                self._forget_idle()

    async def _answer(self, frames: Frames, request: BlockRequest, pace: _Pace) -> None:
        try:
            data = await trio.to_thread.run_sync(self._read, request)
        except AssayError as error:
            await self._send(frames, encode_refusal(error.code))
            return
        await self._send(frames, GRANTED)
        for piece in pieces(data):
            await pace.take(len(piece))
            await self._all.take(len(piece))
            await self._send(frames, piece)

    def _read(self, request: BlockRequest) -> bytes:
        if self._is_away():
            raise AssayError("busy")
        shared = self._shared.get(request.digest)
        if shared is None:
            raise AssayError("model_unknown")
        if request.kind == LIST:
            return shared.hashes
        if request.index >= block_count(shared.size_bytes):
            raise AssayError("malformed", "no such block")
        size = block_size(shared.size_bytes, request.index)
        try:
            with shared.path.open("rb") as file:
                file.seek(request.index * BLOCK_BYTES)
                data = file.read(size)
        except OSError as error:
            raise AssayError("model_missing") from error
        if len(data) != size:
            raise AssayError("model_missing")
        return data

    async def _send(self, frames: Frames, frame: bytes) -> None:
        with trio.fail_after(SEND_SECONDS_MAX):
            await frames.send(frame)

    def _forget_idle(self) -> None:
        """A peer's pace is kept until it is paid off: leaving and coming again gains nothing."""
        self._peers = {
            peer: pace for peer, pace in self._peers.items() if peer in self._streams or pace.owes
        }


class _Pace:
    """Spreads bytes over time: `rate` a second, in the order they are asked for."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free_at = rate, 0.0

    @property
    def owes(self) -> bool:
        return self._free_at > trio.current_time()

    async def take(self, count: int) -> None:
        begin = max(self._free_at, trio.current_time())
        self._free_at = begin + count / self._rate
        await trio.sleep_until(begin)
