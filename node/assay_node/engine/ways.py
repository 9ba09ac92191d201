"""The ways an answer can be computed again, which in the exact class all give the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from assay_node.engine.interface import (
    PRIORITY_HIGH,
    PRIORITY_LOW,
    Chunk,
    Generate,
    Replay,
    Replayed,
)
from assay_node.engine.loop import DecodeLoop, Event
from assay_node.engine.rehearsal import Rehearsal

PREEMPT_AFTER_STEPS: Final = 4  # some are still being fed their prompts then
_STRANGER: Final = b"stranger"  # reuses nothing, so it overwrites what was there


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as one way of decoding wrote it."""

    request: Generate
    tokens: tuple[int, ...]
    logits: bytes


@dataclass(frozen=True, slots=True)
class Compared:
    """The same tokens of one answer by two ways."""

    first: tuple[tuple[int, ...], bytes]  # tokens, logits
    second: tuple[tuple[int, ...], bytes]
    margin: float = 0.0


def compared(loop: DecodeLoop, written: list[Written]) -> list[Compared]:
    """Every answer replayed and resumed by `loop`, and as many preempted as it has slots.

    These once more with drafts, some of them wrong, where the loop may draft at all.
    """
    plain = [*_replayed(loop, written), *_resumed(loop, written), *_preempted(loop, written)]
    return [*plain, *_drafted(loop, written)]


def _replayed(loop: DecodeLoop, written: list[Written]) -> Iterator[Compared]:
    for one in written:
        request = one.request
        prompt, sampler, seed = request.prompt, request.sampler, request.seed
        again = Replay(prompt, one.tokens, 0, sampler, seed, adapter=request.adapter)
        loop.replay(0, replace(again, images=request.images))
        (replayed,) = [event for _, event in drain(loop) if isinstance(event, Replayed)]
        margin = max(replayed.margins, default=0.0)
        second = (replayed.drawn, replayed.logits)
        yield Compared((one.tokens, one.logits), second, margin)


def _resumed(loop: DecodeLoop, written: list[Written]) -> Iterator[Compared]:
    """The second halves, begun together."""
    long = [one for one in written if len(one.tokens) > 1]
    halves = [len(one.tokens) // 2 for one in long]
    requests = [
        replace(
            one.request,
            prompt=one.request.prompt + one.tokens[:half],
            start=half,
            max_tokens=len(one.tokens) - half,
        )
        for one, half in zip(long, halves, strict=True)
    ]
    for number, request in enumerate(requests):
        loop.generate(number, request)
    for one, half, again in zip(long, halves, collect(requests, drain(loop)), strict=True):
        first = (one.tokens[half:], one.logits[4 * half :])
        yield Compared(first, (again.tokens, again.logits))


def _preempted(loop: DecodeLoop, written: list[Written]) -> Iterator[Compared]:
    """As many as there are slots, written again, and preempted by strangers on the way."""
    slots = loop.info.slots
    written = written[:slots]
    requests = [replace(one.request, priority=PRIORITY_LOW) for one in written]
    events: list[Event] = []
    for number, request in enumerate(requests):
        loop.generate(number, request)
    for _ in range(PREEMPT_AFTER_STEPS):
        events += loop.step()
    for number, request in enumerate(requests, slots):
        loop.generate(number, replace(request, tenant=_STRANGER, priority=PRIORITY_HIGH))
    events += drain(loop)
    again = collect(requests, [event for event in events if event[0] < slots])
    for one, other in zip(written, again, strict=True):
        length = len(one.tokens)  # it may have been cancelled there
        second = (other.tokens[:length], other.logits[: 4 * length])
        yield Compared((one.tokens, one.logits), second)


def _drafted(loop: DecodeLoop, written: list[Written]) -> Iterator[Compared]:
    """As many, preempted likewise, and drafted from what was written and from what was not."""
    if not loop.may_draft:
        return
    slots = loop.info.slots
    texts = [(*one.request.prompt, *one.tokens) for one in written[:slots]]
    jobs = {first + n: text for first in (0, slots) for n, text in enumerate(texts)}
    before, loop.drafting = loop.drafting, Rehearsal(jobs, loop.info.n_vocab)
    try:
        yield from _preempted(loop, written)
    finally:
        loop.drafting = before


def collect(requests: list[Generate], events: Iterable[Event]) -> list[Written]:
    """What was drawn for each, in order; nothing for those of which nothing was."""
    tokens: dict[int, tuple[int, ...]] = {}
    logits: dict[int, bytes] = {}
    for number, event in events:
        if isinstance(event, Chunk):
            tokens[number] = (*tokens.get(number, ()), *event.tokens)
            logits[number] = logits.get(number, b"") + event.logits
    return [Written(requests[n], tokens[n], logits[n]) for n in sorted(tokens)]


def drain(loop: DecodeLoop) -> Iterator[Event]:
    """Run until nothing is left to do."""
    while not loop.idle:
        yield from loop.step()
