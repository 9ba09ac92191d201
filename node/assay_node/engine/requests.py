"""What an engine refuses before it computes anything: the same checks in every engine.

llama.cpp answers some of these by ending the process, so they are made on our side of the pipe.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay_node.engine.interface import PRIORITIES, EngineInfo, Generate, Replay
from assay_protocol.errors import AssayError
from assay_protocol.grammars import read_grammar
from assay_protocol.images import check_prompt
from assay_protocol.noise import SEED_BYTES
from assay_protocol.samplers import validate


def check_tokens(n_vocab: int, tokens: Sequence[int]) -> None:
    """Raises AssayError("malformed")."""
    if not tokens or min(tokens) < 0 or max(tokens) >= n_vocab:
        raise AssayError("malformed", "tokens are missing or not in the vocabulary")


def check_generate(info: EngineInfo, request: Generate) -> None:
    """Raises AssayError: "malformed", "prompt_too_long", "sampler_refused", "grammar_refused",
    "adapter_unknown", "image_refused", "image_mismatch".
    """
    _check_prompt(info, request)
    if request.max_tokens < 1 or request.start < 0:
        raise AssayError("malformed", "max_tokens must be positive and start not negative")
    if request.priority not in PRIORITIES:
        raise AssayError("malformed", "there is no such priority")
    if request.tells_prompt and not info.tells_prompts:
        raise AssayError("sampler_refused", "this engine tells no logprobs of a prompt")
    _check_draw(info, len(request.prompt) + request.max_tokens, request)


def check_replay(info: EngineInfo, request: Replay) -> None:
    """Raises AssayError: the same codes."""
    _check_prompt(info, request)
    check_tokens(info.n_vocab, request.output)
    if request.start < 0:
        raise AssayError("malformed", "start must not be negative")
    _check_draw(info, len(request.prompt) + len(request.output), request)


def _check_prompt(info: EngineInfo, request: Generate | Replay) -> None:
    prompt, images = request.prompt, request.images
    if not prompt or min(prompt) < 0:
        raise AssayError("malformed", "tokens are missing or not in the vocabulary")
    answered = max(0, min(request.start, len(prompt)))
    check_prompt(prompt, images, n_vocab=info.n_vocab, count=info.image_tokens, answered=answered)
    if images and request.sampler.prompt_logprobs is not None:
        raise AssayError("sampler_refused", "an image's places have no logprobs")


def _check_draw(info: EngineInfo, length: int, request: Generate | Replay) -> None:
    if length > info.context:
        raise AssayError("prompt_too_long", f"{length} tokens, {info.context} fit")
    if len(request.seed) != SEED_BYTES:
        raise AssayError("malformed", "a seed has 32 bytes")
    validate(request.sampler, info.n_vocab)
    if request.adapter is not None and request.adapter not in info.adapters:
        raise AssayError("adapter_unknown")
    if request.grammar is not None:
        if not info.grammar:
            raise AssayError("grammar_refused", "this engine keeps to no grammar")
        read_grammar(request.grammar)
        if not 0 <= request.start <= len(request.prompt):
            raise AssayError("malformed", "the answer so far is longer than the prompt")
