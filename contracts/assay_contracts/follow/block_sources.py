"""Where a follower gets blocks: a chain's JSON-RPC, another chain file, or an exported file.

Nothing a source says is believed: blocks are executed and their seals checked. What it tells of the
chain (its poster, so its genesis) is bound by the producer's seal on block 1, which names block 0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from assay_contracts import hex_texts
from assay_contracts.credit.readers import HttpChain
from assay_contracts.local.chain import META_FINALITY, LocalChain
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.limits import CHAIN_BLOCK_BYTES_MAX
from assay_protocol.messages import SealedBlock

BLOCKS_MAX: Final = 256  # of one answer
ANSWER_BYTES_MAX: Final = 384 << 10  # of blocks, before hex doubles them
_MAGIC: Final = b"assay chain 1\n"
_HEAD: Final = struct.Struct(">Q20s32s")
_LENGTH: Final = struct.Struct(">I")
_FRAME_BYTES_MAX: Final = CHAIN_BLOCK_BYTES_MAX + 16_384


@dataclass(frozen=True, slots=True)
class About:
    """What a source says it is: a chain's id, its poster's address, its producer's key and head."""

    chain_id: int
    poster: bytes
    producer: bytes
    head: int


class BlockSource(Protocol):
    """Synchronous. Raises AssayError: "timeout", "peer_gone", "chain_mismatch", "oversized"."""

    def about(self) -> About: ...
    def blocks(self, first: int, count: int) -> list[SealedBlock]:
        """Up to `count` blocks from `first` on, fewer if they are large; none above the head."""
        ...

    def finality(self) -> bytes | None:
        """The newest FinalityProof's bytes, if the source has one."""
        ...

    def close(self) -> None: ...


class HttpBlocks:
    """A chain's JSON-RPC, as `coordinator start --rpc` serves it."""

    def __init__(self, url: str) -> None:
        self._http = HttpChain(url)

    def about(self) -> About:
        found = self._http.result("assay_getChain")
        return About(
            chain_id=_number(found, "chainId"),
            poster=_bytes(found, "poster", 20),
            producer=_bytes(found, "producer", 32),
            head=_number(found, "head"),
        )

    def blocks(self, first: int, count: int) -> list[SealedBlock]:
        found = self._http.result("assay_getBlocks", hex(first), hex(min(count, BLOCKS_MAX)))
        if not isinstance(found, list) or len(found) > count:
            raise AssayError("chain_mismatch", "the node's blocks are no list")
        return [SealedBlock(raw=_bytes(one, "raw"), seal=_bytes(one, "seal")) for one in found]

    def finality(self) -> bytes | None:
        found = self._http.result("assay_getFinality")
        return None if found is None else _bytes({"proof": found}, "proof")

    def close(self) -> None:
        self._http.close()


class FileBlocks:
    """A local chain's file, which its coordinator may be writing."""

    def __init__(self, path: Path) -> None:
        self._chain = LocalChain.open(path, read_only=True)

    def about(self) -> About:
        chain = self._chain
        if chain.producer is None:
            raise AssayError("chain_mismatch", "the chain's blocks are not sealed")
        head = chain.head_block().number
        return About(chain.chain_id, chain.genesis.poster, chain.producer, head)

    def blocks(self, first: int, count: int) -> list[SealedBlock]:
        return blocks_of(self._chain, first, count)

    def finality(self) -> bytes | None:
        return self._chain.meta(META_FINALITY)

    def close(self) -> None:
        self._chain.close()


