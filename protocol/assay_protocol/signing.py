"""Domain-separated Ed25519. What is signed is a message's canonical bytes, never a rebuilt object.

A signed message is `signature (64 bytes) || body`, where the signature covers
`b"assay/1/" + message name + b"\\0" + body`: a signature on one kind of message is worth nothing on
another. Callers keep the blob as it came, so its hash names it (invariant S1: nothing in a body is
looked at before its signature is checked).
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol, TypeVar

from nacl.bindings import crypto_sign_ed25519_sk_to_pk, crypto_sign_seed_keypair
from nacl.bindings.crypto_sign import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError

from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import ProtocolError

SIGNATURE_BYTES: Final = 64
SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
_M = TypeVar("_M")


class Signer(Protocol):
    """Something that signs as `public_key` (32 bytes)."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, data: bytes) -> bytes: ...


class Verifier(Protocol):
    """Checks signatures; simulations may plug in a keyed hash."""

    def verify(self, public_key: bytes, data: bytes, signature: bytes) -> bool: ...


class Identity:
    """One 32-byte seed: the PyNaCl signing key, the libp2p peer id, the account."""

    __slots__ = ("_secret", "public_key", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ProtocolError("key_invalid", f"a seed is {SEED_BYTES} bytes")
        self.seed = seed
        public, self._secret = crypto_sign_seed_keypair(seed)
        assert public == crypto_sign_ed25519_sk_to_pk(self._secret)
        self.public_key: bytes = public

    def sign(self, data: bytes) -> bytes:
        return bytes(crypto_sign(data, self._secret)[:SIGNATURE_BYTES])

    def __repr__(self) -> str:
        return f"Identity({self.public_key.hex()[:16]})"  # never the seed


class Ed25519:
    """The verifier of production: libsodium's strict checks."""

    def verify(self, public_key: bytes, data: bytes, signature: bytes) -> bool:
        if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
            return False  # the binding below trusts both lengths
        try:
            crypto_sign_open(signature + data, public_key)
        except (BadSignatureError, ValueError, TypeError):
            return False
        return True


ED25519: Final = Ed25519()


def seal(signer: Signer, value: object) -> bytes:
    """`value`'s bytes with `signer`'s signature in front."""
    body = encode(value)
    return signer.sign(_signed_bytes(type(value), body)) + body


def open_signed(cls: type[_M], blob: bytes, public_key: bytes, verifier: Verifier = ED25519) -> _M:
    """The `cls` in `blob` if `public_key` signed it; raises ProtocolError otherwise."""
    signature, body = blob[:SIGNATURE_BYTES], blob[SIGNATURE_BYTES:]
    if not verifier.verify(public_key, _signed_bytes(cls, body), signature):
        raise ProtocolError("bad_signature", f"{cls.__name__} is not signed by that key")
    return decode_as(cls, body)


def peek(cls: type[_M], blob: bytes) -> _M:
    """The `cls` in `blob`, signature unchecked: only to learn which key to check it with."""
    return decode_as(cls, blob[SIGNATURE_BYTES:])


def covered(cls: type, blob: bytes) -> bytes:
    """What the signature of a signed `cls` covers, for those who check it elsewhere."""
    return _signed_bytes(cls, blob[SIGNATURE_BYTES:])


def digest(blob: bytes) -> bytes:
    """The 32-byte name of a signed blob."""
    return hashlib.blake2b(blob, digest_size=32).digest()


def _signed_bytes(cls: type, body: bytes) -> bytes:
    return b"assay/1/" + cls.__name__.encode() + b"\0" + body
