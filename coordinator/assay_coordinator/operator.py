"""What an operator does to a running coordinator, over the same sessions as everybody else."""

from __future__ import annotations

from typing import TypeVar

from assay_network.host import open_host
from assay_network.identity import split_address
from assay_network.session import Session, open_session
from assay_protocol.codec import decode, encode
from assay_protocol.errors import ProtocolError
from assay_protocol.links import SESSION
from assay_protocol.messages import Error
from assay_protocol.streams import remote_error

_M = TypeVar("_M")


async def ask(seed: bytes, address: str, request: object, answer: type[_M]) -> _M:
    """Send one request to the coordinator at `address` as the key of `seed`.

    Raises RemoteError with the coordinator's code, PeerGone, or AssayError("timeout").
    """
    public_key = split_address(address)
    async with (
        open_host(seed) as host,
        open_session(host, public_key, [address], SESSION, _ignore) as session,
    ):
        message = decode(await session.request(encode(request)))
    if isinstance(message, Error):
        raise remote_error(message)
    if not isinstance(message, answer):
        raise ProtocolError("unexpected_message", type(message).__name__)
    return message


def _ignore(session: Session, request_id: int, body: bytes) -> None:
    """Notices are for nodes."""
