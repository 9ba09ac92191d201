"""Logprobs as OpenAI's two APIs write them. They are the node's word: no receipt covers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def completion_logprobs(
    entries: Iterable[TokenLogprobs], pieces: Sequence[bytes], offset: int
) -> dict[str, Any]:
    """`choices[].logprobs` of /v1/completions; `offset`: characters before the first entry."""
    told: dict[str, Any] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    text = Detokenizer(pieces)
    for one in entries:
        told["tokens"].append(written(one.token, pieces))
        told["token_logprobs"].append(finite(one.logprob))
        told["top_logprobs"].append(
            {written(token, pieces): finite(value) for token, value in one.top}
        )
        told["text_offset"].append(offset)
        offset += len(text.push((one.token,)))
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
