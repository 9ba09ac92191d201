"""Looks at nodes and a coordinator: their pages over HTTP, or the file a node writes.

Every look ends within LOOK_SECONDS, however slowly somebody answers, and holds at most so many
bytes; what goes wrong becomes the look's `fault`, never an exception. Textual's loop is asyncio,
so that is what it runs on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import httpx

from assay.top.core import words
from assay.top.core.network_view import NetworkLook
from assay.top.core.node_view import Look
from assay_network.private_files import read_private
from assay_protocol.errors import AssayError
from assay_protocol.urls import http_url

LOOK_SECONDS: Final = 3.0
BODY_BYTES_MAX: Final = 2 << 20  # of one page
STATUS_FILE: Final = "status.json"
STATUS_BYTES_MAX: Final = 1 << 20
PASSWORD_BYTES_MAX: Final = 1_026
_WELL: Final = frozenset({200})
_READY: Final = frozenset({200, 503})
_NODES: Final = "/api/nodes?limit=200"
_VERDICTS: Final = "/api/verdicts?limit=8"


class LookFailed(Exception):
    """A page could not be had; its argument is a code."""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node is looked at: the URL of its pages, or its data folder. `password` is theirs,
    and told to nobody else."""

    name: str  # as it was given
    url: str = ""
    folder: Path | None = None
    password: str = field(default="", repr=False)


def node_place(text: str, password: str = "") -> NodePlace:
    """Of `--node`: a URL, HOST:PORT, or a folder. Raises AssayError("config_invalid")."""
    folder = Path(text).expanduser()
    if "://" not in text and ("/" in text or folder.is_dir()):
        return NodePlace(text, folder=folder, password=password)
    return NodePlace(text, url=page_root(text), password=password)


def passwords(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Of `--password`, [WHERE=]FILE: who is told which; WHERE may be left out where one is watched.

    Raises AssayError: "config_invalid", or "key_permissions" if others can read a file.
    """
    found: dict[str, str] = {}
    for text in given:
        where, mark, file = text.rpartition("=")
        if not mark and len(names) == 1:
            where = names[0]
        if where not in names:
            raise AssayError("config_invalid", f"--password {text}: WHERE=FILE, with WHERE watched")
        secret = read_private(Path(file).expanduser(), PASSWORD_BYTES_MAX).strip()
        if not secret.isascii() or not secret.decode("ascii").isprintable():
            raise AssayError("config_invalid", f"{file} holds no password")
        found[where] = secret.decode()
    return found


def page_root(text: str) -> str:
    """The URL without a slash at its end; HOST:PORT means http. A path may be in it, for a proxy in
    front; a user, a query or a fragment may not. Raises AssayError("config_invalid")."""
    parts = http_url(text if "://" in text else f"http://{text}")
    if parts is None or parts.username or parts.password or parts.query or parts.fragment:
        what = "a folder, HOST:PORT or http(s)://HOST[:PORT]"
        raise AssayError("config_invalid", f"{text!r} is not {what}")
    return parts.geturl().rstrip("/")


def new_web() -> httpx.AsyncClient:
    """What pages are asked with: no proxy of the environment, no redirects, nothing packed."""
    plain = {"accept-encoding": "identity"}
    return httpx.AsyncClient(timeout=LOOK_SECONDS, trust_env=False, headers=plain)


async def look_at_node(web: httpx.AsyncClient, place: NodePlace) -> Look:
    """One look. A folder's status file names the node's pages, if it serves any."""
    at = _now()
    try:
        with anyio.fail_after(LOOK_SECONDS):
            if place.folder is None:
                return await _by_pages(web, place.url, place.password)
            return await _by_file(web, place.folder, place.password)
    except LookFailed as failure:
        return Look(at, fault=str(failure))
    except TimeoutError:
        return Look(at, fault="timeout")


async def look_at_network(web: httpx.AsyncClient, url: str, password: str = "") -> NetworkLook:
    """One look at a coordinator's dashboard."""
    at = _now()
    try:
        with anyio.fail_after(LOOK_SECONDS):
            network = await _json(web, f"{url}/api/network", password)
            nodes = await _json(web, url + _NODES, password)
            verdicts = await _json(web, url + _VERDICTS, password)
            return NetworkLook(_now(), network, nodes, verdicts)
    except LookFailed as failure:
        return NetworkLook(at, fault=str(failure))
    except TimeoutError:
        return NetworkLook(at, fault="timeout")


async def _by_pages(web: httpx.AsyncClient, url: str, password: str) -> Look:
    metrics = await _page(web, f"{url}/metrics", password, _WELL)
    ready = await _json(web, f"{url}/readyz", password, _READY)
    at, status = _now(), None
    try:
        status = await _json(web, f"{url}/status", password)
    except LookFailed as failure:
        if str(failure) != "http_404":  # of a node of an older version
            raise
    reasons = words.texts(words.fields(ready), "reasons")
    return Look(at, status, metrics.decode(errors="replace"), reasons)


async def _by_file(web: httpx.AsyncClient, folder: Path, password: str) -> Look:
    try:
        raw = await anyio.to_thread.run_sync(_read_start, folder / STATUS_FILE)
    except OSError:
        raise LookFailed("no_status") from None
    status = _decoded(raw)
    written = Look(_now(), status, from_file=True)
    url = words.text(words.fields(status), "metrics")
    if http_url(url) is None:
        return written
    with anyio.move_on_after(LOOK_SECONDS / 2), contextlib.suppress(LookFailed):
        return await _by_pages(web, url.rstrip("/"), password)
    return written  # its age tells whether somebody is there


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(STATUS_BYTES_MAX)


async def _json(
    web: httpx.AsyncClient, url: str, password: str, statuses: frozenset[int] = _WELL
) -> object:
    return _decoded(await _page(web, url, password, statuses))


async def _page(web: httpx.AsyncClient, url: str, password: str, statuses: frozenset[int]) -> bytes:
    headers = {"authorization": f"Bearer {password}"} if password else {}
    try:
        async with web.stream("GET", url, headers=headers) as response:
            if response.status_code not in statuses:
                raise LookFailed(f"http_{response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise LookFailed("oversized")
            return bytes(body)
    except httpx.TimeoutException:
        raise LookFailed("timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise LookFailed("unreachable") from None


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise LookFailed("malformed") from None


def _now() -> int:
    return int(anyio.current_time() * 1e6)
