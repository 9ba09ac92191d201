"""Logprobs of a prompt: who is told of them, in which frames, and what the receipt binds of them.

A job whose sampler asks for them is told of each prompt token but the first, which nothing comes
before, in the order of the prompt and before the answer's first token. A job that goes on elsewhere
(`start` above 0) is told of none: whoever resumes has them. The receipt has a salted running hash
of them, so a node cannot deny later what it told. Whether they are the model's is not in it: that
is found by a second node or by a replay (docs/decisions/0039). Free of numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import TOLD, RunningHash
from assay_protocol.limits import PROMPT_LOGPROBS_BYTES_MAX, TOKENS_PER_FRAME_MAX
from assay_protocol.logprobs import LOGPROB_PAIR_BYTES, TokenLogprobs, unpack_logprobs
from assay_protocol.messages import PromptChunk, Sampler, Ticket

ROUNDING: Final = 2e-5  # nats: the last bits of a binary32 below 64, and of two maths libraries
DRIFT_MOST: Final = 2.0  # nats of one token between honest classes; 0.56 was the most measured
DRIFT_MEAN: Final = 0.25  # nats, over a prompt's tokens; 0.084 was the most measured


def tells_prompt(ticket: Ticket) -> bool:
    """Whether the node must tell logprobs of the ticket's prompt."""
    return ticket.sampler.prompt_logprobs is not None and ticket.start == 0


def entry_bytes(sampler: Sampler) -> int:
    """Bytes told of one prompt token; 0 if none are asked for."""
    rivals = sampler.prompt_logprobs
    return 0 if rivals is None else LOGPROB_PAIR_BYTES * (1 + rivals)


def check_asked(sampler: Sampler, n_in: int) -> None:
    """Raise ProtocolError("sampler_refused") if more is asked for than may be told."""
    if entry_bytes(sampler) * n_in > PROMPT_LOGPROBS_BYTES_MAX:
        raise ProtocolError(
            "sampler_refused",
            f"prompt_logprobs: {n_in} tokens have more than {PROMPT_LOGPROBS_BYTES_MAX} bytes",
        )


class PromptTelling:
    """What was told of one ticket's prompt so far; the same at both ends of the stream."""

    def __init__(self, ticket: Ticket, nonce: bytes) -> None:
        self.wanted = ticket.n_in - 1 if tells_prompt(ticket) else 0
        self.count = 0  # prompt tokens told of
        self._size = entry_bytes(ticket.sampler)
        self._sampler, self._asked = ticket.sampler, tells_prompt(ticket)
        self._hash = RunningHash(TOLD, ticket.ticket, nonce)

    @property
    def left(self) -> int:
        """Prompt tokens that are still to be told of."""
        return self.wanted - self.count

    def digest(self) -> bytes | None:
        """What the receipt says; None where nothing is asked for."""
        return self._hash.digest() if self._asked else None

    def add(self, pairs: bytes) -> PromptChunk:
        """The next ones, as the node has them, packed; the message that tells them."""
        entries, rest = divmod(len(pairs), self._size)
        assert not rest
        assert 0 < entries <= min(self.left, TOKENS_PER_FRAME_MAX)
        chunk = PromptChunk(position=1 + self.count, logprobs=pairs)
        self._hash.update(pairs)
        self.count += entries
        return chunk

    def take(self, chunk: PromptChunk, prompt: Sequence[int]) -> tuple[TokenLogprobs, ...]:
        """What a node tells, checked. ProtocolError if it was not asked for, comes out of order,
        twice or late, is of other tokens than the prompt's, or is no logprob."""
        if not self._asked:
            raise ProtocolError("unexpected_message", "logprobs of a prompt nobody asked for")
        entries, rest = divmod(len(chunk.logprobs), self._size)
        if rest:
            raise ProtocolError("malformed", "a prompt's logprobs must be whole")
        if chunk.position != 1 + self.count:
            raise ProtocolError("unexpected_message", "a prompt's logprobs out of order")
        if entries > min(self.left, TOKENS_PER_FRAME_MAX):
            raise ProtocolError("oversized", "more logprobs than the prompt has tokens")
        tokens = prompt[chunk.position : chunk.position + entries]
        rivals = self._sampler.prompt_logprobs
        assert rivals is not None
        told = unpack_logprobs(chunk.logprobs, tokens, rivals)
        self._hash.update(chunk.logprobs)
        self.count += entries
        return told


def told_digest(ticket: Ticket, nonce: bytes, told: bytes) -> bytes:
    """The hash in a receipt of a prompt's logprobs, from all that were told, packed."""
    running = RunningHash(TOLD, ticket.ticket, nonce)
    running.update(told)
    return running.digest()


def told_apart(
    first: Sequence[TokenLogprobs], second: Sequence[TokenLogprobs], *, exact: bool
) -> str | None:
    """Where two tellings of one prompt differ by more than two honest nodes do; None if nowhere.

    `exact`: both are of one exact class, and differ by ROUNDING at most. Else one token may be off
    by DRIFT_MOST and all by DRIFT_MEAN on average. The likeliest are compared rank by rank, since
    noise turns near-ties.
    """
    if len(first) != len(second):
        return f"one tells of {len(first)} tokens, the other of {len(second)}"
    gaps = [_gap(one, other, exact) for one, other in zip(first, second, strict=True)]
    most = ROUNDING if exact else DRIFT_MOST
    worst = max(range(len(gaps)), key=gaps.__getitem__, default=0)
    if gaps and gaps[worst] > most:
        return f"prompt token {1 + worst} by {gaps[worst]:.3g} nats"
    own = [abs(a.logprob - b.logprob) for a, b in zip(first, second, strict=True)]
    mean = math.fsum(x for x in own if x == x) / max(1, len(own))  # inf - inf is no gap
    return None if mean <= DRIFT_MEAN else f"all tokens by {mean:.3g} nats on average"


def _gap(one: TokenLogprobs, other: TokenLogprobs, exact: bool) -> float:
    if exact and [token for token, _ in one.top] != [token for token, _ in other.top]:
        return math.inf
    pairs = [(one.logprob, other.logprob)]
    pairs += [(a, b) for (_, a), (_, b) in zip(one.top, other.top, strict=True)]
    return max(0.0 if a == b else abs(a - b) for a, b in pairs)


def read_told(told: bytes, sampler: Sampler, prompt: Sequence[int]) -> tuple[TokenLogprobs, ...]:
    """All entries of packed ones that begin with the prompt's second token, as many as there are.

    Raises ProtocolError("malformed").
    """
    size = entry_bytes(sampler)
    rivals = sampler.prompt_logprobs
    if rivals is None or len(told) % size:
        raise ProtocolError("malformed", "a prompt's logprobs must be whole")
    return unpack_logprobs(told, prompt[1 : 1 + len(told) // size], rivals)
