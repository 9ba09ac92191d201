"""What stands at which height of which chain, signed: the producer's seal, and a voter's.

A key signs one block hash per height of a chain, ever. Two seals of one key with one subject and
different digests are evidence, to anybody and to the contract SlashCourt.
"""

from __future__ import annotations

from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.messages import Seal
from assay_protocol.signing import ED25519, Signer, Verifier, open_signed, peek, seal

_WORD: Final = b"block"
_SUBJECT_BYTES: Final = 32


def block_subject(chain_id: int, number: int) -> bytes:
    """The 32-byte subject of block `number` of the chain `chain_id`; both below 2^64."""
    tail = chain_id.to_bytes(8) + number.to_bytes(8)
    return _WORD + bytes(_SUBJECT_BYTES - len(_WORD) - len(tail)) + tail


def seal_block(signer: Signer, chain_id: int, number: int, block_hash: bytes) -> bytes:
    """A signed Seal: `signer` says that block `number` has this hash, and no other."""
    return seal(signer, Seal(subject=block_subject(chain_id, number), digest=block_hash))


def check_block_seal(
    blob: bytes,
    key: bytes,
    chain_id: int,
    number: int,
    block_hash: bytes,
    verifier: Verifier = ED25519,
) -> None:
    """Raises ProtocolError: "bad_signature" if `key` did not sign it, "chain_mismatch" if it seals
    another block."""
    sealed = open_signed(Seal, blob, key, verifier)
    if sealed.subject != block_subject(chain_id, number):
        raise ProtocolError("chain_mismatch", f"the seal is not of block {number} of this chain")
    if sealed.digest != block_hash:
        raise ProtocolError("chain_mismatch", f"the seal of block {number} is on another hash")


def contradict(key: bytes, first: bytes, second: bytes, verifier: Verifier = ED25519) -> bool:
    """Whether two seals, both signed by `key`, say different things of one subject."""
    try:
        one, two = (open_signed(Seal, blob, key, verifier) for blob in (first, second))
    except ProtocolError:
        return False
    return one.subject == two.subject and one.digest != two.digest


def sealed_number(blob: bytes, chain_id: int) -> int:
    """Which block of the chain a seal speaks of, its signature unchecked.

    Raises ProtocolError("chain_mismatch") if of none.
    """
    subject = peek(Seal, blob).subject
    number = int.from_bytes(subject[-8:])
    if subject != block_subject(chain_id, number):
        raise ProtocolError("chain_mismatch", "the seal is not of a block of this chain")
    return number
