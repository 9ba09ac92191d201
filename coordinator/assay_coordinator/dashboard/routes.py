"""The JSON API: one table of what there is, from which routes and docs/dashboard.md are made.

Answers are kept for two seconds, so a crowd that looks at one page costs as much as one reader;
each has an entity tag, and who has it already is sent nothing. At most MAKING_MAX are made at once,
and those that are being sent have SENDING_BYTES_MAX, however slowly they are read.
What time it is here goes beside an answer, not into it: else no answer would ever be the same.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay_coordinator.dashboard import credit_views, job_views, network_views, node_views
from assay_coordinator.dashboard.asked import Asked
from assay_coordinator.dashboard.subject import Subject
from assay_coordinator.dashboard.views import Views
from assay_network.frames import ByteBudget
from assay_network.logs import get_logger
from assay_network.web_pages import SAFETY_HEADERS, etag_of, page_routes, tagged_response
from assay_protocol.errors import AssayError

FRESH_SECONDS: Final = 2.0
KEPT_MAX: Final = 64  # answers
MAKING_MAX: Final = 32
SENDING_BYTES_MAX: Final = 128 << 20  # of answers under way: a bundle may have 64 MiB
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
CLOCK_HEADER: Final = "x-assay-now"  # microseconds since the epoch
STATUS: Final[Mapping[str, int]] = {
    "query_invalid": 400,
    "unknown_node": 404,
    "unknown_ticket": 404,
    "epoch_unknown": 404,
    "proof_invalid": 404,
    "oversized": 413,
    "busy": 503,
    "storage_failed": 503,
    "disk_full": 503,
}
_PAGES: Final = {"/": "dashboard/index.html"}
_LIMIT: Final = {"limit": "items of a page, 1 to 200; 50 if left out", "after": "`next` of a page"}

_Name = tuple[str, bytes]  # path and query
log = get_logger("dashboard")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API: what answers it, which words its query may have, what it tells."""

    path: str
    view: Callable[[Views, Asked], Awaitable[Mapping[str, Any] | bytes]]
    text: str
    query: Mapping[str, str] = field(default_factory=dict)


API: Final = (
    Endpoint(
        "/api/network",
        network_views.network,
        "health, nodes by standing, slots, jobs of the last six hours, what needs a look",
    ),
    Endpoint("/api/models", network_views.models, "the catalogue: prices, files, who serves it"),
    Endpoint(
        "/api/nodes",
        node_views.nodes,
        "all nodes, those with a lease first",
        {
            "state": "active, probation, away, inquiry, suspended or convicted",
            "model": "a model's id: who offers it",
            **_LIMIT,
        },
    ),
    Endpoint(
        "/api/nodes/{node}",
        node_views.one_node,
        "one node: hardware, offers, standing, record, credit",
    ),
    Endpoint(
        "/api/nodes/{node}/audits",
        node_views.node_audits,
        "replays of a node's answers, newest first",
        {"role": "executor, or auditor for those it made of others' answers", **_LIMIT},
    ),
    Endpoint(
        "/api/jobs",
        job_views.jobs,
        "booked jobs, newest first: counts, times, price, state",
        {"node": "a node's key: jobs that it did", **_LIMIT},
    ),
    Endpoint(
        "/api/jobs/{ticket}",
        job_views.job,
        "one booked job and, once its audit has ended, every replay of it",
    ),
    Endpoint(
        "/api/verification",
        job_views.verification,
        "how audits of the last 24 hours ended, by the hour; rules of auditing",
    ),
    Endpoint(
        "/api/verdicts",
        job_views.verdicts,
        "audits that ended, newest first",
        {
            "outcome": "passed, failed, unequal, withheld, unproven, unaudited or convicted",
            **_LIMIT,
        },
    ),
    Endpoint(
        "/api/epochs",
        credit_views.epochs,
        "closed epochs, newest first: root, sum, transaction; and the running one",
        _LIMIT,
    ),
    Endpoint("/api/epochs/{epoch}", credit_views.epoch, "one closed epoch"),
    Endpoint(
        "/api/epochs/{epoch}/leaves",
        credit_views.leaves,
        "leaves of an epoch's tree by index: account, role, credit",
        _LIMIT,
    ),
    Endpoint(
        "/api/credit/{account}",
        credit_views.account,
        "what an account earned, by role, and in each of the last 30 epochs",
    ),
    Endpoint(
        "/api/credit/{account}/bundle",
        credit_views.bundle,
        "its credit bundle of the newest epoch on the chain (protocol/spec/credit.md), as bytes",
    ),
)


