"""The text of a key file: one line, `assay-key-1 <base64 of the 32-byte seed>`, and a newline.

The version word lets a later format (a passphrase, another curve) be told apart from a damaged
file. Reading and writing the file, and its permissions, are the business of the network package.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from assay_protocol.errors import AssayError

KEY_FORMAT: Final = "assay-key-1"
SEED_BYTES: Final = 32
KEY_FILE_BYTES_MAX: Final = 256


def format_key(seed: bytes) -> bytes:
    """The file's content for an Ed25519 seed of 32 bytes."""
    assert len(seed) == SEED_BYTES
    return f"{KEY_FORMAT} {base64.b64encode(seed).decode()}\n".encode()


def parse_key(content: bytes) -> bytes:
    """The seed in a file's content; raises AssayError("key_invalid") without quoting any of it."""
    fields = content.split()
    if len(content) > KEY_FILE_BYTES_MAX or len(fields) != 2 or fields[0] != KEY_FORMAT.encode():
        raise AssayError("key_invalid", f"the key file does not hold one '{KEY_FORMAT}' line")
    try:
        seed = base64.b64decode(fields[1], validate=True)
    except binascii.Error:
        raise AssayError("key_invalid", "the key file's base64 is damaged") from None
    if len(seed) != SEED_BYTES:
        raise AssayError("key_invalid", f"the key file holds {len(seed)} bytes, not {SEED_BYTES}")
    return seed
