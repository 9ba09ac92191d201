"""One upstream, asked over HTTP in OpenAI's own words: what leaves, and what may come back.

The body a caller sent goes on as it is, but for the model's name, a bound on the answer and the
network's own fields. What comes back is read by upstream_answers.py, within bounds on bytes, events
and time. A stream must say that it is whole; one that breaks is an error in the caller's stream,
never another model's text. The key stands in one header and nowhere else.

httpx is used without its client: no redirects are followed, no cookies kept, no proxies of the
environment used, and nothing is unpacked, since a few bytes of gzip can be gigabytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import trio

from assay.gateway.api_keys import ApiKey
from assay.gateway.refusal import Refusal
from assay.gateway.upstream_answers import (
    Most,
    UpstreamAnswer,
    broken,
    chunk_of,
    events_of,
    late,
    malformed,
    refused,
    whole_answer,
)
from assay.gateway.upstream_budget import UpstreamBudget
from assay.pictures import without_pictures
from assay.routing.core.plans import Terms
from assay.server_events import EventReader
from assay_network.logs import get_logger

CONNECTIONS_MAX: Final = 256
CONNECT_SECONDS: Final = 10.0
BODY_BYTES_MAX: Final = 8 << 20
STREAM_BYTES_MAX: Final = 64 << 20
REFUSAL_BYTES_MAX: Final = 64 << 10
REFUSAL_SECONDS: Final = 10.0
PICTURE_TOKENS_MAX: Final = 65_536  # of a prompt: upstreams count pictures as they like
PATHS: Final = ("/v1/chat/completions", "/v1/completions")
# Fields that an upstream has not.
_NETWORKS: Final = frozenset({"verify", "node", "region", "license"})
_BOUNDS: Final = ("max_completion_tokens", "max_tokens")
_DONE: Final = "[DONE]"
_log = get_logger("gateway")

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


class Upstream:
    """Opened with `async with`. `secret` opens it; "" if it asks for nothing."""

    def __init__(self, terms: Terms, secret: str, budget: UpstreamBudget) -> None:
        self.terms, self.budget = terms, budget
        self._secret = secret
        self._url = terms.url.rstrip("/") + "/"
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX)
        self._transport = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)

    async def __aenter__(self) -> Upstream:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._transport.__aexit__(*error)

    def most(self, passage: Passage) -> Most:
        """What it can cost at most. A token of text has a byte at least; what an upstream makes of
        a picture does not follow from its bytes."""
        body, pictures = without_pictures(passage.body)
        size = len(json.dumps(body, ensure_ascii=False).encode()) + PICTURE_TOKENS_MAX * pictures
        drawn = passage.answers * self._bound(passage)
        return Most(size, drawn, self.terms.price(size, drawn))

    async def ask(
        self,
        passage: Passage,
        model: str,
        caller: ApiKey,
        answer: UpstreamAnswer,
        on_event: OnEvent,
    ) -> None:
        """Fill `answer`; a stream's chunks go to `on_event` as they come. Raises Refusal."""
        most = self.most(passage)
        async with self.budget.reserved(caller, most, answer):
            charged = True  # it came, or may have come: it was cut off
            try:
                await self._answer(passage, model, answer, on_event)
            except Refusal as refusal:
                charged = refusal.charged
                raise
            finally:
                answer.settle(self.terms, most, charged=charged)
                if answer.priced == "capped":
                    _log.warning("upstream_counts_capped", told=answer.told, price=answer.price)

    async def _answer(
        self, passage: Passage, model: str, answer: UpstreamAnswer, on_event: OnEvent
    ) -> None:
        first = trio.current_time() + self.terms.first_token_ms / 1e3
        async with self._open(passage, model, first) as parts:
            answer.begun = True
            if passage.stream:
                await self._stream(parts, passage, answer, on_event, first)
            else:
                data = await _read(parts, BODY_BYTES_MAX)
                answer.body = whole_answer(data, passage.answers)
                answer.count(answer.body.get("usage"))

    def _bound(self, passage: Passage) -> int:
        given = [passage.body[name] for name in _BOUNDS if passage.body.get(name) is not None]
        return min(int(given[0]) if given else passage.max_tokens, self.terms.max_tokens)

    def body(self, passage: Passage, model: str) -> dict[str, Any]:
        """What leaves. Of two bounds the one that counts here is the one that is sent."""
        left_out = _NETWORKS.union(_BOUNDS)
        body = {name: value for name, value in passage.body.items() if name not in left_out}
        bound = next((name for name in _BOUNDS if passage.body.get(name) is not None), "max_tokens")
        body |= {"model": model, bound: self._bound(passage)}
        if passage.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    def _request(self, passage: Passage, model: str) -> httpx.Request:
        headers = {"accept-encoding": "identity", "user-agent": "assay-gateway"}
        if self._secret:
            headers["authorization"] = f"Bearer {self._secret}"
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS)
        return httpx.Request(
            "POST",
            self._url + passage.path.removeprefix("/v1/"),
            json=self.body(passage, model),
            headers=headers,
            extensions={"timeout": timeout.as_dict()},
        )

    @asynccontextmanager
    async def _open(
        self, passage: Passage, model: str, first: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of its answer; Refusal if it is none. What fails later has begun to cost."""
        request = self._request(passage, model)
        with _failures(begun=False):
            patience = first if passage.stream else math.inf
            response = await _by(patience, self._transport.handle_async_request(request))
        parts = aiter(response.aiter_raw())
        try:
            if response.status_code != httpx.codes.OK:
                with _failures(begun=False):
                    raise await self._refused(response, parts)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise malformed("a content encoding that was not asked for", begun=True)
            with _failures(begun=True):
                yield parts
        finally:
            await _leave(response, parts)

    async def _refused(self, response: httpx.Response, parts: AsyncIterator[bytes]) -> Refusal:
        status, data = response.status_code, b""
        if status in (400, 413, 422):
            deadline = trio.current_time() + REFUSAL_SECONDS
            data = await _by(deadline, _read(parts, REFUSAL_BYTES_MAX, begun=False))
        return refused(status, response.headers.get("retry-after", ""), data, self._secret)

    async def _stream(
        self,
        parts: AsyncIterator[bytes],
        passage: Passage,
        answer: UpstreamAnswer,
        on_event: OnEvent,
        first: float,
    ) -> None:
        reader, left = EventReader(), STREAM_BYTES_MAX
        begun = ended = False
        while True:
            deadline = trio.current_time() + self.terms.stall_ms / 1e3 if begun else first
            part = await _by(deadline, anext(parts, None), charged=begun)
            if part is None:
                break
            left -= len(part)
            if left < 0:
                raise malformed("more than an answer", begun=True)
            for event in events_of(reader, part):
                if event == _DONE:
                    return
                chunk = chunk_of(event, passage.answers, begun)
                answer.count(chunk.get("usage"))
                ended = ended or any(one.get("finish_reason") for one in chunk["choices"])
                if chunk["choices"] or passage.usage:
                    begun = True
                    await on_event(chunk)
        if not ended:
            raise broken("the upstream's stream ended before its answer", begun)


@contextmanager
def _failures(*, begun: bool) -> Iterator[None]:
    """What a connection can do, as Refusals; one that lost an answer has cost it."""
    try:
        yield
    except httpx.TimeoutException:
        raise late(begun) from None
    except (httpx.HTTPError, httpx.StreamError):
        if begun:
            raise broken("the upstream's connection was lost", begun) from None
        raise Refusal(502, "upstream_failed", "the upstream cannot be reached") from None


async def _by(deadline: float, work: Awaitable[Any], *, charged: bool = False) -> Any:
    """`work`, or the Refusal that it took too long. Without a deadline whoever waits has one."""
    try:
        with trio.fail_at(deadline):
            return await work
    except trio.TooSlowError:
        raise late(charged) from None


async def _leave(response: httpx.Response, parts: AsyncIterator[bytes]) -> None:
    """End it, wherever it stands. The generators inside of `parts` end in order only if one of
    them is cancelled; one that is dropped would be ended by the garbage collector."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in parts:
            continue
    with trio.CancelScope(shield=True), trio.move_on_after(CONNECT_SECONDS):
        await response.aclose()


async def _read(parts: AsyncIterator[bytes], most: int, *, begun: bool = True) -> bytes:
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > most:
            raise malformed("more than an answer", begun)
    return bytes(data)
