"""Logprobs as they travel beside tokens: packed pairs to values, checked.

No receipt covers them and no audit replays them: they are a node's word, for display. What a
client can check it checks: shape, range, and that the first pair names the drawn token.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay_protocol.errors import ProtocolError

_PAIR: Final = struct.Struct("<If")
LOGPROB_PAIR_BYTES: Final = _PAIR.size


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The drawn token's natural log probability, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def unpack_logprobs(data: bytes, tokens: Sequence[int], count: int) -> tuple[TokenLogprobs, ...]:
    """One entry per drawn token, each with `count` likeliest; ProtocolError("malformed") if not."""
    if len(data) != _PAIR.size * (1 + count) * len(tokens):
        raise ProtocolError("malformed", "logprobs are missing, too many or not asked for")
    pairs = list(_PAIR.iter_unpack(data))
    if not all(value <= 0.0 and not math.isnan(value) for _, value in pairs):
        raise ProtocolError("malformed", "a logprob above 0")
    entries = []
    for index, token in enumerate(tokens):
        first, *top = pairs[index * (1 + count) : (index + 1) * (1 + count)]
        if first[0] != token:
            raise ProtocolError("malformed", "the logprob of another token")
        entries.append(TokenLogprobs(token, first[1], tuple((t, float(p)) for t, p in top)))
    return tuple(entries)
