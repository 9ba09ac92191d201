"""Continuous batching: which tokens of which jobs go into the next decode. Pure.

Rules
- A job waits until a slot (one KV stream of `context` tokens) is free; first come, first served.
- Every decoding job gives one token to every step; no prompt delays an answer by more than `chunk`.
- Prompts are fed oldest first, together at most `chunk` tokens a step, so no sequence ever gives
  more than `chunk` tokens to one decode (exact mode needs that).
- What a finished job leaves in its slot stays: the next job takes the free slot that shares the
  longest prefix with its prompt and feeds only the rest.
- The engine decodes every plan it is given, or dies; there is no third way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from assay_node.engine.interface import Finish
from assay_protocol.errors import AssayError


@dataclass(frozen=True, slots=True)
class Feed:
    """Consecutive tokens of one job for the next decode."""

    job: int
    slot: int
    tokens: tuple[int, ...]
    position: int  # of the first of them in the slot
    fresh: bool  # the job's first: drop what the slot holds from `position` on
    draws: bool  # the last of them is the job's newest token: draw the next one after it


@dataclass(slots=True)
class _Job:
    id: int
    tokens: list[int]  # prompt, then output
    prompt_length: int
    max_tokens: int
    slot: int = -1
    fed: int = 0
    fresh: bool = True

    @property
    def decoding(self) -> bool:
        return len(self.tokens) > self.prompt_length


@dataclass(slots=True)
class _Slot:
    kept: list[int] = field(default_factory=list)  # tokens whose KV the slot holds while free
    last_used: int = 0


class Batcher:
    """The jobs of one context: waiting, running, and what each slot holds."""

    def __init__(self, *, slots: int, context: int, chunk: int, waiting_max: int) -> None:
        assert min(slots, chunk, context) > 0
        self._context, self._chunk, self._waiting_max = context, chunk, waiting_max
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._free: dict[int, _Slot] = {number: _Slot() for number in range(slots)}
        self._ended = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, job: int, prompt: Sequence[int], max_tokens: int) -> None:
        """Queue a job; raises AssayError("prompt_too_long" or "busy")."""
        assert min(len(prompt), max_tokens) > 0
        assert job not in self._running
        if len(prompt) + max_tokens > self._context:
            raise AssayError("prompt_too_long")
        if len(self._waiting) >= self._waiting_max + len(self._free):
            raise AssayError("busy")
        self._waiting.append(_Job(job, list(prompt), len(prompt), max_tokens))

    def cancel(self, job: int) -> bool:
        """Drop a job, waiting or running; False if there is none of that id."""
        if job in self._running:
            self._release(self._running[job])
            return True
        for waiting in self._waiting:
            if waiting.id == job:
                self._waiting.remove(waiting)
                return True
        return False

    def plan(self) -> tuple[Feed, ...]:
        """Admit, then choose the next decode's tokens, by slot. Empty when there is no work."""
        while self._waiting and self._free:
            self._admit(self._waiting.popleft())
        feeds = [self._feed(job, 1) for job in self._running.values() if job.decoding]
        budget = self._chunk
        for job in self._running.values():  # in order of admission
            if not job.decoding and budget > 0:
                feeds.append(self._feed(job, budget))
                budget -= len(feeds[-1].tokens)
        return tuple(sorted(feeds, key=lambda feed: feed.slot))

    def text(self, job: int) -> Sequence[int]:
        """Prompt and answer so far of a running job."""
        return self._running[job].tokens

    def drawn(self, job: int, token: int, *, ends: bool) -> Finish | None:
        """Take the token drawn for a feed with `draws`; the finish reason if it is the last."""
        running = self._running[job]
        assert running.fed == len(running.tokens)
        running.tokens.append(token)
        output = len(running.tokens) - running.prompt_length
        finish: Finish | None = (
            "stop" if ends else "length" if output == running.max_tokens else None
        )
        if finish is not None:
            self._release(running)
        return finish

    def _admit(self, job: _Job) -> None:
        shared = {number: _shared(slot.kept, job.tokens) for number, slot in self._free.items()}
        job.slot = min(
            self._free, key=lambda number: (-shared[number], self._free[number].last_used, number)
        )
        job.fed = min(shared[job.slot], job.prompt_length - 1)  # one must be fed to have logits
        del self._free[job.slot]
        self._running[job.id] = job

    def _feed(self, job: _Job, budget: int) -> Feed:
        begin, end = job.fed, min(job.fed + budget, len(job.tokens))
        feed = Feed(
            job=job.id,
            slot=job.slot,
            tokens=tuple(job.tokens[begin:end]),
            position=begin,
            fresh=job.fresh,
            draws=end == len(job.tokens),
        )
        job.fed, job.fresh = end, False
        return feed

    def _release(self, job: _Job) -> None:
        del self._running[job.id]
        self._ended += 1
        # A job that was never fed left the former content of its slot beyond `fed` in place.
        self._free[job.slot] = _Slot(job.tokens[: job.fed], self._ended)


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(i for i in range(length) if left[i] != right[i])
