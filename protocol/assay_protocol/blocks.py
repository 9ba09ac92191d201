"""Model files in blocks: the list that checks each block, its root, and the frames that ask.

The rules of who must check what are in protocol/spec/blocks.md.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from assay_protocol.errors import CODES, AssayError, ProtocolError, RemoteError
from assay_protocol.limits import BLOCK_BYTES, BLOCK_PIECE_BYTES, BLOCKS_MAX

HASH_BYTES: Final = 32
LIST: Final = 0
BLOCK: Final = 1
GRANTED: Final = b"\x00"
_REFUSED: Final = b"\x01"
_CODE_BYTES_MAX: Final = 64
_REQUEST: Final = struct.Struct("<B32sI")
_PERSON: Final = b"assay blocks"


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """One thing asked for of the file with the sha256 `digest`; `index` is 0 for LIST."""

    kind: int
    digest: bytes
    index: int


def encode_request(request: BlockRequest) -> bytes:
    return _REQUEST.pack(request.kind, request.digest, request.index)


def decode_request(frame: bytes) -> BlockRequest:
    """Raises ProtocolError("malformed")."""
    if len(frame) != _REQUEST.size:
        raise ProtocolError("malformed", "a block request of a wrong length")
    request = BlockRequest(*_REQUEST.unpack(frame))
    if request.kind not in (LIST, BLOCK) or (request.kind == LIST and request.index):
        raise ProtocolError("malformed", "a block request of an unknown kind")
    return request


def encode_refusal(code: str) -> bytes:
    assert code in CODES, code
    return _REFUSED + code.encode()


def check_granted(frame: bytes) -> None:
    """Raises RemoteError with the peer's code, ProtocolError("malformed") for anything else."""
    if frame == GRANTED:
        return
    code = frame[1:].decode("ascii", "replace")
    if frame[:1] != _REFUSED or len(frame) > _CODE_BYTES_MAX or code not in CODES:
        raise ProtocolError("malformed", "an answer that neither grants nor refuses")
    raise RemoteError(code)


def block_count(size_bytes: int) -> int:
    """How many blocks a file has. Raises AssayError("oversized") over BLOCKS_MAX."""
    count = -(-size_bytes // BLOCK_BYTES)
    if count > BLOCKS_MAX:
        raise AssayError("oversized", "a file of too many blocks")
    return count


def block_size(size_bytes: int, index: int) -> int:
    """Bytes of block `index` of a file."""
    assert 0 <= index < block_count(size_bytes)
    return min(BLOCK_BYTES, size_bytes - index * BLOCK_BYTES)


def block_root(size_bytes: int, hashes: bytes) -> bytes:
    """The name of a block list: `hashes` are all blocks' SHA-256, joined."""
    assert len(hashes) == HASH_BYTES * block_count(size_bytes)
    named = hashlib.blake2b(digest_size=HASH_BYTES, person=_PERSON)
    named.update(size_bytes.to_bytes(8, "little"))
    named.update(hashes)
    return named.digest()


def block_holds(hashes: bytes, index: int, block: bytes) -> bool:
    """Whether `block` is the one the list means."""
    meant = hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES]
    return hashlib.sha256(block).digest() == meant


def pieces(data: bytes) -> Iterator[bytes]:
    """The data frames of one answer."""
    for begin in range(0, len(data), BLOCK_PIECE_BYTES):
        yield data[begin : begin + BLOCK_PIECE_BYTES]
