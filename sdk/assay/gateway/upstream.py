"""One upstream, asked over HTTP in OpenAI's own words: what leaves, and what may come back.

The body a caller sent goes on as it is, but for the model's name, a bound on the answer and the
network's own fields. Nothing that comes back is believed to be well formed: it is an answer, or a
Refusal with a code of its own. A stream must say that it is whole; one that breaks is an error in
the caller's stream, never another model's text. Its key stands in one header and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import trio

from assay.gateway.refusal import Refusal
from assay.routing.core.plans import Terms
from assay.server_events import EventReader
from assay_protocol.errors import AssayError

CONNECTIONS_MAX: Final = 256
CONNECT_SECONDS: Final = 10.0
BODY_BYTES_MAX: Final = 8 << 20
TOKENS_MAX: Final = 1 << 32  # that an answer's counts may say
REFUSAL_BYTES_MAX: Final = 64 << 10
SAID_CHARACTERS_MAX: Final = 512
RETRY_SECONDS_MAX: Final = 86_400
PATHS: Final = ("/v1/chat/completions", "/v1/completions")
_NETWORKS: Final = frozenset({"verify", "node", "license"})  # fields that an upstream has not
_BOUNDS: Final = ("max_completion_tokens", "max_tokens")
_DONE: Final = "[DONE]"

OnEvent = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Passage:
    """A request as its caller sent it: the path, the body, the tokens where it says no bound."""

    path: str
    body: Mapping[str, Any]
    max_tokens: int

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def answers(self) -> int:
        """How many it asks for: `n` to each prompt; of /v1/completions, there may be several."""
        prompts, each = self.body.get("prompt"), int(self.body.get("n") or 1)
        if isinstance(prompts, list) and not all(type(one) is int for one in prompts):
            return each * len(prompts)
        return each

    @property
    def usage(self) -> bool:
        """Whether the caller wants the counts in a stream."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))


@dataclass(slots=True)
class UpstreamAnswer:
    """What came. `price` in micro-units of the upstream's currency: what its counts say, or what
    it can cost at most where it told none (`counted` is then False)."""

    body: dict[str, Any] | None = None
    begun: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = False
    price: int = 0

    def count(self, usage: object) -> None:
        """Take the counts of a body or an event, if they are there."""
        if not isinstance(usage, dict):
            return
        told, drawn = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(told) is int and type(drawn) is int and min(told, drawn) >= 0:
            self.tokens_in, self.tokens_out = min(told, TOKENS_MAX), min(drawn, TOKENS_MAX)
            self.counted = True


