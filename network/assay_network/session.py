"""Opening sessions, and serving them to many peers. What a session is: kept_stream.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from assay_network.kept_stream import (
    IDLE_SECONDS,
    PING,
    PONG,
    REFUSED,
    OnFrame,
    Session,
    session_frame,
)
from assay_network.scopes import single_errors
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.limits import SESSIONS_MAX

if TYPE_CHECKING:
    from assay_network.frames import Frames
    from assay_network.host import Host

__all__ = ["OnFrame", "Session", "open_session", "serve_sessions"]

SESSIONS_PER_PEER_MAX: Final = 4
OPEN_SECONDS_MAX: Final = 10.0


@asynccontextmanager
async def open_session(
    host: Host,
    public_key: bytes,
    addresses: Iterable[str],
    protocol: str,
    on_frame: OnFrame,
    *,
    timeout: float = OPEN_SECONDS_MAX,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncIterator[Session]:
    """A session with a peer, dialed when needed; ends on leaving.

    The body is not interrupted when the session ends early: watch `session.closed`.
    Raises PeerGone, AssayError("timeout"), AssayError("unsupported_protocol"), AssayError("busy").
    """
    hello = session_frame(PING, 0, b"")
    async with host.open(public_key, protocol, hello, timeout, addresses=addresses) as frames:
        answer = await frames.receive(timeout)
        if answer == session_frame(REFUSED, 0, b""):
            raise AssayError("busy", "the peer takes no more sessions")
        if answer != session_frame(PONG, 0, b""):
            raise ProtocolError("unexpected_message", "the peer did not open the session")
        session = Session(frames, idle_seconds=idle_seconds)
        with single_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run, on_frame)
                try:
                    yield session
                finally:
                    await session.aclose()


def serve_sessions(
    host: Host,
    protocol: str,
    on_open: Callable[[Session], OnFrame],
    on_close: Callable[[Session], None],
    *,
    sessions_max: int = SESSIONS_MAX,
    idle_seconds: float = IDLE_SECONDS,
) -> None:
    """Serve sessions on `protocol`: `on_open` gives the frame handler of each new one.

    Beyond `sessions_max` newcomers are refused ("busy"). A peer with SESSIONS_PER_PEER_MAX sessions
    loses its oldest to its newest: it has reconnected before we noticed that it was gone.
    `on_close` is called once for every session whose `on_open` returned.
    """
    sessions: dict[bytes, list[Session]] = {}
    count = 0

    async def handle(peer: bytes, frames: Frames) -> None:
        nonlocal count
        if await frames.receive(OPEN_SECONDS_MAX) != session_frame(PING, 0, b""):
            raise ProtocolError("unexpected_message", "a session opens with a ping")
        if count >= sessions_max:
            await frames.send(session_frame(REFUSED, 0, b""))
            return
        await frames.send(session_frame(PONG, 0, b""))
        session = Session(frames, idle_seconds=idle_seconds)
        on_frame = on_open(session)
        count += 1
        mine = sessions.setdefault(peer, [])
        mine.append(session)
        if len(mine) > SESSIONS_PER_PEER_MAX:
            mine[0].end(PeerGone("the peer opened newer sessions"))
        try:
            await session.run(on_frame)
        finally:
            count -= 1
            mine.remove(session)
            if not mine:
                sessions.pop(peer, None)
            on_close(session)
        await frames.abort()

    host.serve(protocol, handle)
