"""Ed25519 signatures as the contract Ed25519Verifier takes them: with the x coordinates beside.

A signature holds the y coordinates of the key's point and of R, and one bit of each x. The chain
would pay two square roots for the rest of x; here they cost nothing, and the contract checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_protocol.errors import AssayError
from assay_protocol.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Signer

P: Final = 2**255 - 19
D: Final = -121_665 * pow(121_666, -1, P) % P  # of the curve -x^2 + y^2 = 1 + d x^2 y^2
_ROOT_OF_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)
_Y_MASK: Final = (1 << 255) - 1


@dataclass(frozen=True, slots=True)
class HintedSignature:
    """The contracts' struct Signature."""

    r: bytes
    s: bytes
    key_x: int
    r_x: int


def hinted(key: bytes, signature: bytes) -> HintedSignature:
    """`signature` (64 bytes) by `key` (32 bytes), with hints. It is not checked."""
    if len(key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise AssayError("malformed", "a key has 32 bytes and a signature 64")
    r, s = signature[:32], signature[32:]
    return HintedSignature(r, s, x_of(key) or 0, x_of(r) or 0)


def signed(signer: Signer, message: bytes) -> HintedSignature:
    """`signer`'s signature of `message`, with hints."""
    return hinted(signer.public_key, signer.sign(message))


def x_of(encoded: bytes) -> int | None:
    """The x of an encoded point (RFC 8032, 5.1.3); None if no point of the curve has that y.

    y is taken modulo p, as libsodium does where it does not refuse; the contract refuses y >= p.
    """
    number = int.from_bytes(encoded, "little")
    y, sign = number & _Y_MASK, number >> 255
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * _ROOT_OF_MINUS_ONE % P
    if v * x * x % P != u:
        return None
    return P - x if x and x & 1 != sign else x