class ExportedBlocks:
    """A file that `export` wrote. Blocks are read in ascending order, or from the start again."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        try:
            chain_id, poster, producer = _HEAD.unpack(self._read_head())
            self._about = About(chain_id, poster, producer, head=self._count())
        except BaseException:
            self._file.close()
            raise
        self._rewind()

    def about(self) -> About:
        return self._about

    def blocks(self, first: int, count: int) -> list[SealedBlock]:
        if first < self._next:
            self._rewind()
        while self._next < first and self._read(skip=True) is not None:
            pass
        found: list[SealedBlock] = []
        size = 0
        while len(found) < min(count, BLOCKS_MAX) and size < ANSWER_BYTES_MAX:
            frame = self._read()
            if frame is None:
                break
            found.append(decode_as(SealedBlock, frame))
            size += len(frame)
        return found

    def finality(self) -> bytes | None:
        return None

    def close(self) -> None:
        self._file.close()

    def _read_head(self) -> bytes:
        if self._file.read(len(_MAGIC)) != _MAGIC:
            raise AssayError("chain_mismatch", "the file is no exported chain")
        head = self._file.read(_HEAD.size)
        if len(head) != _HEAD.size:
            raise AssayError("chain_mismatch", "the exported chain is cut off")
        return head

    def _rewind(self) -> None:
        self._file.seek(len(_MAGIC) + _HEAD.size)
        self._next = 1

    def _count(self) -> int:
        self._next = 1
        while self._read(skip=True) is not None:
            pass
        return self._next - 1

    def _read(self, *, skip: bool = False) -> bytes | None:
        """The next frame (empty if skipped); None at the end of the file."""
        length = self._file.read(_LENGTH.size)
        if not length:
            return None
        if len(length) != _LENGTH.size:
            raise AssayError("chain_mismatch", "the exported chain is cut off")
        (size,) = _LENGTH.unpack(length)
        if size > _FRAME_BYTES_MAX:
            raise AssayError("oversized", "an exported block is larger than any may be")
        frame = self._file.read(size)
        if len(frame) != size:
            raise AssayError("chain_mismatch", "the exported chain is cut off")
        self._next += 1
        return b"" if skip else frame


def open_source(where: str) -> BlockSource:
    """`where` is a URL, a chain's file or an exported file. Raises AssayError, OSError."""
    if where.startswith(("http://", "https://")):
        return HttpBlocks(where)
    path = Path(where)
    with path.open("rb") as file:
        exported = file.read(len(_MAGIC)) == _MAGIC
    return ExportedBlocks(path) if exported else FileBlocks(path)


def blocks_of(chain: LocalChain, first: int, count: int) -> list[SealedBlock]:
    """Sealed blocks of an open chain as one bounded answer; at least one if there is one."""
    found: list[SealedBlock] = []
    size = 0
    for number in range(first, first + min(count, BLOCKS_MAX)):
        kept = chain.sealed_block(number)
        if kept is None or not kept.seal:
            break
        size += len(kept.raw)
        if found and size > ANSWER_BYTES_MAX:
            break
        found.append(SealedBlock(raw=kept.raw, seal=kept.seal))
    return found


def export(source: BlockSource, target: BinaryIO) -> int:
    """Writes the chain to `target` as frames, block by block; how many blocks."""
    about = source.about()
    target.write(_MAGIC + _HEAD.pack(about.chain_id, about.poster, about.producer))
    written = 0
    for block in _all(source, about.head):
        frame = encode(block)
        target.write(_LENGTH.pack(len(frame)) + frame)
        written += 1
    return written


def _all(source: BlockSource, head: int) -> Iterator[SealedBlock]:
    number = 1
    while number <= head:
        found = source.blocks(number, BLOCKS_MAX)
        if not found:
            raise AssayError("chain_mismatch", f"the source has no block {number}")
        yield from found
        number += len(found)


def _number(found: Any, name: str) -> int:
    return int.from_bytes(_bytes(found, name))


def _bytes(found: Any, name: str, size: int | None = None) -> bytes:
    data = hex_texts.data_of(found.get(name) if isinstance(found, dict) else None, odd=True)
    if data is None:
        raise AssayError("chain_mismatch", f"the node's answer has no {name}")
    if size not in (None, len(data)):
        raise AssayError("chain_mismatch", f"the node's {name} is not of {size} bytes")
    return data
