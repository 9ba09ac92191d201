"""Finding the coordinator and asking it for long documents before the node serves.

A coordinator is named by its key, an address alone proves nothing: KEY_HEX@MULTIADDR, or a
multiaddress that ends in /p2p/<peer id>, which holds the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_network import identity
from assay_network.host import Host
from assay_network.session import Session, open_session
from assay_protocol.cards import ModelCard, decode_card
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import CARD_BYTES_MAX
from assay_protocol.links import SESSION
from assay_protocol.messages import Error, GetPart, Part
from assay_protocol.streams import remote_error

PART_SECONDS_MAX: Final = 15.0
PARTS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Where the coordinator is: its public key (32 bytes) and multiaddresses."""

    key: bytes
    addresses: tuple[str, ...]


def parse_coordinator(text: str) -> Coordinator:
    """Raises AssayError("config_invalid")."""
    head, at, address = text.partition("@")
    try:
        if at:
            key = bytes.fromhex(head)
            identity.peer_text(key)  # refuses another length
            return Coordinator(key, (address,))
        from libp2p.peer.id import ID

        _, mark, name = text.rpartition("/p2p/")
        if not mark:
            raise ProtocolError("malformed", "no key")
        return Coordinator(identity.public_key(ID.from_string(name)), (text,))
    except (ValueError, AssayError) as error:
        raise AssayError(
            "config_invalid",
            "coordinator must be KEY_HEX@MULTIADDR or a multiaddress ending in /p2p/<peer id>",
        ) from error


async def fetch_card(host: Host, coordinator: Coordinator, model: bytes) -> tuple[ModelCard, bytes]:
    """The card of `model` (ModelCard.model) and the card's bytes.

    Raises PeerGone, AssayError("timeout"), RemoteError, or "card_invalid" for another model's.
    """
    async with open_session(
        host, coordinator.key, coordinator.addresses, SESSION, _ignore
    ) as session:
        data = await _fetch(session, "card", model)
    card = decode_card(data)
    if card.model != model:
        raise ProtocolError("card_invalid", "the coordinator sent another model's card")
    return card, data


async def _fetch(session: Session, what: str, key: bytes) -> bytes:
    """A whole document, part by part."""
    data = b""
    for _ in range(PARTS_MAX):
        body = encode(GetPart(what=what, key=key, offset=len(data)))
        answer = decode(await session.request(body, PART_SECONDS_MAX))
        if isinstance(answer, Error):
            raise remote_error(answer)
        if not isinstance(answer, Part) or answer.total > CARD_BYTES_MAX or not answer.data:
            raise ProtocolError("unexpected_message", "not a part of the document")
        data += answer.data
        if len(data) >= answer.total:
            return data
    raise ProtocolError("oversized", "the document never ends")


def _ignore(_session: Session, _request: int, _body: bytes) -> None:
    """Before the node is registered nothing is expected of it."""
