"""How an answer is drawn, as callers say it: keywords to the settings a ticket carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assay_protocol.messages import Sampler, TokenBias
from assay_protocol.samplers import validate


def make_sampler(
    n_vocab: int,
    *,
    temperature: float = 0.8,
    top_p: float = 0.95,
    top_k: int = 40,
    min_p: float = 0.05,
    repetition_penalty: float | None = None,
    repetition_window: int | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    logit_bias: Mapping[int, float] | None = None,
    stop_tokens: Sequence[int] = (),
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> Sampler:
    """The settings of a draw (protocol/spec/sampler.md); what is left out is off.

    Temperature 0 draws the likeliest token. Presence and frequency penalties count the tokens of
    the answer, the repetition penalty looks at the last `repetition_window` (64) of prompt and
    answer. `logit_bias` adds to tokens' logits, one of `stop_tokens` ends the answer and is its
    last token, `logprobs` asks for that many likeliest tokens beside each drawn one, and
    `prompt_logprobs` the same of the prompt's tokens. Raises
    AssayError("sampler_refused") if a value is out of range or a token outside the vocabulary.
    """
    bias = sorted((logit_bias or {}).items())
    sampler = Sampler(
        temperature=float(temperature),
        top_k=top_k,
        top_p=float(top_p),
        min_p=float(min_p),
        repetition_penalty=repetition_penalty,
        repetition_window=repetition_window,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=tuple(TokenBias(token=token, bias=float(by)) for token, by in bias) or None,
        stop_tokens=tuple(sorted(set(stop_tokens))) or None,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )
    validate(sampler, n_vocab)
    return sampler
