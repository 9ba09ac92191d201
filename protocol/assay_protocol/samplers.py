"""The settings of a draw: what they are, their ranges, and which of them look at the text so far.

Free of numpy, so that whoever only asks for, sells or forwards draws can check settings too.
Normative text: spec/sampler.md. An option that is None is off; so is one at its neutral value.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Protocol

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import (
    LOGIT_BIAS_ENTRIES_MAX,
    LOGIT_BIAS_MAX,
    LOGPROBS_MAX,
    PENALTY_MAX,
    REPETITION_PENALTY_MAX,
    REPETITION_PENALTY_MIN,
    REPETITION_WINDOW_MAX,
    STOP_TOKENS_MAX,
    TEMPERATURE_MAX,
    TOP_K_MAX,
)

REPETITION_WINDOW: Final = 64  # where repetition_window is not given; llama.cpp's own


class BiasLike(Protocol):
    """A number added to one token's logit."""

    @property
    def token(self) -> int: ...
    @property
    def bias(self) -> float: ...


class SamplerLike(Protocol):
    """0 switches temperature (then argmax), top_k and min_p off, 1 top_p, None all the others."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...
    @property
    def repetition_penalty(self) -> float | None: ...
    @property
    def repetition_window(self) -> int | None: ...
    @property
    def presence_penalty(self) -> float | None: ...
    @property
    def frequency_penalty(self) -> float | None: ...
    @property
    def logit_bias(self) -> Sequence[BiasLike] | None: ...
    @property
    def stop_tokens(self) -> Sequence[int] | None: ...
    @property
    def logprobs(self) -> int | None: ...
    @property
    def texts(self) -> Sequence[int] | None: ...
    @property
    def prompt_logprobs(self) -> int | None: ...


def validate(sampler: SamplerLike, n_vocab: int | None = None) -> None:
    """Raise ProtocolError("sampler_refused") unless every setting is in range.

    With `n_vocab` tokens outside the vocabulary are refused, too.
    """
    for name, low, high in _RANGES:
        value = getattr(sampler, name)
        if value is not None and not low <= value <= high:  # false for NaN, too
            raise ProtocolError("sampler_refused", f"{name} must be in [{low}, {high}]")
    if sampler.top_p == 0.0:
        raise ProtocolError("sampler_refused", "top_p must be above 0")
    bias = sampler.logit_bias or ()
    if not all(-LOGIT_BIAS_MAX <= entry.bias <= LOGIT_BIAS_MAX for entry in bias):
        raise ProtocolError("sampler_refused", f"a logit bias is at most {LOGIT_BIAS_MAX}")
    biased = [entry.token for entry in bias]
    _check_tokens("logit_bias", biased, LOGIT_BIAS_ENTRIES_MAX, n_vocab)
    _check_tokens("stop_tokens", sampler.stop_tokens or (), STOP_TOKENS_MAX, n_vocab)


def repeats(sampler: SamplerLike) -> int:
    """How many last tokens of prompt and answer the repetition penalty looks at; 0 if it is off."""
    if sampler.repetition_penalty in (None, 1.0):
        return 0
    given = sampler.repetition_window
    return REPETITION_WINDOW if given is None else given


def counts(sampler: SamplerLike) -> bool:
    """Whether the tokens of the answer so far are counted."""
    return bool(sampler.presence_penalty or sampler.frequency_penalty)


def looks_back(sampler: SamplerLike) -> bool:
    """Whether a draw depends on the text before it."""
    return repeats(sampler) > 0 or counts(sampler)


def changes_logits(sampler: SamplerLike) -> bool:
    """Whether a penalty or bias is on."""
    return looks_back(sampler) or bool(sampler.logit_bias)


def ends(sampler: SamplerLike, eog: frozenset[int]) -> frozenset[int]:
    """The tokens that end an answer: the model's own end tokens `eog` and the sampler's."""
    return eog | frozenset(sampler.stop_tokens) if sampler.stop_tokens else eog


_RANGES: Final = (
    ("temperature", 0.0, TEMPERATURE_MAX),
    ("top_k", 0, TOP_K_MAX),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", REPETITION_PENALTY_MIN, REPETITION_PENALTY_MAX),
    ("repetition_window", 0, REPETITION_WINDOW_MAX),
    ("presence_penalty", -PENALTY_MAX, PENALTY_MAX),
    ("frequency_penalty", -PENALTY_MAX, PENALTY_MAX),
    ("logprobs", 0, LOGPROBS_MAX),
    ("prompt_logprobs", 0, LOGPROBS_MAX),
)


def _check_tokens(name: str, tokens: Sequence[int], most: int, n_vocab: int | None) -> None:
    """Ascending, so that equal settings are equal bytes and no token is named twice."""
    if len(tokens) > most:
        raise ProtocolError("sampler_refused", f"{name}: at most {most} tokens")
    if any(a >= b for a, b in pairwise(tokens)):
        raise ProtocolError("sampler_refused", f"{name}: token ids must ascend")
    outside = tokens and (tokens[0] < 0 or (n_vocab is not None and tokens[-1] >= n_vocab))
    if outside:
        raise ProtocolError("sampler_refused", f"{name}: a token outside the vocabulary")
