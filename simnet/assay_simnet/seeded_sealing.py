"""Sealed boxes of libsodium's format whose one-time keys are drawn from a seed.

libsodium takes them from the system, so that one scenario and seed would have another history each
time. Anybody with the secret opens these as any other sealed box.
"""

from __future__ import annotations

import hashlib

from nacl.bindings import crypto_box, crypto_box_NONCEBYTES, crypto_box_seed_keypair
from nacl.exceptions import CryptoError

from assay_node.core.sealing import NaclSealing
from assay_protocol.errors import ProtocolError


class SeededSealing(NaclSealing):
    """Production's but for where chance comes from."""

    def __init__(self, seed: bytes) -> None:
        self._seed, self._sealed = seed, 0

    def seal(self, data: bytes, public_key: bytes) -> bytes:
        self._sealed += 1
        drawn = hashlib.blake2b(self._sealed.to_bytes(8, "big"), key=self._seed, digest_size=32)
        once, secret = crypto_box_seed_keypair(drawn.digest())
        nonce = hashlib.blake2b(once + public_key, digest_size=crypto_box_NONCEBYTES).digest()
        try:
            return bytes(once + crypto_box(data, nonce, public_key, secret))
        except (CryptoError, ValueError, TypeError) as error:
            raise ProtocolError("malformed", "not a key to seal to") from error
