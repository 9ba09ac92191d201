"""Another inference server over HTTP: the likeliest next tokens after a prompt, as token ids.

Two ways to ask: llama-server's own /completion, and the /v1/completions of servers that tell
token ids (vLLM). Which of them a server speaks is found by asking. A server that tells text only
is refused: to tokenize its text again would not give back the tokens it computed.

Bytes of the server are a peer's bytes: bounded in size and time, and anything unexpected is
AssayError("engine_failed"). Neither the key nor what the server says is ever in a message.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx
import trio

from assay_node.engine.rankings import Ranking, ranking
from assay_protocol.errors import AssayError

ANSWER_BYTES_MAX: Final = 4 << 20
CALL_SECONDS_MAX: Final = 120.0  # one position, a whole prompt included
CONNECT_SECONDS_MAX: Final = 5.0
RETRY_MS: Final = (1_000, 60_000)  # told to wait when the server does not say, and at most
_TOKEN_ID: Final = "token_id:"
_BUSY: Final = frozenset({429, 503})
_SURE: Final = 1e6  # a bias beyond any logit


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call's state may be kept: a slot of ours, fresh at a job's first call, and a name
    nobody else has, so that no job can tell by time what another one sent."""

    slot: int
    fresh: bool
    salt: str


class Dialect(Protocol):
    """One way to ask for a position."""

    name: str

    async def rank(self, prompt: Sequence[int], count: int, place: Place) -> Ranking: ...

    async def bounds(self) -> tuple[int | None, int | None]:
        """Sequences at once and tokens of each, as far as the server tells."""
        ...


class Http:
    """Bounded JSON requests to one server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST `body`, or GET without one; the JSON answered.

        Raises AssayError: "busy" with retry_after_ms (429, 503), else "engine_failed".
        """
        with trio.move_on_after(CALL_SECONDS_MAX):
            try:
                method = "GET" if body is None else "POST"
                async with self._client.stream(method, path, json=body) as response:
                    _check_status(response)
                    data = await _bounded(response)
                return json.loads(data)
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
                what = type(error).__name__
                raise AssayError("engine_failed", f"no answer from the server: {what}") from error
            except (ValueError, RecursionError) as error:
                raise AssayError("engine_failed", "the server's answer is not JSON") from error
        raise AssayError("engine_failed", "the server did not answer in time")


class LlamaServer:
    """llama-server's /completion.

    It leaves the probabilities out where its own token is no whole UTF-8 text, so a token that is
    gets forced: the probabilities are of the logits before any bias.
    """

    name = "llama-server"

    def __init__(self, http: Http, n_vocab: int, whole: int) -> None:
        """`whole`: a token whose text is whole and ends nothing."""
        self._http, self._n_vocab, self._whole = http, n_vocab, whole

    async def rank(self, prompt: Sequence[int], count: int, place: Place) -> Ranking:
        body = {
            "prompt": list(prompt),
            "n_predict": 1,
            "n_probs": count,
            "temperature": 0,
            "logit_bias": [[self._whole, _SURE]],
            "id_slot": place.slot,
            "cache_prompt": not place.fresh,
            "return_tokens": True,
            "stream": False,
            "response_fields": ["completion_probabilities"],
        }
        answer = await self._http.ask("/completion", body)
        try:
            listed = answer["completion_probabilities"][0]["top_logprobs"]
            pairs = [(_integer(one["id"]), _real(one["logprob"])) for one in listed]
        except (LookupError, TypeError, ValueError) as error:
            raise AssayError("engine_failed", "no token ids from /completion") from error
        return ranking(pairs, self._n_vocab)

    async def bounds(self) -> tuple[int | None, int | None]:
        props = await self._http.ask("/props")
        try:
            return (
                _integer(props["total_slots"]),
                _integer(props["default_generation_settings"]["n_ctx"]),
            )
        except (LookupError, TypeError):
            return None, None


class Completions:
    """/v1/completions of a server that knows `return_tokens_as_token_ids` (vLLM)."""

    name = "completions"

    def __init__(self, http: Http, n_vocab: int, model: str) -> None:
        self._http, self._n_vocab, self._model = http, n_vocab, model
        self._secret = secrets.token_hex(8)

    async def rank(self, prompt: Sequence[int], count: int, place: Place) -> Ranking:
        body = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": 1,
            "logprobs": count,
            "temperature": 0,
            "return_tokens_as_token_ids": True,
            "cache_salt": f"{self._secret}{place.salt}",
            "stream": False,
        }
        answer = await self._http.ask("/v1/completions", body)
        try:
            listed = answer["choices"][0]["logprobs"]["top_logprobs"][0]
            pairs = [(_token_id(name), _real(value)) for name, value in listed.items()]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise AssayError("engine_failed", "no token ids from /v1/completions") from error
        return ranking(pairs, self._n_vocab)

    async def bounds(self) -> tuple[int | None, int | None]:
        return None, None


def make_client(url: str, key: str, connections: int) -> httpx.AsyncClient:
    """No proxy, redirect or compression: what is asked is what answers, in its own size."""
    headers = {"accept-encoding": "identity"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=httpx.Timeout(CALL_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        trust_env=False,
        follow_redirects=False,
    )


def _check_status(response: httpx.Response) -> None:
    if response.status_code in _BUSY:
        raise AssayError("busy", "the server is busy", retry_after_ms=_retry_after(response))
    if response.status_code in (401, 403):
        raise AssayError("engine_failed", "the server does not take our key: engine_key_file")
    if response.status_code != 200:
        raise AssayError("engine_failed", f"the server answered {response.status_code}")


def _retry_after(response: httpx.Response) -> int:
    least, most = RETRY_MS
    text = response.headers.get("retry-after", "")
    seconds = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return min(max(1_000 * seconds, least), most)


async def _bounded(response: httpx.Response) -> bytes:
    """The whole body. One that is too large is closed under its reader, which then ends in order:
    a reader given up half-way would be left to the garbage collector."""
    data = bytearray()
    too_large = False
    try:
        async for piece in response.aiter_raw():
            data += piece[: ANSWER_BYTES_MAX + 1 - len(data)]
            if len(data) > ANSWER_BYTES_MAX and not too_large:
                too_large = True
                await response.aclose()
    except (httpx.HTTPError, httpx.StreamError, OSError):
        if not too_large:
            raise
    if too_large:
        raise AssayError("engine_failed", "the server's answer is too large")
    return bytes(data)


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value


def _real(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(float(value)):  # type: ignore[arg-type]  # checked before
        raise ValueError("not a number")
    return float(value)  # type: ignore[arg-type]  # an int or a float


def _token_id(name: str) -> int:
    number = name.removeprefix(_TOKEN_ID)
    if number == name or not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise ValueError("not a token id")
    return int(number)