class Upstream:
    """`spent` of its budget so far, in micro-units of its currency."""

    def __init__(self, name: str, terms: Terms, http: httpx.AsyncClient, spent: int = 0) -> None:
        self.name, self.terms, self.spent = name, terms, spent
        self._http = http
        self._reserved = 0

    def affordable(self, passage: Passage) -> bool:
        """Whether the budget covers the most this can cost, beside what is under way."""
        most = self._most(passage)
        return not self.terms.budget or self.spent + self._reserved + most <= self.terms.budget

    async def ask(
        self, passage: Passage, model: str, answer: UpstreamAnswer, on_event: OnEvent
    ) -> None:
        """Fill `answer`; a stream's chunks go to `on_event` as they come. Raises Refusal."""
        with self._charged(passage, answer):
            async with self._open(passage, model) as parts:
                answer.begun = True
                if passage.stream:
                    await self._stream(parts, passage, answer, on_event)
                else:
                    answer.body = _whole(await _read(parts, BODY_BYTES_MAX))
                    answer.count(answer.body.get("usage"))

    @contextmanager
    def _charged(self, passage: Passage, answer: UpstreamAnswer) -> Iterator[None]:
        """Keep the most it can cost aside; then count what it cost, as far as it was told."""
        most = self._most(passage)
        self._reserved += most
        charged = True
        try:
            yield
        except Refusal as refusal:
            charged = refusal.charged
            raise
        finally:
            self._reserved -= most
            if answer.counted:
                answer.price = self.terms.price(answer.tokens_in, answer.tokens_out)
            elif charged:  # it came, or may have come: it was cut off, or told no counts
                answer.price = most
            self.spent += answer.price

    def _most(self, passage: Passage) -> int:
        """A token of text has a byte at least."""
        size = len(json.dumps(passage.body, ensure_ascii=False).encode())
        return self.terms.price(size, passage.answers * self._bound(passage))

    def _bound(self, passage: Passage) -> int:
        given = (passage.body.get(name) for name in _BOUNDS)
        wanted = next((one for one in given if one is not None), passage.max_tokens)
        return min(int(wanted), self.terms.max_tokens)

    def body(self, passage: Passage, model: str) -> dict[str, Any]:
        """What leaves."""
        body = {name: value for name, value in passage.body.items() if name not in _NETWORKS}
        bound = next((name for name in _BOUNDS if body.get(name) is not None), "max_tokens")
        body |= {"model": model, bound: self._bound(passage)}
        if passage.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    @asynccontextmanager
    async def _open(self, passage: Passage, model: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of its answer; Refusal if it is none. What fails later has begun to cost."""
        path = passage.path.removeprefix("/v1/")
        request = self._http.build_request("POST", path, json=self.body(passage, model))
        with _failures(begun=False):
            patience = self.terms.first_token_ms / 1e3 if passage.stream else None
            response = await _within(patience, self._http.send(request, stream=True))
        parts = aiter(response.aiter_bytes())
        try:
            if response.status_code != httpx.codes.OK:
                with _failures(begun=False):
                    raise await _refused(response, parts)
            with _failures(begun=True):
                yield parts
        finally:
            await _leave(response, parts)

    async def _stream(
        self,
        parts: AsyncIterator[bytes],
        passage: Passage,
        answer: UpstreamAnswer,
        on_event: OnEvent,
    ) -> None:
        reader = EventReader()
        begun = ended = False
        while True:
            wait = (self.terms.stall_ms if begun else self.terms.first_token_ms) / 1e3
            part = await _within(wait, anext(parts, None), charged=begun)
            if part is None:
                break
            for event in _events(reader, part):
                if event == _DONE:
                    return
                chunk = _chunk(event, begun)
                answer.count(chunk.get("usage"))
                ended = ended or any(one.get("finish_reason") for one in chunk["choices"])
                if chunk["choices"] or passage.usage:
                    begun = True
                    await on_event(chunk)
        if not ended:
            raise _broken("the upstream's stream ended before its answer", begun)


def http_client(terms: Terms, secret: str) -> httpx.AsyncClient:
    """What an upstream is asked through. Redirects are not followed: they would take the prompt
    to where the owner did not send it; nor do proxies of the environment count."""
    return httpx.AsyncClient(
        base_url=terms.url.rstrip("/") + "/",
        headers={"authorization": f"Bearer {secret}"} if secret else {},
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
        follow_redirects=False,
        trust_env=False,
    )


@contextmanager
def _failures(*, begun: bool) -> Iterator[None]:
    """What a connection can do, as Refusals; one that lost an answer has cost it."""
    try:
        yield
    except httpx.TimeoutException:
        raise _late(begun) from None
    except (httpx.HTTPError, httpx.StreamError):
        if begun:
            raise _broken("the upstream's connection was lost", begun) from None
        raise Refusal(502, "upstream_failed", "the upstream cannot be reached") from None


async def _within(seconds: float | None, work: Awaitable[Any], *, charged: bool = False) -> Any:
    """`work`, or the Refusal that it took too long; None: whoever waits has a bound of its own."""
    if seconds is None:
        return await work
    try:
        with trio.fail_after(seconds):
            return await work
    except trio.TooSlowError:
        raise _late(charged) from None


async def _leave(response: httpx.Response, parts: AsyncIterator[bytes]) -> None:
    """End it, wherever it stands. The generators inside of `parts` end in order only if one of
    them is cancelled; one that is dropped would be ended by the garbage collector."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in parts:
            continue
    with trio.CancelScope(shield=True), trio.move_on_after(CONNECT_SECONDS):
        await response.aclose()


def _late(charged: bool) -> Refusal:
    said = "the upstream did not answer in time"
    return Refusal(504, "upstream_timeout", said, charged=charged)


def _broken(said: str, begun: bool) -> Refusal:
    return Refusal(502, "upstream_broken" if begun else "upstream_failed", said, charged=begun)


def _malformed(said: str, begun: bool = False) -> Refusal:
    return Refusal(502, "upstream_malformed", f"the upstream sent {said}", charged=begun)


async def _refused(response: httpx.Response, parts: AsyncIterator[bytes]) -> Refusal:
    """Its refusal as the caller gets it. What it says of its key is not for callers."""
    status = response.status_code
    if status == 429:
        wait = _seconds(response.headers.get("retry-after", ""))
        said = "the upstream takes no more requests now"
        return Refusal(503, "upstream_rate_limited", said, retry=wait)
    if status in (400, 413, 422):
        said = _said(await _read(parts, REFUSAL_BYTES_MAX))
        return Refusal(400, "upstream_refused", f"the upstream refused: {said}")
    if status in (401, 402, 403, 404):
        said = f"the upstream does not serve this gateway (HTTP status {status})"
        return Refusal(502, "upstream_denied", said)
    return Refusal(502, "upstream_failed", f"the upstream failed (HTTP status {status})")


def _said(data: bytes) -> str:
    """The message of an error of OpenAI's form, cut and without what steers a terminal."""
    try:
        message = json.loads(data)["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return "no reason was told"
    text = message if isinstance(message, str) else "no reason was told"
    return "".join(c for c in text[:SAID_CHARACTERS_MAX] if c.isprintable())


def _seconds(text: str) -> int | None:
    right = text.isascii() and text.isdigit() and len(text) < 7
    return min(int(text), RETRY_SECONDS_MAX) if right else None


async def _read(parts: AsyncIterator[bytes], most: int) -> bytes:
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > most:
            raise _malformed("more than an answer", begun=True)
    return bytes(data)


def _whole(data: bytes) -> dict[str, Any]:
    body = _object(data, begun=True)
    choices = body.get("choices")
    if not (isinstance(choices, list) and choices and all(isinstance(c, dict) for c in choices)):
        raise _malformed("an answer without choices", begun=True)
    return body


def _events(reader: EventReader, part: bytes) -> list[str]:
    try:
        return list(reader.feed(part))
    except AssayError as error:
        raise _malformed(error.message, begun=True) from None


def _chunk(event: str, begun: bool) -> dict[str, Any]:
    """One chunk of a stream. An error in it is the end of the answer."""
    chunk = _object(event.encode(), begun)
    if "error" in chunk:
        raise _broken("the upstream's stream ended with an error", begun)
    choices = chunk.get("choices")
    if not (isinstance(choices, list) and all(isinstance(one, dict) for one in choices)):
        raise _malformed("a chunk without choices", begun)
    return chunk


def _object(data: bytes, begun: bool) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise _malformed("what is not JSON", begun) from None
    if not isinstance(body, dict):
        raise _malformed("what is not a JSON object", begun)
    return body
