"""Whether a transcript can be sealed to an auditor's key.

X25519 keys of small order give no shared secret, so sealing to one fails. The coordinator finds
out before it asks the executor, who would otherwise have to decline and be blamed for it.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_scalarmult
from nacl.exceptions import CryptoError

_ANY_SCALAR: Final = bytes([1]) * 32  # clamped to a multiple of 8: small orders all give zero


def can_seal_to(box_key: bytes) -> bool:
    """Whether the 32 bytes are a key that sealing works with."""
    try:
        crypto_scalarmult(_ANY_SCALAR, box_key)
    except (CryptoError, ValueError, TypeError):
        return False
    return True
