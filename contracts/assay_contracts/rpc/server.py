"""Ethereum JSON-RPC over the local chain, so that wallets, explorers and `credit verify` can ask it
as they would any node, and anybody can send transactions to Assay's contracts.

Chain calls run in a thread, one at a time; the body, the batch and the calldata are bounded before
anything is parsed or run. What each method may cost is bounded where it stands (methods.py,
send.py), a batch by the seconds it may take.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay_contracts.hex_texts import hexed
from assay_contracts.local.chain import LocalChain
from assay_contracts.records import ContractRefused
from assay_contracts.rpc.methods import READS
from assay_contracts.rpc.send import Sends
from assay_contracts.rpc.values import (
    INTERNAL,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REVERTED,
    RpcFault,
    busy,
)
from assay_protocol.errors import AssayError

BODY_BYTES_MAX: Final = 256 * 1024
BATCH_MAX: Final = 100
BODY_SECONDS: Final = 10.0
WAITING_MAX: Final = 64  # requests that wait for the one thread
WAITING_RETRY_MS: Final = 1_000

BATCH_SECONDS_MAX: Final = 5.0
LONG_SECONDS: Final = 0.01
BREATH_SECONDS: Final = 0.001


class _Started(Protocol):
    """What `nursery.start` hands over, as far as it is used here."""

    def started(self, value: list[str]) -> None: ...


def rpc_app(chain: LocalChain) -> Starlette:
    """The ASGI application; POST / takes one request or a batch of at most 100."""
    limiter, answers = trio.CapacityLimiter(1), Answers(chain)

    async def answer(request: Request) -> Response:
        if limiter.statistics().tasks_waiting >= WAITING_MAX:
            return _json(_error(None, busy("too many requests", WAITING_RETRY_MS)))
        body = await _read_body(request)
        if body is None:
            return _json(_error(None, RpcFault(INVALID_REQUEST, "the body is too large or slow")))
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return _json(_error(None, RpcFault(PARSE_ERROR, "the body is no JSON")))
        found = await trio.to_thread.run_sync(answers.all, asked, limiter=limiter)
        return Response(status_code=204) if found is None else _json(found)

    return Starlette(routes=[Route("/", answer, methods=["POST"])])


async def serve_rpc(
    app: Starlette,
    host: str,
    port: int,
    *,
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; `task_status` gets the bound URLs (port 0 takes any free port)."""
    config = Config()
    config.bind = [f"{host}:{port}"]
    config.accesslog = None
    config.errorlog = None
    await serve(app, config, task_status=task_status)


async def _read_body(request: Request) -> bytes | None:
    body = bytearray()
    with trio.move_on_after(BODY_SECONDS) as scope:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    return None
    return None if scope.cancelled_caught else bytes(body)


class Answers:
    """Answers requests on one chain; one thread at a time. `clock` in seconds, monotonic."""

    def __init__(self, chain: LocalChain, clock: Callable[[], float] = time.monotonic) -> None:
        self._chain, self._clock = chain, clock
        sends = Sends(chain, clock)
        self._methods = READS | {"eth_sendRawTransaction": sends.send}

    def all(self, asked: Any) -> Any:
        """None if there is nothing to answer: notifications only."""
        if not isinstance(asked, list):
            return self._one(asked)
        if not 0 < len(asked) <= BATCH_MAX:
            return _error(None, RpcFault(INVALID_REQUEST, f"a batch has 1 to {BATCH_MAX} requests"))
        ends = self._clock() + BATCH_SECONDS_MAX
        found = [answer for one in asked if (answer := self._one(one, ends)) is not None]
        return found or None

    def _one(self, asked: Any, ends: float | None = None) -> dict[str, Any] | None:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _error(None, RpcFault(INVALID_REQUEST, "not a JSON-RPC request"))
        identity = asked.get("id")
        if not isinstance(identity, str | int | float | None):
            return _error(None, RpcFault(INVALID_REQUEST, "an id is a string or a number"))
        began = self._clock()
        answer = self._run(asked["method"], asked.get("params", []), identity, ends)
        if self._clock() - began > LONG_SECONDS:
            # Locks are not fair: without a pause the coordinator's own thread could wait for a
            # whole batch of calls before it gets the chain.
            time.sleep(BREATH_SECONDS)
        return answer if "id" in asked else None

    def _run(self, method: str, params: Any, identity: Any, ends: float | None) -> dict[str, Any]:
        try:
            function = self._methods.get(method)
            if function is None:
                raise RpcFault(METHOD_NOT_FOUND, f"the method {method[:64]} is not offered")
            if not isinstance(params, list):
                raise RpcFault(INVALID_PARAMS, "params is a list")
            if ends is not None and self._clock() >= ends:
                raise busy("the batch took too long", int(BATCH_SECONDS_MAX * 1000))
            return {"jsonrpc": "2.0", "id": identity, "result": function(self._chain, params)}
        except RpcFault as fault:
            return _error(identity, fault)
        except ContractRefused as refused:
            return _error(identity, RpcFault(REVERTED, "execution reverted", hexed(refused.output)))
        except AssayError as error:
            return _error(identity, RpcFault(INVALID_PARAMS, str(error)))
        except Exception:  # a request must never end the server; the words of our faults stay here
            return _error(identity, RpcFault(INTERNAL, "internal error"))


def _error(identity: Any, fault: RpcFault) -> dict[str, Any]:
    error: dict[str, Any] = {"code": fault.code, "message": fault.message}
    if fault.data is not None:
        error["data"] = fault.data
    return {"jsonrpc": "2.0", "id": identity, "error": error}


def _json(answer: Any) -> Response:
    return Response(json.dumps(answer), media_type="application/json")
