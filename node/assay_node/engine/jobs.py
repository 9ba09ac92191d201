"""A job as the batcher knows it, and how much of what a slot holds it may begin with. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from assay_node.engine.drafts import Drafts
from assay_node.engine.spans import NO_IMAGES, Spans


@dataclass(slots=True)
class Held:
    """The tokens of which a slot has (or will have) KV, and who may know of them."""

    tokens: list[int] = field(default_factory=list)
    tenant: bytes = b""
    shared: int = 0
    adapter: bytes | None = None  # what was computed with: no other adapter's job can use it
    last_used: int = 0


@dataclass(slots=True)
class Job:
    """Waiting or running. Counts are tokens."""

    id: int
    tokens: list[int]  # prompt, then output
    prompt_length: int
    max_tokens: int
    tenant: bytes
    shared: int
    priority: int
    given: int  # tokens it had when it was queued last: the prompt, and what was drawn by then
    adapter: bytes | None = None
    may_draft: bool = True
    asks: bool = False  # for the logits after each of its prompt's tokens, once
    spans: Spans = NO_IMAGES  # the images of its prompt
    told: int = 0  # of its first tokens; those after them were computed with logits
    slot: int = -1
    fed: int = 0  # accepted ones only: its slot may hold drafts after them
    saved: int = 0  # tokens whose state was saved when it was preempted
    admitted: int = 0  # later ones have higher numbers
    fresh: bool = True  # admitted by the plan that is being made
    preemptions: int = 0
    held_back: bool = False  # once
    drafts: Drafts | None = None  # made when it is first asked what to draft
    drafted: tuple[int, ...] = ()  # being decoded, neither accepted nor rejected yet
    stale: bool = False  # its slot holds drafts that were rejected

    @property
    def drafts_max(self) -> int:
        """Drafts its next feed may have: the one draw after them is always made."""
        left = self.max_tokens - (len(self.tokens) - self.prompt_length)
        return left - 1 if self.may_draft else 0

    @property
    def untold(self) -> bool:
        """Whether some logits of its prompt are still to be asked for."""
        return self.asks and self.told < self.prompt_length

    @property
    def decoding(self) -> bool:
        return len(self.tokens) > self.given

    @property
    def cost(self) -> int:
        return self.prompt_length + self.max_tokens


def fed_by(job: Job) -> Held:
    """What its slot holds."""
    return Held(job.tokens[: job.fed], job.tenant, job.shared, job.adapter)


def given_to(job: Job) -> Held:
    """What its slot will hold when its first token is drawn."""
    return Held(job.tokens[: job.given], job.tenant, job.shared, job.adapter)


def usable(job: Job, held: Held) -> int:
    """How many of the job's first tokens need not be fed: at least one must be, to have logits,
    and all whose logits it asks for and did not have yet. Never a part of an image."""
    if held.adapter != job.adapter:
        return 0
    limit = min(job.given - 1, job.told) if job.untold else job.given - 1
    if held.tenant != job.tenant:
        limit = min(limit, job.shared, held.shared)
    if limit <= 0 or not held.tokens or held.tokens[0] != job.tokens[0]:
        return 0
    return job.spans.outside(min(limit, _shared_length(held.tokens, job.tokens)))


def _shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(i for i in range(length) if left[i] != right[i])
