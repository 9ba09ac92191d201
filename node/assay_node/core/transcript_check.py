"""Whether a transcript is the one its audit task names, before anything is replayed.

Faults: transcript_unreadable, transcript_length, transcript_nonce, transcript_prompt,
transcript_output, transcript_grammar, transcript_images (not those that the prompt spells),
transcript_tokens (outside the vocabulary), finish. They are the executor's alone: prompt, images,
nonce and answer all came from it, or from the client it accepted.
"""

from __future__ import annotations

from assay_node.core.parameters import Served
from assay_protocol.errors import ProtocolError
from assay_protocol.grammars import grammar_fits
from assay_protocol.hashing import OutputHash, nonce_commitment, prompt_hash, unpack_tokens
from assay_protocol.images import check_prompt
from assay_protocol.messages import AuditTask, TranscriptBody
from assay_protocol.samplers import ends


def check_transcript(
    task: AuditTask, body: TranscriptBody, served: Served
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and output tokens, if they are those of the task; else raises a named fault."""
    embeds = task.sampler.texts is not None  # then the answer is not shown
    tokens = 0 if embeds else task.n_out
    if len(body.prompt) != 4 * task.n_in or len(body.output) != 4 * tokens:
        raise TranscriptFault("transcript_length")
    if nonce_commitment(body.nonce) != task.nonce_commitment:
        raise TranscriptFault("transcript_nonce")
    if prompt_hash(body.nonce, body.prompt) != task.prompt_hash:
        raise TranscriptFault("transcript_prompt")
    if not grammar_fits(task.sampler, body.nonce, body.grammar):
        raise TranscriptFault("transcript_grammar")
    if not embeds:
        _check_output(task, body)
    prompt, output = unpack_tokens(body.prompt), unpack_tokens(body.output)
    if max(output, default=0) >= served.n_vocab or not prompt:
        raise TranscriptFault("transcript_tokens")
    _check_prompt(task, prompt, body, served)
    if not embeds and not _finish_fits(task, output, ends(task.sampler, served.eog)):
        raise TranscriptFault("finish")
    return prompt, output


class TranscriptFault(Exception):
    """What a transcript contradicts; `name` is one of the faults above."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _check_prompt(
    task: AuditTask, prompt: tuple[int, ...], body: TranscriptBody, served: Served
) -> None:
    images, answered = body.images or (), min(task.start, len(prompt))
    places = served.image_tokens
    try:
        check_prompt(prompt, images, n_vocab=served.n_vocab, count=places, answered=answered)
    except ProtocolError as error:
        kind = "tokens" if error.code == "malformed" else "images"
        raise TranscriptFault(f"transcript_{kind}") from error


def _check_output(task: AuditTask, body: TranscriptBody) -> None:
    running = OutputHash(task.ticket, body.nonce)
    running.update(body.output)
    if running.digest() != task.output_hash:
        raise TranscriptFault("transcript_output")


def _finish_fits(task: AuditTask, output: tuple[int, ...], last: frozenset[int]) -> bool:
    """An answer ends at its first end token, the model's or the sampler's, and says why."""
    if any(token in last for token in output[:-1]):
        return False
    if task.finish == "stop":
        return bool(output) and output[-1] in last
    return task.finish != "length" or len(output) == task.max_tokens
