"""Which node gets a job: the least expected time among a few fitting candidates drawn at random.

Looking at SAMPLE random nodes instead of all keeps the cost flat in the size of the network and
spreads load better than "the best" for everybody (the power of two choices). Only when none of the
sample fits, or all that do are doubted (registry.py), are all nodes of the model looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node, Registry
from assay_protocol.embeddings import longest, texts_per_job
from assay_protocol.messages import Offer, SubmitJob
from assay_protocol.regions import lies_in

SAMPLE: Final = 8


class Scheduler:
    """Picks nodes for jobs."""

    def __init__(self, policy: Policy, registry: Registry, entropy: Entropy) -> None:
        self._policy, self._registry, self._entropy = policy, registry, entropy

    def pick(self, now: int, job: SubmitJob, like: str = "", apart: bytes = b"") -> Node | None:
        """The node for `job`, or None if nothing that fits has room now.

        `like`: a numerics class whose nodes come first. They alone go on with the same bits.
        `apart`: an operator whose nodes do not count.
        """
        listed = self._registry.listed(job.model)
        if apart:
            listed = [node for node in listed if node.row.operator != apart]
        if not listed:
            return None
        if like:
            alike = [node for node in listed if node.offers[job.model].class_id == like]
            if (found := self._best(now, job, alike)) is not None:
                return found
        best = self._best(now, job, self._sample(listed))
        if best is not None and now >= best.doubted_until:
            return best
        return self._best(now, job, listed)

    def has_other(self, now: int, job: SubmitJob, operator: bytes) -> bool:
        """Whether a node of another operator than `operator`, free or not, serves the model."""
        return any(
            node.row.operator != operator and node.serves(now, job.model) and not node.draining
            for node in self._registry.listed(job.model)
        )

    def lacks_grammars(self, now: int, job: SubmitJob) -> bool:
        """Whether nodes serve the model and none of them, free or not, draws by grammars."""
        return self._none(now, job, lambda node: node.offers[job.model].grammar is not None)

    def lacks_task(self, now: int, job: SubmitJob) -> bool:
        """Whether nodes serve the model and none of them, free or not, does what `job` asks for."""
        return self._none(now, job, lambda node: does(job, node.offers[job.model]))

    def lacks_region(self, now: int, job: SubmitJob) -> bool:
        """Whether nodes serve the model and none of them, free or not, is where `job` may go."""
        return self._none(now, job, lambda node: _is_there(job, node))

    def _none(self, now: int, job: SubmitJob, can: Callable[[Node], bool]) -> bool:
        serving = [node for node in self._registry.listed(job.model) if node.serves(now, job.model)]
        return bool(serving) and not any(map(can, serving))

    def _sample(self, listed: Sequence[Node]) -> list[Node]:
        if len(listed) <= SAMPLE:
            return list(listed)
        return [listed[self._entropy.below(len(listed))] for _ in range(SAMPLE)]

    def _best(self, now: int, job: SubmitJob, candidates: Iterable[Node]) -> Node | None:
        fitting = [node for node in candidates if self._fits(now, job, node)]
        if not fitting:
            return None
        start = self._entropy.below(len(fitting))  # ties must not favour who registered first
        turned = fitting[start:] + fitting[:start]
        return min(turned, key=lambda node: (now < node.doubted_until, _until_done_us(job, node)))

    def _fits(self, now: int, job: SubmitJob, node: Node) -> bool:
        if node.draining or not node.serves(now, job.model) or node.key in job.exclude:
            return False
        if (job.only and node.key not in job.only) or not _is_there(job, node):
            return False
        offer = node.offers[job.model]
        if job.sampler.grammar is not None and offer.grammar is None:
            return False
        if not does(job, offer):
            return False
        if longest(job.sampler, job.n_in, job.max_tokens) > offer.context:
            return False
        return node.load_of(job.model) < offer.slots * (1 + self._policy.queue_per_slot)


def does(job: SubmitJob, offer: Offer) -> bool:
    """Whether it is a model that embeds where texts are to be embedded, and has room for them; or
    one that writes answers, and tells logprobs of prompts where they are asked for."""
    if job.sampler.prompt_logprobs is not None and not offer.prompt_logprobs:
        return False
    texts = job.sampler.texts
    if texts is None or offer.dims is None:
        return texts is None and offer.dims is None
    return len(texts) <= texts_per_job(offer.dims)


def _is_there(job: SubmitJob, node: Node) -> bool:
    return job.regions is None or lies_in(node.region, job.regions)


def _until_done_us(job: SubmitJob, node: Node) -> int:
    """The jobs of all its models share a node's slots; and it may have to load this one first."""
    return node.wait_us(job.model) + expected_us(job, node.offers[job.model], node.load)


def expected_us(job: SubmitJob, offer: Offer, load: int) -> int:
    """Microseconds until the job would be done: prefill and decode at the measured rates, stretched
    by the jobs it shares the slots with."""
    prefill = job.n_in * 1_000_000_000 // max(1, offer.prefill_rate)
    decode = job.max_tokens * 1_000_000_000 // max(1, offer.decode_rate)
    return (prefill + decode) * (load + offer.slots) // offer.slots
