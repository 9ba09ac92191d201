"""Who may read over HTTP what a server tells: a check of the name it is called by, or a password.

A page of anybody's can make a browser on this machine ask a port of it. Such a page may not read
the answers, unless its own name was made to mean 127.0.0.1 (DNS rebinding): then `Host` holds that
name. So a server without a password answers to names of its own only. With one the name does not
matter: a browser sends a password to the origin that it was given for and to no other.

A password is sent as `Authorization: Bearer` by programs, as `Basic` (under any user) by browsers.
It is read once at the start, kept as its sha256, and compared in constant time; wrong ones are
counted (password_guesses.py).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from assay_network.http_listener import is_loopback
from assay_network.password_guesses import PasswordGuesses
from assay_network.private_files import read_private
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay_network.http_connection import Application

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})  # for whoever restarts what does not answer
PASSWORD_CHARS_MIN: Final = 16  # who has many addresses may guess often
PASSWORD_CHARS_MAX: Final = 1_024
NAMES_MAX: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PASSWORD: Final = re.compile(rb"[!-~]+")
_CHALLENGE: Final = b'Basic realm="assay", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Guard:
    """`password`: the sha256 of the one to be told; empty: none is. `names`: in lower case, what
    this server may be called beside localhost and addresses. `names_checked`: whether they count
    where there is no password."""

    password: bytes = b""
    names: frozenset[str] = frozenset()
    names_checked: bool = True

    def refusal(self, host: str, authorization: str) -> tuple[int, str] | None:
        """Why a request with these headers is not answered, as status and code; None: it is."""
        if self.password:
            return None if self._knows(authorization) else (401, "password_required")
        if self.names_checked and not is_own_name(host, self.names):
            return 421, "misdirected_request"
        return None

    def _knows(self, authorization: str) -> bool:
        kind, _, given = authorization.partition(" ")
        secret = given.strip().encode("latin-1", "replace")
        if kind.lower() == "basic":
            try:
                secret = base64.b64decode(secret, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(hashlib.sha256(secret).digest(), self.password)


def guard_of(
    setting: str,
    address: tuple[str, int],
    password_file: Path | None,
    names: Collection[str],
    opened: bool,
) -> Guard:
    """The guard of a server that listens on `address`, which its owner set as `setting`. `opened`:
    whoever reaches it may read.

    Raises AssayError: "config_invalid", also for an address that others reach where neither a
    password nor `opened` says who may read; "key_permissions" if others can read the file.
    """
    for name in names:
        _require(bool(_NAME.fullmatch(name)), f"not the name of a host: {name!r}")
    _require(len(names) <= NAMES_MAX, f"at most {NAMES_MAX} names")
    _require(not (opened and password_file), "there is a password, or anybody may read: not both")
    inside = is_loopback(address[0])
    if not (inside or opened or password_file):
        ways = f"give {setting}-password FILE, or {setting}-open to let anybody read"
        raise AssayError("config_invalid", f"{address[0]} can be reached by others: {ways}")
    password = b"" if password_file is None else _password(password_file)
    known = frozenset(name.lower() for name in names)
    return Guard(password, known, names_checked=not opened)


def is_own_name(host: str, names: Collection[str] = ()) -> bool:
    """Whether a `Host` header holds localhost, an address, or one of `names`, which are lower case;
    with or without a port."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name.lower() == "localhost" or name.lower() in names:
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def guarded(app: Application, guard: Guard) -> Application:
    """`app`, for callers whom `guard` lets in; OPEN_PATHS are open to all."""

    guesses = PasswordGuesses()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] in OPEN_PATHS:
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host, authorization = (headers.get(name, b"").decode("latin-1") for name in _READ)
        guessed = bool(guard.password and authorization)
        client, now = (scope.get("client") or ("",))[0], trio.current_time()
        if guessed and (wait := guesses.wait(client, now)):
            await _refuse(send, 429, "rate_limited", wait)
            return
        refusal = guard.refusal(host, authorization)
        if guessed and refusal is None:
            guesses.right(client)
        elif guessed:
            guesses.wrong(client, now)
        if refusal is None:
            await app(scope, receive, send)
        else:
            await _refuse(send, *refusal)

    return answer


_READ: Final = (b"host", b"authorization")
_SAID: Final[Mapping[str, str]] = {
    "password_required": "tell the password: as bearer token, or with any user's name",
    "rate_limited": "too many wrong passwords came from this address",
    "misdirected_request": "call this server by localhost, an address, or a name its owner set",
}


async def _refuse(send: Any, status: int, code: str, wait: int = 0) -> None:
    body = json.dumps({"error": {"code": code, "message": _SAID[code]}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if wait:
        headers.append((b"retry-after", str(wait).encode()))
    if status == 401:
        headers.append((b"www-authenticate", _CHALLENGE))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _password(path: Path) -> bytes:
    text = read_private(path.expanduser(), PASSWORD_CHARS_MAX + 2).strip()
    right = PASSWORD_CHARS_MIN <= len(text) <= PASSWORD_CHARS_MAX and _PASSWORD.fullmatch(text)
    rule = f"{PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters of ASCII without spaces"
    _require(bool(right), f"{path} must hold a password of {rule}")
    return hashlib.sha256(text).digest()


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", what)