def dashboard_routes(subject: Subject) -> list[Route]:
    """Everything that this door serves beside metrics and health."""
    answers = Answers(Views(subject))
    routes = [Route(one.path, answers.of(one), methods=["GET"]) for one in API]
    return [*routes, *page_routes(_PAGES)]


class Answers:
    """Makes answers of the API, and keeps them for a moment."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._kept: OrderedDict[_Name, tuple[float, bytes, str]] = OrderedDict()
        self._making, self._sending = 0, ByteBudget(SENDING_BYTES_MAX)

    def of(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """What answers requests for one path."""

        async def answer(request: Request) -> Response:
            try:
                content, etag = await self._content(endpoint, request)
            except AssayError as error:
                return refused(error)
            kind = BYTES if endpoint.view is credit_views.bundle else JSON
            response = tagged_response(request, content, etag, kind)
            response.headers[CLOCK_HEADER] = str(self._views.subject.clock())
            return _Sent(response, self._sending)

        return answer

    async def _content(self, endpoint: Endpoint, request: Request) -> tuple[bytes, str]:
        asked = Asked(request.path_params, request.query_params.multi_items())
        asked.check(endpoint.query)
        # Not `request.url`: a caller writes part of that, in Host.
        name = request.scope["path"], request.scope["query_string"]
        made_at, content, etag = self._kept.get(name, (-math.inf, b"", ""))
        if trio.current_time() - made_at < FRESH_SECONDS:
            return content, etag
        if self._making >= MAKING_MAX:
            raise AssayError("busy", retry_after_ms=1_000)
        self._making += 1
        try:
            shape = await endpoint.view(self._views, asked)
        finally:
            self._making -= 1
        if isinstance(shape, bytes):
            return shape, etag_of(shape)  # large ones have a cache of their own
        content = json.dumps(shape, separators=(",", ":")).encode()
        etag = etag_of(content)
        self._keep(name, content, etag)
        return content, etag

    def _keep(self, name: _Name, content: bytes, etag: str) -> None:
        self._kept.pop(name, None)
        self._kept[name] = (trio.current_time(), content, etag)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)


class _Sent(Response):
    """A response that holds its share of `budget` until it was sent; "busy" if there is none."""

    def __init__(self, whole: Response, budget: ByteBudget) -> None:
        self._whole, self._budget = whole, budget

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = len(self._whole.body)
        try:
            self._budget.take(size)
        except AssayError:
            busy = AssayError("busy", "too much is being sent", retry_after_ms=1_000)
            await refused(busy)(scope, receive, send)
            return
        try:
            await self._whole(scope, receive, send)
        finally:
            self._budget.give_back(size)


def refused(error: AssayError) -> Response:
    """An error as JSON: its stable code, and a message for people."""
    status = STATUS.get(error.code, 500)
    if status >= 500 and error.code != "busy":
        log.error("not_answered", code=error.code, detail=error.message)
    headers = {**SAFETY_HEADERS, "cache-control": "no-store"}
    if status == 503:
        headers["retry-after"] = str(-(-(error.retry_after_ms or 1_000) // 1_000))
    body = json.dumps({"error": {"code": error.code, "message": error.message}})
    return Response(body, status, headers, media_type=JSON)
