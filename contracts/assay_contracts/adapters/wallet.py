"""The secp256k1 wallet that every 32-byte seed has, and the transactions it signs (EIP-1559).

Contracts know accounts by Ed25519 keys; somebody still has to send the transactions. A node's or a
coordinator's wallet follows from its seed, so there is no second key to keep. Addresses are bytes
in here; the mixed-case text of EIP-55 is for people and for other programs.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import rlp
from eth_keys import keys
from eth_utils import keccak, to_checksum_address

from assay_contracts.adapters.offers import Call, Offer
from assay_protocol.errors import AssayError

ADDRESS_BYTES: Final = 20
_WALLET_DOMAIN: Final = b"assay/wallet/1"
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_DYNAMIC_FEE: Final = b"\x02"  # the transaction type of EIP-1559


class Wallet:
    """One secp256k1 key. Signing is deterministic (RFC 6979): the same transaction, same bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = keys.PrivateKey(key)
        self.address: bytes = self._key.public_key.to_canonical_address()

    @classmethod
    def of_seed(cls, seed: bytes) -> Wallet:
        return cls(wallet_key(seed))

    def sign(self, chain_id: int, nonce: int, call: Call, offer: Offer) -> bytes:
        """The raw transaction; `transaction_hash` of it is its name."""
        to = b"" if call.to is None else call.to
        fields = [chain_id, nonce, offer.tip, offer.fee, offer.gas, to, 0, call.data, []]
        digest = keccak(_DYNAMIC_FEE + rlp.encode(fields))
        v, r, s = self._key.sign_msg_hash(digest).vrs
        return _DYNAMIC_FEE + bytes(rlp.encode([*fields, v, r, s]))


def wallet_key(seed: bytes) -> bytes:
    """The secp256k1 key of the wallet of a node's or coordinator's 32-byte seed."""
    return derived_key(_WALLET_DOMAIN, seed)


def derived_key(domain: bytes, seed: bytes) -> bytes:
    """A secp256k1 key from a 32-byte seed; another domain gives an unrelated key."""
    assert len(seed) == 32
    for counter in range(256):
        candidate = sha256(domain + counter.to_bytes(1) + seed).digest()
        if 0 < int.from_bytes(candidate) < _CURVE_ORDER:
            return candidate
    raise AssertionError("256 hashes in a row outside the curve's order")


def address_of(key: bytes) -> bytes:
    """The 20-byte address of a secp256k1 key."""
    address: bytes = keys.PrivateKey(key).public_key.to_canonical_address()
    return address


def transaction_hash(raw: bytes) -> bytes:
    """The name of a signed transaction."""
    return bytes(keccak(raw))


def show_address(address: bytes) -> str:
    """As people and other programs write it: 0x and 40 digits, upper and lower case (EIP-55)."""
    assert len(address) == ADDRESS_BYTES
    return str(to_checksum_address(address))


def read_address(text: str) -> bytes:
    """The bytes of a written address; mixed case must be the checksum's.

    Raises AssayError("config_invalid").
    """
    digits = text.removeprefix("0x")
    try:
        address = bytes.fromhex(digits)
    except ValueError:
        address = b""
    if len(address) != ADDRESS_BYTES or len(digits) != 2 * ADDRESS_BYTES:
        raise AssayError("config_invalid", f"an address is 40 hex digits, not {text[:64]!r}")
    mixed = digits not in (digits.lower(), digits.upper())
    if mixed and show_address(address)[2:] != digits:
        raise AssayError("config_invalid", f"the checksum of the address {text[:64]!r} is wrong")
    return address
