"""Who a peer is: one 32-byte seed gives the signing key, the libp2p key and the peer id.

A libp2p peer id of an Ed25519 key carries the key itself (`identity` multihash), so a peer's
public key is read from its id with no lookup. Everything above this package names peers by those
32 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from assay_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from libp2p.crypto.keys import KeyPair
    from libp2p.peer.id import ID

PUBLIC_KEY_BYTES: Final = 32
_TEXT_CHARS_MAX: Final = 64  # a peer id has 52
# identity multihash (0x00) of 36 bytes (0x24): protobuf field 1 = key type Ed25519 (1),
# field 2 = 32 bytes of key. See the libp2p specification, "Peer IDs and Keys".
_ID_PREFIX: Final = bytes.fromhex("002408011220")
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def keypair(seed: bytes) -> KeyPair:
    """The libp2p key pair of a 32-byte seed: the same key PyNaCl derives from that seed."""
    assert len(seed) == PUBLIC_KEY_BYTES, "a seed is 32 bytes"
    # Importing libp2p costs more than a CPU second, so only those who open a host pay for it.
    from libp2p.crypto.ed25519 import Ed25519PrivateKey
    from libp2p.crypto.keys import KeyPair

    private_key = Ed25519PrivateKey.from_bytes(seed)
    return KeyPair(private_key, private_key.get_public_key())


def peer_id(public_key: bytes) -> ID:
    """The libp2p peer id of a 32-byte Ed25519 public key.

    Raises ProtocolError("malformed") when it is not 32 bytes.
    """
    from libp2p.peer.id import ID

    return ID(_id_bytes(public_key))


def public_key(peer: ID) -> bytes:
    """The 32-byte Ed25519 key inside a peer id.

    Raises ProtocolError("malformed") for ids of other key types (RSA, secp256k1, hashed keys).
    """
    raw: bytes = peer.to_bytes()
    if len(raw) != len(_ID_PREFIX) + PUBLIC_KEY_BYTES or not raw.startswith(_ID_PREFIX):
        raise ProtocolError("malformed", "the peer id does not hold an Ed25519 key")
    return raw[len(_ID_PREFIX) :]


def peer_text(public_key: bytes) -> str:
    """The peer id as people write it ("12D3Koo…"), without importing libp2p."""
    number = int.from_bytes(_id_bytes(public_key), "big")
    digits = ""
    while number:
        number, digit = divmod(number, len(_BASE58))
        digits = _BASE58[digit] + digits
    return "1" + digits  # base58btc writes the one leading zero byte of the multihash as "1"


def _id_bytes(public_key: bytes) -> bytes:
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ProtocolError("malformed", "a public key is 32 bytes")
    return _ID_PREFIX + public_key


def peer_key(text: str) -> bytes:
    """The public key of a peer id as people write it; the inverse of `peer_text`.

    Raises ProtocolError("malformed") for anything but an Ed25519 peer id.
    """
    number = 0
    for character in text:
        place = _BASE58.find(character)
        if place < 0 or len(text) > _TEXT_CHARS_MAX:
            raise ProtocolError("malformed", f"not a peer id: {text[:80]}")
        number = number * 58 + place
    key = (number & ((1 << 256) - 1)).to_bytes(PUBLIC_KEY_BYTES, "big")
    if peer_text(key) != text:
        raise ProtocolError("malformed", f"not an Ed25519 peer id: {text[:80]}")
    return key


def split_address(address: str) -> bytes:
    """The public key at the end of a multiaddress (".../p2p/12D3Koo…").

    Raises ProtocolError("malformed") when it names none.
    """
    place, found, text = address.rpartition("/p2p/")
    if not found or not place.startswith("/"):
        raise ProtocolError("malformed", f"an address must end in /p2p/<peer id>: {address[:80]}")
    return peer_key(text)
