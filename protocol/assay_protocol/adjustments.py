"""What the options of a sampler do to a row of logits before any filter: penalties, then biases.

A pure function of (logits, sampler, position, text), in float64; normative text: spec/sampler.md.
Presence and frequency follow OpenAI's API (they count the answer), repetition llama.cpp (it looks
at the last tokens of prompt and answer alike).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.samplers import SamplerLike, changes_logits, counts, repeats

Logits = NDArray[np.float32]
Reals = NDArray[np.float64]


def adjusted(
    logits: Logits,
    sampler: SamplerLike,
    position: int,
    text: Sequence[int],
    out: Reals | None = None,
) -> Logits | Reals:
    """float64[vocabulary], in `out` if given, or `logits` itself where no option changes any.

    `text` is prompt and answer so far, its last `position` tokens the answer; all of its tokens
    and those of the biases are in the vocabulary, but for places of images, which nothing repeats.
    """
    window, counted = repeats(sampler), counts(sampler)
    if not changes_logits(sampler):
        return logits
    values = np.empty(len(logits)) if out is None else out
    values[:] = logits
    if window:
        penalty = sampler.repetition_penalty
        assert penalty is not None
        seen = np.unique(np.array(text[-window:], np.int64))
        seen = seen[seen < len(values)]
        own = values[seen]
        values[seen] = np.where(own > 0.0, own / penalty, own * penalty)
    if counted and position:
        tokens, times = np.unique(np.array(text[-position:], np.int64), return_counts=True)
        presence, frequency = sampler.presence_penalty or 0.0, sampler.frequency_penalty or 0.0
        values[tokens] -= times * frequency + presence
    if sampler.logit_bias:
        biased = [entry.token for entry in sampler.logit_bias]
        values[biased] += [entry.bias for entry in sampler.logit_bias]
    return values


def amplification(sampler: SamplerLike) -> float:
    """The most by which `adjusted` enlarges a drift of the logits: 1 without repetition penalty."""
    penalty = sampler.repetition_penalty
    if not repeats(sampler) or penalty is None:
        return 1.0
    return max(penalty, 1.0 / penalty)


def asked_logprobs(logits: Logits, drawn: int, sampler: SamplerLike) -> bytes:
    """(u32 token, f32 logprob) pairs, little-endian: of `drawn`, then of the likeliest tokens.

    As many as `sampler.logprobs` says, nothing if it is None. A logprob is ln softmax of the logits
    as the model gave them, before penalties, biases, filters and temperature. Best first, the lower
    id among equals.
    """
    return b"" if sampler.logprobs is None else logprob_pairs(logits, drawn, sampler.logprobs)


def prompt_pairs(rows: Logits, tokens: Sequence[int], sampler: SamplerLike) -> bytes:
    """The same of prompt tokens, tokens[i] told by row i of float32[rows, vocabulary], as
    `sampler.prompt_logprobs` says."""
    assert sampler.prompt_logprobs is not None
    rivals = sampler.prompt_logprobs
    told = zip(rows, tokens, strict=True)
    return b"".join(logprob_pairs(row, token, rivals) for row, token in told)


def logprob_pairs(logits: Logits, token: int, rivals: int) -> bytes:
    """(u32 token, f32 logprob) pairs of `token`, then of the `rivals` likeliest."""
    values = logits.astype(np.float64)
    best = float(values.max())
    total = best + float(np.log(np.exp(values - best).sum()))
    tokens = np.append(np.array([token]), _best(logits, rivals))
    pairs = np.empty(len(tokens), _PAIR)
    pairs["token"] = tokens
    pairs["logprob"] = np.minimum(values[tokens] - total, 0.0)
    return pairs.tobytes()


def logprobs_of(logits: Logits, tokens: Sequence[int]) -> Logits:
    """float32[rows]: ln softmax of tokens[i] in row i of float32[rows, vocabulary], unadjusted."""
    values = logits.astype(np.float64)
    best = values.max(axis=1, keepdims=True)
    totals = best[:, 0] + np.log(np.exp(values - best).sum(axis=1))
    own = values[np.arange(len(values)), np.asarray(tokens, np.int64)]
    told: Logits = np.minimum(own - totals, 0.0).astype(np.float32)
    return told


_PAIR: Final = np.dtype([("token", "<u4"), ("logprob", "<f4")])


def _best(logits: Logits, count: int) -> NDArray[np.int64]:
    if not count:
        return np.empty(0, np.int64)
    assert count <= len(logits), "a vocabulary smaller than the bound on logprobs"
    line = np.partition(logits, -count)[-count]
    tokens = np.flatnonzero(logits >= line)
    return tokens[np.argsort(-logits[tokens], kind="stable")][:count]
