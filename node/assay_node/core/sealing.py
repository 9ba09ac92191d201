"""Sealed boxes for transcripts, and secrets drawn from one seed.

Sealing stands behind a small protocol so that simulations may plug a cheap one. Secrets come from a
keyed counter, so a core needs no source of randomness: the runtime hands in one fresh seed a run.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from assay_protocol.errors import ProtocolError

SECRET_BYTES = 32


class Sealing(Protocol):
    """One-way boxes: anybody seals to a public key, only the secret opens."""

    def public_key(self, secret: bytes) -> bytes:
        """The 32-byte public key of a 32-byte secret."""
        ...

    def seal(self, data: bytes, public_key: bytes) -> bytes:
        """`data` sealed; raises ProtocolError("malformed") for a key that is none."""
        ...

    def open(self, sealed: bytes, secret: bytes) -> bytes:
        """What was sealed; raises ProtocolError("malformed") if this secret does not open it."""
        ...


class NaclSealing:
    """libsodium's sealed boxes (X25519, XSalsa20-Poly1305)."""

    def public_key(self, secret: bytes) -> bytes:
        return bytes(PrivateKey(secret).public_key)

    def seal(self, data: bytes, public_key: bytes) -> bytes:
        try:
            return bytes(SealedBox(PublicKey(public_key)).encrypt(data))
        except (CryptoError, ValueError, TypeError, RuntimeError) as error:
            raise ProtocolError("malformed", "not a box key") from error

    def open(self, sealed: bytes, secret: bytes) -> bytes:
        try:
            return bytes(SealedBox(PrivateKey(secret)).decrypt(sealed))
        except (CryptoError, ValueError, TypeError) as error:
            raise ProtocolError("malformed", "the box is not sealed to this key") from error


class Secrets:
    """Fresh 32-byte secrets and small integers from one seed (BLAKE2b keyed counter)."""

    __slots__ = ("_count", "_seed")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == SECRET_BYTES
        self._seed, self._count = seed, 0

    def next(self) -> bytes:
        """A secret never given before."""
        self._count += 1
        counter = self._count.to_bytes(8, "little")
        return hashlib.blake2b(
            counter, key=self._seed, digest_size=SECRET_BYTES, person=b"assay secrets"
        ).digest()

    def below(self, bound: int) -> int:
        """An integer in [0, bound), for jitter."""
        assert bound > 0
        return int.from_bytes(self.next()[:8], "little") % bound
