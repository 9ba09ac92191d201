"""The gateway's parts put together, and served.

One SDK client, connected before anything is listened for, serves all requests in one trio loop.
Ending is in order: no new connections, /readyz says so, open answers finish (bounded), the last
receipts are handed in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import trio
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router

from assay.direct import AsyncClient
from assay.events import JobLimits
from assay.gateway import (
    chat_api,
    completions_api,
    credit_api,
    embeddings_api,
    messages_api,
    models_api,
    responses_api,
    routes_api,
)
from assay.gateway.admission import ANYBODY, Admission
from assay.gateway.api_keys import ApiKeys
from assay.gateway.bodies import Bodies
from assay.gateway.door import Door
from assay.gateway.event_stream import Receive, Send
from assay.gateway.exchange import Exchange, Handle
from assay.gateway.router import Router as RequestRouter
from assay.gateway.service import Service
from assay.gateway.settings import Settings
from assay.gateway.spending import Spending
from assay.gateway.usage import Usage
from assay.routing.core.plans import Routes
from assay.routing.file import read_routes
from assay.tracing import Follow, JobTraces
from assay_network.http_guard import OPEN_PATHS
from assay_network.http_listener import listener_url, listening_socket
from assay_network.http_server import serve_http
from assay_network.logs import get_logger
from assay_network.scopes import single_errors
from assay_network.tracing import exporter
from assay_network.typed_settings import data_folder
from assay_network.web_pages import page_routes

DRAIN_SECONDS: Final = 30.0  # for answers under way when the gateway ends
BACKOFF_US_MAX: Final = 1_000_000
_ROUTES: Final[tuple[tuple[str, str, Handle], ...]] = (
    ("POST", "/v1/chat/completions", chat_api.chat_completions),
    ("POST", "/v1/completions", completions_api.completions),
    ("POST", "/v1/responses", responses_api.create),
    ("POST", "/v1/responses/compact", responses_api.compact),
    ("GET", "/v1/responses/{response}", responses_api.retrieve),
    ("DELETE", "/v1/responses/{response}", responses_api.delete),
    ("POST", "/v1/responses/{response}/cancel", responses_api.cancel),
    ("GET", "/v1/responses/{response}/input_items", responses_api.input_items),
    ("POST", "/v1/messages", messages_api.messages),
    ("POST", "/v1/messages/count_tokens", messages_api.count_tokens),
    ("POST", "/v1/embeddings", embeddings_api.embeddings),
    ("GET", "/v1/models", models_api.models),
    ("GET", "/v1/models/{model}", models_api.model),
    ("GET", "/v1/receipts/{receipt}", models_api.receipt),
    ("GET", "/v1/receipts/{receipt}/credit", credit_api.credit),
    ("GET", "/v1/routes", routes_api.decisions),
    ("POST", "/tokenize", models_api.tokenize),
    ("POST", "/detokenize", models_api.detokenize),
    ("GET", "/healthz", models_api.healthz),
    ("GET", "/readyz", models_api.readyz),
)
# Pages for browsers; they ask for the paths above like any other client.
_PAGES: Final = {"/": "chat/index.html", "/receipt": "chat/receipt.html"}
_EXPOSED: Final = (
    "x-request-id",
    "x-assay-node",
    "x-assay-receipt",
    "x-assay-credit",
    "x-assay-route",
)
_log = get_logger("gateway")


class _Started(Protocol):
    """What `nursery.start` hands over, as far as it is used here."""

    def started(self, value: str) -> None: ...


class _Endpoint:
    """One path as an ASGI application."""

    def __init__(self, service: Service, handles: Mapping[str, Handle]) -> None:
        self._service, self._handles = service, handles

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        caller = scope.get("assay.caller", ANYBODY)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._handles[method](Exchange(scope, receive, send, self._service, caller))


def gateway_app(service: Service) -> Any:
    """The ASGI application of `service`."""
    by_path: dict[str, dict[str, Handle]] = {}
    for method, path, handle in _ROUTES:
        by_path.setdefault(path, {})[method] = handle
    routes = [
        Route(path, _Endpoint(service, handles), methods=list(handles))
        for path, handles in by_path.items()
    ]
    settings = service.settings
    checked = not settings.keys and not settings.open
    pages = page_routes(_PAGES)
    router = Router([*routes, *pages], redirect_slashes=False)
    open_paths = OPEN_PATHS.union(page.path for page in pages)
    bodies = Bodies(settings.body_bytes, settings.body_seconds)
    app: Any = Door(router, service.admission, bodies, open_paths=open_paths, names_checked=checked)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(_EXPOSED),
        )
    return app


async def run_gateway(
    settings: Settings,
    *,
    transports: list[Any] | None = None,
    stop: Callable[[], Awaitable[object]] = trio.sleep_forever,
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` returns; `task_status` gets the URL. Raises AssayError: "port_in_use",
    "config_invalid", "key_permissions", "storage_failed"."""
    routes = _routes(settings)
    keys = _keys(settings, routes)
    spending = Spending(settings.directory / "gateway.sqlite")
    admission = Admission(keys, spending, settings.requests)
    usage = Usage(settings.directory / "gateway.sqlite")
    with (
        closing(listening_socket(*settings.address)) as listener,
        _followed(settings) as follow,
        single_errors(),
    ):
        async with (
            AsyncClient.connect(
                settings.coordinator,
                key_path=_key_path(settings),
                cache=settings.directory / "cards",
                limits=job_limits(settings),
                transports=transports,
                follow=follow,
            ) as client,
            RequestRouter.opened(routes, os.environ, usage, spending) as router,
            trio.open_nursery() as tasks,
        ):
            tasks.start_soon(usage.run)
            service = Service(client, settings, admission, tasks, router)

            async def until_stopped() -> None:
                await stop()
                service.draining = True

            task_status.started(listener_url(listener))
            app = gateway_app(service)
            await serve_http(app, listener, graceful_seconds=DRAIN_SECONDS, stop=until_stopped)
            tasks.cancel_scope.cancel()
    await usage.flush()  # what was drawn in the background has been counted by now


def job_limits(settings: Settings) -> JobLimits:
    """How long a job is tried: a caller who can come again is told so in seconds, before a stream
    has to be begun to keep it alive."""
    seconds = settings.answer_seconds
    return JobLimits(backoff_max_us=BACKOFF_US_MAX, total_us=seconds * 1_000_000)


def _keys(settings: Settings, routes: Routes) -> ApiKeys | None:
    path = Path(settings.keys).expanduser()
    return ApiKeys(path, routes.upstreams) if settings.keys else None


@contextmanager
def _followed(settings: Settings) -> Iterator[Follow | None]:
    """What makes spans of jobs, if the owner named a collector."""
    if not settings.otlp:
        yield None
        return
    with exporter(settings.otlp, "assay-gateway") as emit:
        yield JobTraces(emit, lambda: time.time_ns() // 1_000).follow


def _routes(settings: Settings) -> Routes:
    return read_routes(Path(settings.routes).expanduser()) if settings.routes else Routes()


def _key_path(settings: Settings) -> Path:
    if settings.key:
        return Path(settings.key).expanduser()
    return data_folder("", "client.key")
