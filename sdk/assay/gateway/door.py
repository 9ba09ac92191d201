"""The way in: every request gets an id, every caller is known and bounded, every failure is told.

A request is answered with JSON in the API's own shape whatever happens: what is refused with its
code, what the network cannot do with the network's code, and a fault of ours with 500 "internal"
and a line in the log that names its kind, never its text. No prompt, key or token is ever logged.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.routing import Router

from assay.gateway.admission import Admission
from assay.gateway.bodies import Bodies, announced_bytes
from assay.gateway.event_stream import Receive, Send
from assay.gateway.exchange import Gone, header, send_json
from assay.gateway.refusal import Refusal, fault, refusal_of
from assay_network.http_guard import OPEN_PATHS, is_own_name
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

REST_BYTES_MAX: Final = 1 << 20  # of a refused request's body
REST_SECONDS: Final = 1.0
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_HTTP: Final = {404: "not_found", 405: "method_not_allowed"}
_log = get_logger("gateway")


class Door:
    """An ASGI application around `router`. `open_paths` ask for no key, and what they answer is
    nobody's secret. `names_checked`: only this machine's own names may stand in `Host`, so that no
    page can reach a gateway without keys under a name of its own."""

    def __init__(
        self,
        router: Router,
        admission: Admission,
        bodies: Bodies,
        *,
        names_checked: bool,
        open_paths: Collection[str] = OPEN_PATHS,
    ) -> None:
        self._router, self._admission, self._bodies = router, admission, bodies
        self._names_checked = names_checked
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        asked = _Asked(scope, receive)
        answer = _Answer(send, _request_id(scope), asked)
        path = scope["path"]
        try:
            await self._serve(scope, asked.receive, answer)
        except Gone:
            return
        except Refusal as refusal:
            await answer.refuse(refusal, path)
        except AssayError as error:
            await answer.refuse(refusal_of(error), path)
        except HTTPException as error:
            code = _HTTP.get(error.status_code, "invalid_request")
            said = f"{scope['method'][:16]} {path[:128]}: {error.detail}"
            await answer.refuse(Refusal(error.status_code, code, said), path, error.headers or {})
        except Exception as error:  # one request's fault must not end the others
            _log.error("request_failed", error=type(error).__name__, request=answer.request_id)
            await answer.refuse(fault(), path)

    async def _serve(self, scope: Any, receive: Receive, answer: _Answer) -> None:
        scope["app"] = self  # so that the router raises what it does not find
        if scope["path"] in self._open_paths:
            await self._router(scope, receive, answer.send)
            return
        if self._names_checked and not is_own_name(header(scope, b"host")):
            raise Refusal(
                421, "misdirected_request", "call this gateway by localhost or an address"
            )
        caller = self._admission.caller(_key(scope))
        scope["assay.caller"], scope["assay.request"] = caller, answer.request_id
        async with self._bodies.gathered(scope, receive) as whole:
            with self._admission.admitted(caller) as headers:
                answer.headers |= headers
                await self._router(scope, whole, answer.send)


class _Asked:
    """What comes of one request; `whole` once its body was read to the end."""

    def __init__(self, scope: Any, receive: Receive) -> None:
        self.whole = False
        self._scope, self._receive = scope, receive

    async def receive(self) -> Any:
        message = await self._receive()
        self.whole = not message.get("more_body", False)
        return message

    async def rest(self) -> None:
        """Read on, within bounds: a connection cannot be used again in the middle of a body."""
        if header(self._scope, b"expect") or announced_bytes(self._scope) > REST_BYTES_MAX:
            return  # who waits to be asked for it would be; and the connection is to be closed
        left = REST_BYTES_MAX
        with trio.move_on_after(REST_SECONDS):
            while not self.whole and left > 0:
                left -= len((await self.receive()).get("body", b""))


class _Answer:
    """What is sent for one request: adds the headers every answer has."""

    def __init__(self, send: Send, request_id: str, asked: _Asked) -> None:
        self.request_id, self._asked = request_id, asked
        self.headers = {"x-request-id": request_id}
        self._send, self._begun = send, False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            more = [(k.encode(), v.encode("latin-1")) for k, v in self.headers.items()]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await self._send(message)

    async def refuse(
        self, refusal: Refusal, path: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Tell it, unless something was told already: the connection is then cut."""
        if not self._begun:
            await self._asked.rest()
            told = refusal.headers() | dict(headers or {})
            if not self._asked.whole:
                told["connection"] = "close"
            await send_json(self.send, refusal.status, refusal.body(path), told)


def _request_id(scope: Any) -> str:
    given = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _key(scope: Any) -> str | None:
    """OpenAI's header, or Anthropic's."""
    kind, _, given = header(scope, b"authorization").partition(" ")
    if kind.lower() == "bearer" and given.strip():
        return given.strip()
    return header(scope, b"x-api-key") or None
