"""The kept session with the coordinator: reconnects by itself, asks, and hands in what must arrive.

A question waits for a session as long as its timeout allows. What is handed in (receipts, tickets
given up) is repeated until the coordinator answered, and flushed for a moment when the client ends;
a receipt lost even so is handed in by its node, and an abandoned ticket expires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from assay_network.scopes import shielded
from assay_network.session import Session, open_session
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.links import SESSION
from assay_protocol.messages import AbandonJob, Error, GetPart, Part, SubmitReceipt
from assay_protocol.streams import remote_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay_network.host import Host

ASK_SECONDS: Final = 15.0
RECONNECT_SECONDS: Final = 0.25  # doubles up to the next
RECONNECT_SECONDS_MAX: Final = 15.0
HAND_INS_MAX: Final = 1_024  # waiting for the coordinator; more are left to the nodes
FLUSH_SECONDS: Final = 3.0
READ_TRIES: Final = 3
_HAND_IN_AGAIN: Final = frozenset({"timeout", "busy", "rate_limited", "storage_failed", "internal"})
_M = TypeVar("_M")


class CoordinatorLink:
    """The client's way to its coordinator, `public_key` (32 bytes) at `addresses`."""

    def __init__(self, host: Host, public_key: bytes, addresses: Sequence[str]) -> None:
        self.public_key = public_key
        self._host, self._addresses = host, tuple(addresses)
        self._session: Session | None = None
        self._changed = trio.Event()
        self._refusal: AssayError = PeerGone("the coordinator cannot be reached")
        self._outbox: list[SubmitReceipt | AbandonJob] = []
        self._outbox_changed = trio.Event()
        self._outbox_empty = trio.Event()
        self._outbox_empty.set()

    async def run(self) -> None:
        """Keep a session open until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._empty_outbox)
            wait = RECONNECT_SECONDS
            while True:
                try:
                    async with open_session(
                        self._host, self.public_key, self._addresses, SESSION, _ignore
                    ) as session:
                        wait = RECONNECT_SECONDS
                        self._set(session)
                        await session.closed.wait()
                except AssayError as error:
                    self._refusal = error
                finally:
                    self._set(None)
                await trio.sleep(wait)
                wait = min(2 * wait, RECONNECT_SECONDS_MAX)

    async def ask(self, wanted: type[_M], question: object, timeout: float = ASK_SECONDS) -> _M:
        """The coordinator's answer, which must be a `wanted`.

        Raises RemoteError with the coordinator's code, PeerGone or AssayError("timeout") (the
        question may or may not have been acted on), ProtocolError.
        """
        with trio.move_on_after(timeout):
            session = await self._connected()
            answer = decode(await session.request(encode(question), timeout))
            if isinstance(answer, Error):
                raise remote_error(answer)
            if not isinstance(answer, wanted):
                raise ProtocolError("unexpected_message", f"wanted {wanted.__name__}")
            return answer
        raise AssayError("timeout") if self._session else self._refusal

    async def read(self, wanted: type[_M], question: object) -> _M:
        """`ask`, repeated over a lost session: only for questions that change nothing."""
        for _ in range(READ_TRIES - 1):
            try:
                return await self.ask(wanted, question)
            except PeerGone:
                await trio.sleep(RECONNECT_SECONDS)
        return await self.ask(wanted, question)

    async def document(self, what: str, key: bytes, bytes_max: int) -> bytes:
        """A long document, fetched in pieces; see GetPart. The caller checks what it says."""
        data = bytearray()
        while True:
            part = await self.read(Part, GetPart(what=what, key=key, offset=len(data)))
            if part.total > bytes_max or len(data) + len(part.data) > part.total:
                raise ProtocolError("oversized", f"the {what} is larger than it may be")
            data += part.data
            if len(data) == part.total:
                return bytes(data)
            if not part.data:
                raise ProtocolError("malformed", f"the {what} is cut short")

    def hand_in(self, body: SubmitReceipt | AbandonJob) -> None:
        """See to it that the coordinator gets `body`; returns at once."""
        if len(self._outbox) < HAND_INS_MAX:
            self._outbox.append(body)
            self._outbox_empty = trio.Event()
            self._outbox_changed.set()

    @property
    def waiting(self) -> int:
        """What was handed in and is not answered yet."""
        return len(self._outbox)

    async def flush(self) -> None:
        """Wait, for at most FLUSH_SECONDS, until everything handed in was answered."""
        with shielded(FLUSH_SECONDS):
            while self._outbox:
                await self._outbox_empty.wait()

    async def _empty_outbox(self) -> None:
        while True:
            while not self._outbox:
                self._outbox_empty.set()
                self._outbox_changed = trio.Event()
                await self._outbox_changed.wait()
            try:
                await self.ask(object, self._outbox[0])
            except AssayError as error:
                if isinstance(error, PeerGone) or error.code in _HAND_IN_AGAIN:
                    await trio.sleep(RECONNECT_SECONDS)
                    continue
            del self._outbox[0]  # booked, or refused for good

    async def _connected(self) -> Session:
        while self._session is None:
            await self._changed.wait()
        return self._session

    def _set(self, session: Session | None) -> None:
        self._session = session
        self._changed.set()
        self._changed = trio.Event()


def _ignore(session: Session, request_id: int, body: bytes) -> None:
    """Nothing is asked of a client; a notice of a later version is not understood."""
