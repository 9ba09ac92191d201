"""One request and its answer, as the modules of the APIs see it: a body in, JSON or events out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from assay.gateway.api_keys import ApiKey
from assay.gateway.attempts import Listener, Wanted
from assay.gateway.choice import Choice, Fresh
from assay.gateway.event_stream import EventStream, Receive, Send, serve_events, until_gone
from assay.gateway.fields import parse_body
from assay.gateway.generation import Asked, Generation
from assay.gateway.refusal import Refusal, invalid
from assay.gateway.routed import RoutedRequest
from assay.gateway.service import Service
from assay.gateway.upstream import Passage


class Words(Protocol):
    """How one API writes an answer. In a stream `begin` comes with the first `fresh`."""

    def begin(self, generation: Generation) -> bytes: ...
    def fresh(self, fresh: Fresh) -> bytes: ...
    def end(self, generation: Generation, choices: tuple[Choice, ...]) -> bytes: ...
    def failed(self, refusal: Refusal) -> bytes: ...
    def whole(self, generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]: ...


@dataclass(slots=True)
class Exchange:
    """`scope`, `receive` and `send` are ASGI's."""

    scope: Mapping[str, Any]
    receive: Receive
    send: Send
    service: Service
    caller: ApiKey
    headers: dict[str, str] = field(default_factory=dict)  # of the answer
    given: Mapping[str, Any] = field(default_factory=dict)  # the body, once it is read

    def parameter(self, name: str) -> str:
        """A part of the path."""
        return str(self.scope["path_params"][name])

    async def body(self) -> dict[str, Any]:
        """The request's JSON object. Refusal: not JSON, or not said to be. Its bytes are here
        already: bodies.py bounds them."""
        kind = header(self.scope, b"content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Also keeps pages away: a browser asks before it sends this type to another site.
            raise Refusal(415, "unsupported_media_type", "the body must be application/json")
        self.given = body = parse_body((await self.receive())["body"])
        return body

    async def reply(self, body: Mapping[str, Any], status: int = 200) -> None:
        await send_json(self.send, status, body, self.headers)

    async def answer(
        self,
        asked: Asked,
        words: Words,
        *,
        stream: bool,
        done: Callable[[dict[str, Any]], None] = lambda body: None,
    ) -> None:
        """Draw what was asked and write it in `words`; `done` gets the whole answer's body."""
        self.headers |= ignored_header(asked.ignored)
        if not stream:
            body = await until_gone(self.receive, lambda: self.whole(asked, words))
            if body is not None:  # else nobody is there to read it
                done(body)
                await self.reply(body)
            return

        async def write(events: EventStream) -> None:
            done(await self._write(asked, words, events))

        await serve_events(
            self.receive,
            self.send,
            write,
            words.failed,
            keep_alive=self.service.settings.keep_alive,
            headers=self.headers,
        )

    async def whole(self, asked: Asked, words: Words) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        request = self._routed(asked, Listener(_unheard, _unheard))
        await request.run()
        answer, route = request.answer, request.facts()
        self.headers["x-assay-route"] = answer.told_by()
        if answer.upstream is not None:
            assert answer.upstream.body is not None, "a whole one has a body"
            return {**answer.upstream.body, "assay": answer_facts(route)}
        generation = answer.generation
        assert generation is not None, "an answer is the network's or an upstream's"
        generation.route = route
        self.headers |= ignored_header(generation.ignored)
        self.headers |= answer_headers(generation, answer.choices)
        return words.whole(generation, answer.choices)

    async def _write(self, asked: Asked, words: Words, events: EventStream) -> dict[str, Any]:
        begun = False

        def begin(generation: Generation | None, node: bytes = b"") -> bytes:
            """Headers, and what stands before the first piece; of an upstream nothing does."""
            nonlocal begun
            if begun:
                return b""
            begun = True
            events.header("x-assay-route", request.answer.told_by())
            if generation is None:
                return b""
            if node:
                events.header("x-assay-node", node.hex())
            for name, value in ignored_header(generation.ignored).items():
                events.header(name, value)
            return words.begin(generation)

        async def on_fresh(generation: Generation, fresh: Fresh) -> None:
            if data := begin(generation, fresh.node) + words.fresh(fresh):
                await events.send(data)

        async def on_passed(chunk: dict[str, Any]) -> None:
            if not begun or any(one.get("finish_reason") for one in chunk["choices"]):
                chunk = {**chunk, "assay": answer_facts(request.facts())}
            begin(None)
            await events.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        request = self._routed(asked, Listener(on_fresh, on_passed))
        await request.run()
        generation, choices = request.answer.generation, request.answer.choices
        beginning = begin(generation)
        if generation is None:
            await events.send(b"data: [DONE]\n\n")
            return {}
        generation.route = request.facts()
        # Its receipts can be asked for from here on.
        await events.send(beginning + words.end(generation, choices))
        return words.whole(generation, choices)

    def _routed(self, asked: Asked, listener: Listener) -> RoutedRequest:
        allowed = header(self.scope, b"x-assay-route") or "any"
        if allowed not in ("any", "network-only"):
            raise invalid("x-assay-route", "the header x-assay-route is any or network-only")
        wanted = Wanted(
            asked=asked,
            caller=self.caller,
            passage=Passage(self.scope["path"], self.given, self.service.settings.max_tokens),
            only_network=allowed == "network-only",
            request=self.scope.get("assay.request", ""),
        )
        return RoutedRequest(self.service, wanted, listener)


class Gone(Exception):
    """The client left before its request was whole: nobody is to be answered."""


Handle = Callable[[Exchange], Awaitable[None]]


def ignored_header(fields: tuple[str, ...]) -> dict[str, str]:
    """Names the fields of the request that changed nothing, if there are any."""
    return {"x-assay-ignored": ", ".join(fields)} if fields else {}


def answer_headers(generation: Generation, choices: tuple[Choice, ...]) -> dict[str, str]:
    """Who drew it, under which receipts, for how many micro-credits."""
    facts = network_facts(generation, choices)
    return {
        "x-assay-node": ", ".join(facts["nodes"]),
        "x-assay-receipt": ", ".join(facts["receipts"]),
        "x-assay-credit": str(facts["credit"]),
    }


def network_facts(generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]:
    """The `assay` object of an answer of the network."""
    return answer_facts(generation.route, generation, choices)


def answer_facts(
    route: dict[str, Any],
    generation: Generation | None = None,
    choices: tuple[Choice, ...] = (),
) -> dict[str, Any]:
    """The `assay` object of an answer. `credit` is in micro-credits. An upstream's has no
    `generation`: nobody signed for it, and nobody checks it."""
    nodes = [node.hex() for choice in choices for node in choice.completion.nodes]
    verdicts = [one.completion.verdict for one in choices if one.completion.verdict is not None]
    return {
        "nodes": list(dict.fromkeys(nodes)),
        "receipts": [] if generation is None else generation.receipt_ids(),
        "credit": 0 if generation is None else generation.cost,
        "verdict": verdicts[0].outcome if verdicts else None,
        "final": all(choice.completion.final for choice in choices),
        "route": route,
    }


async def send_json(
    send: Send, status: int, body: Mapping[str, Any], headers: Mapping[str, str]
) -> None:
    """One whole answer. Escaped to ASCII, so any text of anybody's can be told."""
    data = json.dumps(body, separators=(",", ":")).encode()
    told = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": fixed + told})
    await send({"type": "http.response.body", "body": data, "more_body": False})


async def _unheard(*pieces: object) -> None:
    """Nobody waits for the pieces of a whole answer."""


def header(scope: Mapping[str, Any], name: bytes) -> str:
    """The first of that name (lower case), or ""."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
