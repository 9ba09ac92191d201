"""What a caller asks for as a Job: lengths checked, sampler made, nonce drawn."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from assay.answer_grammar import answer_grammar
from assay.events import Job
from assay.sampler_options import make_sampler
from assay_protocol.errors import AssayError
from assay_protocol.hashing import grammar_hash
from assay_protocol.images import check_frame, check_prompt
from assay_protocol.limits import OUTPUT_TOKENS_MAX
from assay_protocol.messages import VERIFY_LEVELS
from assay_protocol.prompt_logprobs import check_asked
from assay_protocol.regions import REGIONS_MAX, is_region
from assay_protocol.samplers import ends

if TYPE_CHECKING:
    from assay.catalogue import Model
    from assay_protocol.messages import Image, Sampler

MAX_TOKENS: Final = 512  # of an answer, unless the caller says otherwise


def make_job(
    model: Model,
    prompt: tuple[int, ...],
    *,
    max_tokens: int | None = None,
    nodes: Sequence[bytes] = (),
    avoid: Sequence[bytes] = (),
    regions: Sequence[str] = (),
    response_format: Mapping[str, Any] | None = None,
    grammar: Mapping[str, str] | None = None,
    verify: str = "sample",
    images: tuple[Image, ...] = (),
    **sampling: Any,
) -> Job:
    """The job of one answer; `nodes` allows only those, `avoid` all but those (the newest 16 are
    told to the coordinator), `regions` only nodes that say they are in one of them ("eu-de");
    `sampling` is what `make_sampler` takes; `images` are those that `prompt` spells, in its order.

    `response_format` (OpenAI's) or `grammar`, a kind and its text, say which answers are allowed
    (see `answer_grammar`). The node alone is shown them, like the prompt. `verify` is one of

    - "none": no auditor is ever shown the answer; it proves nothing of the node either
    - "sample": the lottery decides whether it is audited
    - "now": it is audited at once, and not final before that passed
    - "quorum": nodes of two operators draw it, and it is given out as far as they agree

    There is no seed to choose: it comes from a fresh nonce and the ticket, so that nobody can
    steer it. Raises AssayError("prompt_too_long") if prompt and answer exceed the model's context,
    "sampler_refused" for settings out of range, "grammar_refused", "task_refused" for a model that
    embeds, "malformed" for tokens that are not the model's, "image_refused", "image_mismatch".
    """
    if verify not in VERIFY_LEVELS:
        raise ValueError(f"verify must be one of {', '.join(VERIFY_LEVELS)}")
    check_regions(regions)
    if max_tokens is not None and not 1 <= max_tokens <= OUTPUT_TOKENS_MAX:
        raise ValueError(f"max_tokens must be 1 to {OUTPUT_TOKENS_MAX}")
    context = min(model.card.context, model.summary.context)
    wanted = max_tokens or max(1, min(MAX_TOKENS, context - len(prompt)))
    if len(prompt) + wanted > context:
        raise AssayError("prompt_too_long", f"the model's context is {context} tokens")
    if not prompt:
        raise ValueError("the prompt is empty")
    if model.summary.dims is not None:
        raise AssayError("task_refused", f"{model.summary.name} embeds texts and writes no answers")
    sampler = make_sampler(model.card.n_vocab, **sampling)
    check_asked(sampler, len(prompt))
    check_prompt(prompt, images, n_vocab=model.card.n_vocab, count=model.image_tokens)
    _check_images(images, len(prompt) + wanted, sampler)
    nonce = secrets.token_bytes(32)
    packed = answer_grammar(response_format, grammar)
    if packed is not None:
        sampler = replace(sampler, grammar=grammar_hash(nonce, packed))
    return Job(
        model=model.summary.model,
        prompt=prompt,
        sampler=sampler,
        max_tokens=wanted,
        nonce=nonce,
        stop_tokens=ends(sampler, frozenset(model.card.eog)),
        vocabulary=model.card.n_vocab,
        only=tuple(nodes),
        avoid=tuple(avoid),
        regions=tuple(regions),
        price_in_max=model.summary.price_in,
        price_out_max=model.summary.price_out,
        grammar=packed,
        verify=verify,
        images=images,
    )


def _check_images(images: tuple[Image, ...], tokens: int, sampler: Sampler) -> None:
    """`tokens` are the prompt's and the answer's: whoever goes on sends both."""
    check_frame(tokens, images)
    if images and sampler.prompt_logprobs is not None:
        raise AssayError("sampler_refused", "an image's places have no logprobs")


def check_regions(regions: Sequence[str]) -> None:
    """Raise ValueError unless they can be asked for."""
    if len(regions) > REGIONS_MAX or not all(map(is_region, regions)):
        raise ValueError(f'regions are up to {REGIONS_MAX} of the form "eu" or "eu-de-fra"')
