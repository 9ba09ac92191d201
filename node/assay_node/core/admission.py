"""Whether this node starts a job: the checks on a stream's first frame, in one order.

Nothing is remembered and no work is done before the coordinator's signature is checked (invariant
S1), and a ticket is used up only by being admitted: a client refused with `busy` may come back with
the same one. A used ticket is remembered until it expires, so no job runs twice (L2); one whose
receipt is on disk is refused for ever, as two receipts for one ticket id cost the node its bond
and a coordinator could give an id out again. A ticket is used up as well by a prompt that the
network's policy refuses: reading it is work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay_node.core.limits import Terms
from assay_node.core.parameters import Parameters, Served
from assay_node.core.rules import Rules
from assay_protocol.codec import decode_as
from assay_protocol.embeddings import check_texts, longest, texts_per_job
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.grammars import read_grammar
from assay_protocol.images import check_prompt
from assay_protocol.limits import FRAME_BYTES_MAX
from assay_protocol.messages import StartJob, Ticket
from assay_protocol.prompt_logprobs import check_asked, tells_prompt
from assay_protocol.samplers import validate
from assay_protocol.signing import ED25519, Verifier
from assay_protocol.tickets import check_start, open_ticket


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job this node took on. `prompt` is the tokens, `start` the frame they came in."""

    ticket: Ticket
    ticket_blob: bytes
    start: StartJob
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """What admission must know of the node now.

    `running` counts jobs by model. `closed` is the code to refuse all jobs with. `joined_at` is
    when, by the coordinator's clock, this process first registered. `pixels_room` is for how many
    bytes of jobs with images there is memory.
    """

    running: Mapping[bytes, int]
    closed: str | None = None
    joined_at: int = 0
    pixels_room: int = FRAME_BYTES_MAX


class Admission:
    """Decides on first frames and remembers used tickets."""

    __slots__ = (
        "_coordinator",
        "_node",
        "_parameters",
        "_rules",
        "_served",
        "_terms",
        "_used",
        "_verifier",
    )

    def __init__(
        self,
        *,
        coordinator: bytes,
        node: bytes,
        served: Mapping[bytes, Served],
        parameters: Parameters,
        used: Mapping[bytes, int] | None = None,
        verifier: Verifier = ED25519,
        rules: Rules | None = None,
        terms: Terms | None = None,
    ) -> None:
        """`served`: by model. `used` maps ticket ids of an earlier run to their expiry in
        microseconds."""
        self._coordinator, self._node, self._served = coordinator, node, served
        self._parameters, self._verifier = parameters, verifier
        self._used: dict[bytes, int] = dict(used or {})
        self._rules, self._terms = rules or Rules(), terms or Terms()

    def admit(self, now: int, frame: bytes, client: bytes, standing: Standing) -> Admitted:
        """The job in `frame`, its ticket now used up.

        Raises AssayError with the code the client is told: malformed, unexpected_message,
        wrong_coordinator, ticket_not_mine, ticket_expired, nonce_mismatch, prompt_mismatch,
        grammar_mismatch, ticket_replayed, `standing.closed`, forbidden (the owner's terms),
        model_unknown, model_denied, task_refused, prompt_too_long, image_refused, image_mismatch,
        sampler_refused, grammar_refused, busy (which says when to come back) or prompt_refused.
        """
        start = decode_as(StartJob, frame)
        ticket = open_ticket(start.ticket, self._coordinator, self._verifier)
        prompt = check_start(ticket, start, node=self._node, client=client, now_us=now)
        if ticket.ticket in self._used:
            raise ProtocolError("ticket_replayed")
        if standing.closed is not None:
            raise AssayError(standing.closed)
        if ticket.issued_at < standing.joined_at:
            # An earlier process of this node may have answered it and died before its receipt was
            # on disk; answering again would put two receipts on one ticket (S2).
            raise AssayError("ticket_expired", "the ticket is older than this node's start")
        self._terms.check(ticket)
        self._check_model(ticket, start, prompt)
        self._take_place(now, ticket, standing, len(frame) if start.images else 0)
        self._rules.check_prompt(self._served[ticket.model], prompt)
        return Admitted(ticket, start.ticket, start, prompt)

    def _check_model(self, ticket: Ticket, start: StartJob, prompt: tuple[int, ...]) -> None:
        served = self._served.get(ticket.model)
        if served is None:
            raise AssayError("model_unknown")
        if not self._rules.allows(ticket.model):
            raise AssayError("model_denied")
        _check_task(ticket, served)
        if not prompt or ticket.start > len(prompt):
            raise ProtocolError("malformed", "no prompt, or a start beyond it")
        images = start.images or ()
        places, answered = served.image_tokens, ticket.start
        check_prompt(prompt, images, n_vocab=served.n_vocab, count=places, answered=answered)
        if images and ticket.sampler.prompt_logprobs is not None:
            raise AssayError("sampler_refused", "an image's places have no logprobs")
        validate(ticket.sampler, served.n_vocab)
        if start.grammar is not None:
            if not served.grammar:
                raise AssayError("grammar_refused", "this node keeps to no grammar")
            read_grammar(start.grammar)  # whether it can be followed, the engine says

    def _take_place(self, now: int, ticket: Ticket, standing: Standing, kept: int) -> None:
        if len(self._used) >= self._parameters.tickets_max:
            self._used = {key: end for key, end in self._used.items() if end > now}
        places = self._served[ticket.model].slots + self._parameters.queue_max
        running = standing.running.get(ticket.model, 0)
        full = running >= places or len(self._used) >= self._parameters.tickets_max
        if full or kept > standing.pixels_room:
            raise AssayError("busy", retry_after_ms=self._parameters.busy_retry_ms)
        self._used[ticket.ticket] = ticket.expires_at


def _check_task(ticket: Ticket, served: Served) -> None:
    """Whether the model does what is asked, and has room for it."""
    sampler, texts = ticket.sampler, ticket.sampler.texts
    if (texts is None) == bool(served.dims):
        raise AssayError("task_refused")
    check_texts(sampler, ticket.n_in, ticket.max_tokens)
    if tells_prompt(ticket):
        if not served.tells_prompts:
            raise AssayError("sampler_refused", "this node tells no logprobs of a prompt")
        check_asked(sampler, ticket.n_in)
    if longest(sampler, ticket.n_in, ticket.max_tokens) > served.context:
        raise AssayError("prompt_too_long")
    if texts is not None and len(texts) > texts_per_job(served.dims):
        raise ProtocolError("oversized", "more texts than one answer has room for")
