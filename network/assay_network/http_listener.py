"""Where HTTP is served: an address somebody wrote, and a socket that listens there.

The gateway and what a process tells its operator (monitor.py) listen in one way, and are served by
http_server.py. h11 is only imported when something is served: who does not serve HTTP does not
need it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

from assay_protocol.errors import AssayError

UNREAD_SECONDS: Final = 60.0  # sent bytes may go without an acknowledgement: then it is cut
SEND_BUFFER_BYTES: Final = 256 * 1024  # of the kernel's, for what one client does not read
BACKLOG: Final = 1_024


def parse_address(name: str, text: str) -> tuple[str, int]:
    """Host and port of the setting `name`: HOST:PORT, or [HOST]:PORT; port 0 takes any free one.

    Raises AssayError("config_invalid").
    """
    host, colon, port = text.rpartition(":")
    right = bool(colon and host) and port.isascii() and port.isdecimal() and int(port) < 65_536
    if not right:
        raise AssayError("config_invalid", f"{name} must be HOST:PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether what goes to `host` stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket whose connections end when what they were sent stays unread; AssayError
    "port_in_use"."""
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            patience = round(UNREAD_SECONDS * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
            # Else a client that does not read may have several MB of the kernel's.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES // 2)
            # Tokens leave when they are there; accepted connections have these options, too.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)  # who comes before the first answer can be given waits
        except OSError:
            listener.close()
            raise
    except OSError as error:
        said = errno.errorcode.get(error.errno or 0, "")
        text = f"cannot listen on {host}:{port}: {error.strerror} {said}".rstrip()
        raise AssayError("port_in_use", text) from error
    return listener


def listener_url(listener: socket.socket) -> str:
    """Its http:// URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
