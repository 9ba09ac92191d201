"""What a process tells whoever runs it, over HTTP: three read-only pages.

    /metrics   Prometheus text: counts and times, never a prompt, a key of a client or a token
    /healthz   200 as long as the process answers at all
    /readyz    200 if it does its work, else 503 with the reasons

An answer is made in the loop that does the work, so a process that answers is one that runs; the
metrics are made once a second at most, however many ask. Of what is sent with a request only the
name it calls this server by and a password are read (http_guard.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from assay_network.http_guard import Guard, guarded
from assay_network.http_listener import listener_url, listening_socket
from assay_network.http_server import serve_http
from assay_network.scopes import single_errors

TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus
GRACEFUL_SECONDS: Final = 1.0
CONNECTIONS_MAX: Final = 1_024
FRESH_SECONDS: Final = 1.0  # for so long the same text is given again
_KEPT_BY_NOBODY: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class _Started(Protocol):
    """What `nursery.start` hands over, as far as it is used here."""

    def started(self, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Monitored:
    """One process, as far as its operator sees it from outside.

    `metrics`: all of them as Prometheus text, now. `faults`: why it does not do its work, as
    stable codes; none: it does.
    """

    metrics: Callable[[], bytes]
    faults: Callable[[], Sequence[str]]


def monitor_app(monitored: Monitored, more: Sequence[Route] = ()) -> Starlette:
    """The ASGI application; `more`: what else is served at this door, read-only too."""

    text, made_at = b"", -math.inf

    async def metrics(request: Request) -> Response:
        nonlocal text, made_at
        if trio.current_time() - made_at >= FRESH_SECONDS:
            text, made_at = monitored.metrics(), trio.current_time()
        return Response(text, media_type=TEXT_FORMAT, headers=_KEPT_BY_NOBODY)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_KEPT_BY_NOBODY)

    async def readyz(request: Request) -> Response:
        reasons = list(monitored.faults())
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    pages = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    return Starlette(routes=[*(Route(path, page) for path, page in pages.items()), *more])


async def run_monitor(
    monitored: Monitored,
    address: tuple[str, int],
    more: Sequence[Route] = (),
    *,
    guard: Guard = Guard(),
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `task_status` gets the URL. Raises AssayError("port_in_use")."""
    with closing(listening_socket(*address)) as listener, single_errors():
        task_status.started(listener_url(listener))
        await serve_http(
            guarded(monitor_app(monitored, more), guard),
            listener,
            graceful_seconds=GRACEFUL_SECONDS,
            connections_max=CONNECTIONS_MAX,
        )


def json_page(path: str, text: Callable[[], str]) -> Route:
    """One page more of this door: what `text` gives as JSON, now."""

    async def page(request: Request) -> Response:
        return Response(text() + "\n", 200, _KEPT_BY_NOBODY, media_type="application/json")

    return Route(path, page)


def _json(value: Mapping[str, object], status: int) -> Response:
    text = json.dumps(value) + "\n"
    return Response(text, status, _KEPT_BY_NOBODY, media_type="application/json")
