"""/v1/responses: answers in items, which a gateway may keep for a while, in memory and bounded.

Nothing is kept unless the owner said how many; what is kept belongs to the key that asked. A kept
response can be read again, continued by `previous_response_id`, drawn in the background, cancelled.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs

import trio

from assay.gateway.exchange import Exchange
from assay.gateway.kept_responses import Kept
from assay.gateway.refusal import Refusal, fault, invalid, refusal_of
from assay.gateway.responses_request import ResponseRequest, read_response_request
from assay.gateway.responses_words import ResponseWords
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

BACKGROUND_MAX: Final = 64  # drawn at once for nobody who waits
PAGE_MAX: Final = 100
QUERY_FIELDS_MAX: Final = 16
LIMIT_DIGITS_MAX: Final = 3
_log = get_logger("gateway")


async def create(exchange: Exchange) -> None:
    """POST /v1/responses: whole, as a stream, or in the background."""
    read = read_response_request(await exchange.body(), exchange.service.settings)
    request = _continued(exchange, read)
    words = ResponseWords(request)
    if request.background:
        await exchange.reply(_begin_background(exchange, request, words))
        return

    def keep(body: dict[str, Any]) -> None:
        if request.store:
            exchange.service.responses.add(_kept(exchange, request, body))

    await exchange.answer(request.asked, words, stream=request.stream, done=keep)


async def compact(exchange: Exchange) -> None:
    """POST /v1/responses/compact: there is none; the context is the client's."""
    raise Refusal(404, "not_found", "responses are not compacted here")


async def retrieve(exchange: Exchange) -> None:
    """GET /v1/responses/{id}."""
    if _query(exchange).get("stream") == "true":
        raise invalid("stream", "a kept response is given whole")
    await exchange.reply(_find(exchange).body)


async def delete(exchange: Exchange) -> None:
    """DELETE /v1/responses/{id}: one under way is cancelled."""
    name = _find(exchange).body["id"]
    exchange.service.responses.remove(name)
    await exchange.reply({"id": name, "object": "response", "deleted": True})


async def cancel(exchange: Exchange) -> None:
    """POST /v1/responses/{id}/cancel: of one in the background; what came is paid."""
    kept = _find(exchange)
    if not kept.body["background"]:
        raise Refusal(400, "not_cancellable", "only a response in the background is cancelled")
    if kept.scope is not None:
        kept.body = {**kept.body, "status": "cancelled"}
        kept.scope.cancel()
    await exchange.reply(kept.body)


async def input_items(exchange: Exchange) -> None:
    """GET /v1/responses/{id}/input_items?limit&order&after."""
    items = list(_find(exchange).items)
    query = _query(exchange)
    if query.get("order", "desc") not in ("asc", "desc"):
        raise invalid("order", "order must be asc or desc")
    if query.get("order", "desc") == "desc":
        items.reverse()
    limit = query.get("limit", "20")
    number = limit.isascii() and limit.isdecimal() and len(limit) <= LIMIT_DIGITS_MAX
    if not (number and 1 <= int(limit) <= PAGE_MAX):
        raise invalid("limit", f"limit must be from 1 to {PAGE_MAX}")
    if (after := query.get("after")) is not None:
        places = [index for index, item in enumerate(items) if item["id"] == after]
        if not places:
            raise invalid("after", "no such item")
        items = items[places[0] + 1 :]
    page = items[: int(limit)]
    await exchange.reply(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(page) < len(items),
        }
    )


def _continued(exchange: Exchange, request: ResponseRequest) -> ResponseRequest:
    """The chat of the response before, then what is new; instructions are not carried over."""
    if request.previous is None:
        return request
    before = exchange.service.responses.find(exchange.caller.name, request.previous)
    messages = list(request.asked.messages or ())
    first = [one for one in messages[:1] if request.echo["instructions"] is not None]
    chat = [*before.chat, *request.chat]
    return replace(request, chat=chat, asked=replace(request.asked, messages=[*first, *chat]))


def _begin_background(
    exchange: Exchange, request: ResponseRequest, words: ResponseWords
) -> dict[str, Any]:
    service, at_once = exchange.service, exchange.caller.at_once
    if service.responses.running() >= BACKGROUND_MAX:
        raise Refusal(503, "busy", "too many responses are drawn in the background")
    # Beside its requests, with which it looks at them.
    if at_once and service.responses.running(exchange.caller.name) >= at_once:
        said = f"at most {at_once} at once in the background"
        raise Refusal(429, "rate_limit_exceeded", said)
    kept = _kept(exchange, request, words.body("queued"))
    kept.scope = trio.CancelScope()

    async def draw(scope: trio.CancelScope) -> None:
        with scope:
            try:
                kept.body = await exchange.whole(request.asked, words)
                kept.chat = [*request.chat, *_said(kept.body)]
            except Refusal as refusal:
                kept.body = words.failure(refusal)
            except AssayError as error:
                kept.body = words.failure(refusal_of(error))
            except Exception as error:  # one response's fault must not end the gateway
                kind, name = type(error).__name__, kept.body["id"]
                _log.error("response_failed", error=kind, response=name)
                kept.body = words.failure(fault())
        kept.scope = None

    service.responses.add(kept)
    service.tasks.start_soon(draw, kept.scope)
    return kept.body


def _kept(exchange: Exchange, request: ResponseRequest, body: dict[str, Any]) -> Kept:
    chat = [*request.chat, *_said(body)]
    size = len(json.dumps([body, chat]))
    return Kept(exchange.caller.name, body, request.items, chat, size)


def _said(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The output as a message of the chat that may go on from here."""
    said = {
        kind: "".join(
            part["text"]
            for item in body["output"]
            if item["type"] == kind
            for part in item["content"]
        )
        for kind in ("message", "reasoning")
    }
    calls = [
        {
            "id": item["call_id"],
            "type": "function",
            "function": {"name": item["name"], "arguments": _arguments(item["arguments"])},
        }
        for item in body["output"]
        if item["type"] == "function_call"
    ]
    message: dict[str, Any] = {"role": "assistant", "content": said["message"]}
    if calls:
        message["tool_calls"] = calls
    if said["reasoning"]:
        message["reasoning_content"] = said["reasoning"]
    return [message] if said["message"] or calls else []


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _find(exchange: Exchange) -> Kept:
    name = exchange.parameter("response")
    return exchange.service.responses.find(exchange.caller.name, name)


def _query(exchange: Exchange) -> dict[str, str]:
    text = exchange.scope.get("query_string", b"").decode("latin-1")
    try:
        given = parse_qs(text, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        said = f"a query has at most {QUERY_FIELDS_MAX} fields"
        raise Refusal(400, "invalid_value", said) from None
    return {name: values[-1] for name, values in given.items()}
