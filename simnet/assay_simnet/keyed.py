"""Cheap stand-ins for cryptography: signatures and sealed boxes by keyed hashes.

They bind a message to a key as the real ones do as long as nobody in the simulation looks for
forgeries, and nobody does: what forgers try is sent damaged. `ed25519` in a scenario takes the real
ones.
"""

from __future__ import annotations

import hashlib
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.signing import SIGNATURE_BYTES

_HEAD: Final = 48  # of a sealed box: the key it is sealed to, and a check sum


class KeyedIdentity:
    """Signs by a hash keyed with its public key. Quacks like signing.Identity."""

    __slots__ = ("public_key", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.public_key = hashlib.blake2b(seed, person=b"simnet key", digest_size=32).digest()

    def sign(self, data: bytes) -> bytes:
        return _signature(self.public_key, data)


class KeyedVerifier:
    """Checks those signatures."""

    def verify(self, public_key: bytes, data: bytes, signature: bytes) -> bool:
        return _signature(public_key, data) == signature


class KeyedSealing:
    """Boxes that only their shape protects: the content is hidden, not secret.

    It is hidden so that a prompt cannot be found in what passes through the coordinator.
    """

    def public_key(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, person=b"simnet box", digest_size=32).digest()

    def seal(self, data: bytes, public_key: bytes) -> bytes:
        check = hashlib.blake2b(data, digest_size=_HEAD - 32).digest()
        return public_key + check + _hidden(data, public_key)

    def open(self, sealed: bytes, secret: bytes) -> bytes:
        key, check = sealed[:32], sealed[32:_HEAD]
        data = _hidden(sealed[_HEAD:], key)
        right = hashlib.blake2b(data, digest_size=_HEAD - 32).digest()
        if key != self.public_key(secret) or check != right:
            raise ProtocolError("malformed", "the box is not sealed to this key")
        return data


def _signature(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=SIGNATURE_BYTES).digest()


def _hidden(data: bytes, key: bytes) -> bytes:
    pad = int.from_bytes(hashlib.shake_128(key).digest(len(data)), "big")
    return (int.from_bytes(data, "big") ^ pad).to_bytes(len(data), "big")
