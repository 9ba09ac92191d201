"""What an upstream sends, read: an answer, a chunk of one, its counts, or a refusal.

Nothing of it is believed to be well formed, or true. What is passed on can be written again as
JSON, has the choices that were asked for and no others, and texts where texts belong; every other
answer is a Refusal with a code of its own. Counts are taken up to what this request can have had.
Its own errors are quoted only without the key, which they may hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from assay.gateway.fields import strict_json
from assay.gateway.refusal import Refusal
from assay.routing.core.plans import Terms
from assay.server_events import EventReader
from assay_protocol.errors import AssayError

SAID_CHARACTERS_MAX: Final = 512
RETRY_SECONDS_MAX: Final = 86_400
KEY_PIECE_CHARACTERS: Final = 8  # so many of a key's in a row are not told
TOLD_MAX: Final = 1 << 53  # of a count, in the log
_NO_REASON: Final = "no reason was told"
_TEXTS: Final = ("id", "object", "model", "system_fingerprint", "service_tier")


@dataclass(frozen=True, slots=True)
class Most:
    """What one answer can have at most: tokens of the prompt, tokens drawn, and their price."""

    tokens_in: int
    tokens_out: int
    price: int


@dataclass(slots=True)
class UpstreamAnswer:
    """What came. `price` is in micro-units of the upstream's currency, and `priced` says by what:
    "counts", "capped" (counts that could not be so), "most" (it told none), or "" for nothing."""

    body: dict[str, Any] | None = None
    begun: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    price: int = 0
    priced: str = ""
    told: tuple[int, int] | None = None  # its counts, as they are

    def count(self, usage: object) -> None:
        """Take the counts of a body or an event, if they are there; the last ones count."""
        if not isinstance(usage, dict):
            return
        told, drawn = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(told) is int and type(drawn) is int and min(told, drawn) >= 0:
            self.told = min(told, TOLD_MAX), min(drawn, TOLD_MAX)

    def settle(self, terms: Terms, most: Most, *, charged: bool) -> None:
        """Say what it cost: by its counts, or the most where it told none and may have come."""
        if self.told is not None:
            self.tokens_in = min(self.told[0], most.tokens_in)
            self.tokens_out = min(self.told[1], most.tokens_out)
            self.priced = "counts" if self.told == (self.tokens_in, self.tokens_out) else "capped"
            self.price = terms.price(self.tokens_in, self.tokens_out)
        elif charged:
            self.price, self.priced = most.price, "most"


def whole_answer(data: bytes, choices: int) -> dict[str, Any]:
    """The body of an answer that is not streamed. Raises Refusal."""
    body = _object(data, begun=True)
    if "error" in body and not body.get("choices"):
        raise broken("the upstream answered with an error", begun=False)
    found = _choices(body, choices, begun=True)
    if not found:
        raise malformed("an answer without choices", begun=True)
    for one in found:
        _check_said(one.get("message", {}), begun=True)
    return body


def chunk_of(event: str, choices: int, begun: bool) -> dict[str, Any]:
    """One chunk of a stream, without an `assay` of its own. Raises Refusal; an error in it is the
    end of the answer."""
    chunk = _object(event.encode("utf-8", "replace"), begun)
    chunk.pop("assay", None)  # who drew an answer is not for an upstream to say
    if "error" in chunk:
        raise broken("the upstream's stream ended with an error", begun)
    for one in _choices(chunk, choices, begun):
        _check_said(one.get("delta", {}), begun)
    return chunk


def events_of(reader: EventReader, part: bytes) -> list[str]:
    """The data of the events that `part` completes. Raises Refusal."""
    try:
        return list(reader.feed(part))
    except AssayError as error:
        raise malformed(error.message, begun=True) from None


def refused(status: int, retry_after: str, data: bytes, secret: str) -> Refusal:
    """An upstream's refusal as the caller gets it."""
    if status == 429:
        said = "the upstream takes no more requests now"
        return Refusal(503, "upstream_rate_limited", said, retry=_seconds(retry_after))
    if status in (400, 413, 422):
        said = f"the upstream refused: {_said(data, secret)}"
        return Refusal(400, "upstream_refused", said)
    if status in (401, 402, 403, 404):
        said = f"the upstream does not serve this gateway (HTTP status {status})"
        return Refusal(502, "upstream_denied", said)
    return Refusal(502, "upstream_failed", f"the upstream failed (HTTP status {status})")


def late(begun: bool) -> Refusal:
    said = "the upstream did not answer in time"
    return Refusal(504, "upstream_timeout", said, charged=begun)


def broken(said: str, begun: bool) -> Refusal:
    return Refusal(502, "upstream_broken" if begun else "upstream_failed", said, charged=begun)


def malformed(said: str, begun: bool = False) -> Refusal:
    return Refusal(502, "upstream_malformed", f"the upstream sent {said}", charged=begun)


def _choices(body: dict[str, Any], most: int, begun: bool) -> list[dict[str, Any]]:
    choices = body.get("choices")
    if not (isinstance(choices, list) and all(isinstance(one, dict) for one in choices)):
        raise malformed("an answer without choices", begun)
    indices = [one.get("index", 0) for one in choices]
    right = all(type(index) is int and 0 <= index < most for index in indices)
    if not right or len(set(indices)) < len(indices):
        raise malformed("a choice that was not asked for", begun)
    for one in choices:
        if not all(isinstance(one.get(name), str | None) for name in ("finish_reason", "text")):
            raise malformed("a choice with a text that is none", begun)
    for name in _TEXTS:
        if not isinstance(body.get(name), str | None):
            raise malformed(f"{name} that is no text", begun)
    return choices


def _check_said(said: object, begun: bool) -> None:
    """A message, or what is new of one."""
    right = isinstance(said, dict) and (
        isinstance(said.get("content"), str | None)
        and isinstance(said.get("tool_calls"), list | None)
    )
    if not right:
        raise malformed("a message that is none", begun)


def _object(data: bytes, begun: bool) -> dict[str, Any]:
    try:
        body = strict_json(data)
    except ValueError:
        raise malformed("what is not JSON", begun) from None
    if not isinstance(body, dict):
        raise malformed("what is not a JSON object", begun)
    return body


def _said(data: bytes, secret: str) -> str:
    """The message of an error of OpenAI's form, cut; without what steers a terminal, and without
    the gateway's key or a piece of it."""
    try:
        message = strict_json(data)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return _NO_REASON
    if not isinstance(message, str) or _holds_piece(message, secret):
        return _NO_REASON
    return "".join(c for c in message[:SAID_CHARACTERS_MAX] if c.isprintable())


def _holds_piece(text: str, secret: str) -> bool:
    size = min(KEY_PIECE_CHARACTERS, len(secret))
    pieces = {secret[at : at + size] for at in range(len(secret) - size + 1)} if size else set()
    return any(text[at : at + size] in pieces for at in range(len(text) - size + 1))


def _seconds(text: str) -> int | None:
    right = text.isascii() and text.isdigit() and len(text) < 7
    return min(int(text), RETRY_SECONDS_MAX) if right else None
