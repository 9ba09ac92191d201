"""Logprobs as OpenAI's two APIs write them.

They are the node's word. Those of the prompt it signs for (docs/decisions/0039), those of the
answer no receipt covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay.gateway.fields import finite
from assay_protocol.detokenizer import Detokenizer
from assay_protocol.logprobs import TokenLogprobs


def chat_logprobs(
    entries: Iterable[TokenLogprobs], pieces: Sequence[bytes]
) -> list[dict[str, Any]]:
    """`choices[].logprobs.content` of /v1/chat/completions."""
    return [
        {
            **_entry(one.token, one.logprob, pieces),
            "top_logprobs": [_entry(token, value, pieces) for token, value in one.top],
        }
        for one in entries
    ]


@dataclass(frozen=True, slots=True)
class CompletionLogprobs:
    """`choices[].logprobs` of /v1/completions. `text_offset` counts characters; a token that begins
    inside one stands where that one does."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def add(
        self,
        tokens: Sequence[int],
        entries: Sequence[TokenLogprobs | None],
        pieces: Sequence[bytes],
        offset: int,
    ) -> CompletionLogprobs:
        """One more text's, of so many characters before it; itself."""
        text = Detokenizer(pieces)
        for token, entry in zip(tokens, entries, strict=True):
            self.tokens.append(written(token, pieces))
            self.token_logprobs.append(None if entry is None else finite(entry.logprob))
            self.top_logprobs.append(None if entry is None else _likeliest(entry, pieces))
            broken = text.inside and not _goes_on(pieces[token])  # what was begun is U+FFFD now
            self.text_offset.append(offset + broken)
            offset += len(text.push((token,)))
        return self


def _goes_on(piece: bytes) -> bool:
    """Whether it may be the rest of a character, or says nothing."""
    return not piece or piece[0] & 0xC0 == 0x80


def _likeliest(entry: TokenLogprobs, pieces: Sequence[bytes]) -> dict[str, float]:
    """By text. Of tokens that are written alike, as halves of characters are, the likeliest one."""
    told: dict[str, float] = {}
    for token, value in entry.top:
        told.setdefault(written(token, pieces), finite(value))
    return told


def written(token: int, pieces: Sequence[bytes]) -> str:
    """A token's text; half a character shows as U+FFFD."""
    return pieces[token].decode(errors="replace")


def _entry(token: int, logprob: float, pieces: Sequence[bytes]) -> dict[str, Any]:
    return {
        "token": written(token, pieces),
        "logprob": finite(logprob),
        "bytes": list(pieces[token]),
    }
