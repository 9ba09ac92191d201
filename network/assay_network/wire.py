"""A connected TCP socket without layers: a send that fits, and a read of what is there, each cost
one system call and no switch of tasks.

trio's own stream makes about 10 µs of Python around a send, which is more than a token's whole text
costs. What is given up for it: `send` is a checkpoint only now and then (SENDS_AT_A_TIME). Several
tasks may send, and what each sends stays in one piece; one may read at a time.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import trio

READ_BYTES: Final = 65_536
SENDS_AT_A_TIME: Final = 16  # before other tasks have their turn
UNREAD_SECONDS: Final = 60.0  # for the peer to read a part of what waits: then it is cut off


class Wire:
    """One socket; takes it over. A wire that `broke` sends nothing and reads its end."""

    __slots__ = ("_sends", "_socket", "_stalled", "broke")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.broke = False
        self._socket, self._sends = sock, 0
        self._stalled: trio.Event | None = None  # a sender waits for room; set when it is through

    async def send(self, data: bytes) -> None:
        """All of `data`, or the wire breaks: the peer is gone, reads nothing for UNREAD_SECONDS, or
        the caller is cancelled in the middle. Never raises but for a cancellation."""
        while self._stalled is not None:
            await self._stalled.wait()
        if self.broke:  # whoever writes on must learn of it from `read`, and so have a turn
            await trio.lowlevel.checkpoint()
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broke = True
            return
        self._sends += 1
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])
        elif self._sends % SENDS_AT_A_TIME == 0:
            await trio.lowlevel.checkpoint()

    async def read(self) -> bytes:
        """Bytes as they come, at most READ_BYTES; b"" when the peer has ended, is gone or was cut.
        Cancelled, it takes nothing."""
        while not self.broke:
            try:
                return self._socket.recv(READ_BYTES)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_readable(self._socket.fileno())
                except trio.ClosedResourceError:  # `cut` by another task
                    break
            except OSError:
                self.broke = True
        return b""

    def finish(self) -> None:
        """Send no more; the peer may."""
        if not self.broke:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Close, at once and both ways; whoever reads gets the end. Does nothing twice."""
        self.broke = True
        if (number := self._socket.fileno()) >= 0:
            trio.lowlevel.notify_closing(number)
            self._socket.close()

    async def _send_rest(self, rest: memoryview) -> None:
        whole, self._stalled = False, trio.Event()
        try:
            while rest and not self.broke:
                with trio.fail_after(UNREAD_SECONDS):
                    await trio.lowlevel.wait_writable(self._socket.fileno())
                with contextlib.suppress(BlockingIOError):
                    rest = rest[self._socket.send(rest) :]
            whole = not rest
        except (OSError, trio.ClosedResourceError, trio.TooSlowError):
            return
        finally:
            self.broke = self.broke or not whole
            self._stalled.set()
            self._stalled = None
