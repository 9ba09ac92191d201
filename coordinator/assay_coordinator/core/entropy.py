"""Unpredictable but replayable choices: a PRF over a secret that the runtime supplies.

The runtime gives fresh entropy at every start, so ids never repeat across restarts; a simulation
gives a seed, so its runs do.
"""

from __future__ import annotations

import hashlib


class Entropy:
    """Named streams of bytes from one 32-byte secret."""

    __slots__ = ("_counter", "_secret")

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == 32
        self._secret, self._counter = secret, 0

    def fresh(self, size: int = 16) -> bytes:
        """Bytes never given before."""
        self._counter += 1
        return self.keyed(b"fresh", self._counter.to_bytes(8, "big"))[:size]

    def below(self, n: int) -> int:
        """A uniform choice in [0, n); the bias of 2^-128 is nobody's gain."""
        return int.from_bytes(self.fresh(32), "big") % n

    def keyed(self, label: bytes, data: bytes) -> bytes:
        """32 bytes fixed by the secret and `data`: the same every time it is asked."""
        return hashlib.blake2b(data, key=self._secret, person=label, digest_size=32).digest()
