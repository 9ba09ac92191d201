"""Pages for browsers: the files of a package's `web` folder, served from memory.

There is no build step: what a browser gets are these files, byte for byte. What may be asked for is
known at the start (one table, name to file), so no path is ever built from a request. The policy
sent with each allows code, style and requests of the page's own origin only, nothing inline, and
no text that becomes markup (Trusted Types): a page shows what strangers wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILE_BYTES_MAX: Final = 262_144
PREFIX: Final = "/web"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    [
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
SAFETY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file as it is sent. `etag` changes with its bytes and with nothing else."""

    name: str  # from the web folder, with slashes
    content: bytes
    media_type: str
    etag: str


def web_files(package: str = "assay_network") -> dict[str, WebFile]:
    """Every file of the package's `web` folder by its name; files of other types are left out.

    Raises ValueError for one larger than FILE_BYTES_MAX: it would not be one of ours.
    """
    found = (_load(name, file) for name, file in _walk(files(package) / "web", ""))
    return {file.name: file for file in found if file is not None}


def page_routes(pages: Mapping[str, str]) -> list[Route]:
    """Routes for `pages` (path to the name of its HTML file), and for all files that they may
    ask for: those of the web folder, under /web/."""
    known = web_files()
    by_path = {f"{PREFIX}/{name}": file for name, file in known.items()}
    by_path |= {path: known[name] for path, name in pages.items()}
    return [Route(path, _sender(file), methods=["GET"]) for path, file in by_path.items()]


def etag_of(content: bytes) -> str:
    """The strong entity tag of `content`."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def tagged_response(request: Request, content: bytes, etag: str, media_type: str) -> Response:
    """`content`, or 304 when whoever asks has it already."""
    headers = {**SAFETY_HEADERS, "etag": etag, "cache-control": "no-cache"}
    if _has(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _has(header: str, etag: str) -> bool:
    """If-None-Match compares weakly: a proxy that compresses makes tags weak."""
    tags = (tag.strip().removeprefix("W/") for tag in header.split(","))
    return any(tag in {etag, "*"} for tag in tags)


def _sender(file: WebFile) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return tagged_response(request, file.content, file.etag, file.media_type)

    return send


def _load(name: str, file: Traversable) -> WebFile | None:
    media_type = _TYPES.get(name.rpartition(".")[2])
    if media_type is None:
        return None
    content = file.read_bytes()
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{name} has {len(content)} bytes, at most {FILE_BYTES_MAX} are served")
    return WebFile(name, content, media_type, etag_of(content))


def _walk(folder: Traversable, prefix: str) -> Iterable[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry
