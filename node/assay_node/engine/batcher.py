"""Continuous batching: which tokens of which jobs go into the next decode. Pure.

Rules
- A job waits until a slot (one KV stream of `context` tokens) is free; tenants take turns
  (turns.py), a tenant's own jobs are served first come, first served.
- Every decoding job gives one token to every step.
- Prompts are fed oldest first, at most `chunk` tokens of each to one decode: exact mode needs that.
  All together may be `total` while at least as many jobs wait for their first token as for their
  next one, and `chunk` otherwise: then more would wait longer than would gain.
- What a finished job leaves in its slot stays: the next job takes the free slot that shares the
  longest prefix with its prompt and feeds only the rest. If a running job's slot shares more, that
  is copied.
- A job whose prefix is being fed for another one right now is held back until it can be copied,
  once at most, while others pass.
- A tenant never gains from what another one has sent: how long a prompt takes would tell that
  somebody sent its beginning before. Only the `shared` first tokens of both prompts are excepted.
- The engine decodes every plan it is given, or dies; there is no third way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from assay_node.engine.interface import Finish
from assay_node.engine.turns import Turns
from assay_protocol.errors import AssayError

COPY_TOKENS_MIN: Final = 16  # feeding fewer costs less than a copy, or than waiting for one


@dataclass(frozen=True, slots=True)
class Feed:
    """Consecutive tokens of one job for the next decode."""

    job: int
    slot: int
    tokens: tuple[int, ...]
    position: int  # of the first of them in the slot
    fresh: bool  # the job's first: drop what the slot holds from `position` on
    draws: bool  # the last of them is the job's newest token: draw the next one after it
    copy_from: int | None = None  # first make the slot equal to that running one


@dataclass(slots=True)
class _Held:
    """The tokens of which a slot has (or will have) KV, and who may know of them."""

    tokens: list[int] = field(default_factory=list)
    tenant: bytes = b""
    shared: int = 0
    last_used: int = 0


@dataclass(slots=True)
class _Job:
    id: int
    tokens: list[int]  # prompt, then output
    prompt_length: int
    max_tokens: int
    tenant: bytes
    shared: int
    slot: int = -1
    fed: int = 0
    fresh: bool = True
    copy_from: int | None = None
    held_back: bool = False  # once

    @property
    def decoding(self) -> bool:
        return len(self.tokens) > self.prompt_length

    @property
    def cost(self) -> int:
        return self.prompt_length + self.max_tokens


class Batcher:
    """The jobs of one context: waiting, running, and what each slot holds."""

    def __init__(
        self, *, slots: int, context: int, chunk: int, total: int, waiting_max: int
    ) -> None:
        assert min(slots, chunk, context) > 0
        assert total >= chunk
        self._context, self._chunk, self._total = context, chunk, total
        self._waiting_max = waiting_max
        self._waiting: Turns[_Job] = Turns(context)
        self._running: dict[int, _Job] = {}
        self._free: dict[int, _Held] = {number: _Held() for number in range(slots)}
        self._holders: dict[int, tuple[_Job, int]] = {}  # by job held: for whom, until it fed what
        self._ended = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(
        self,
        job: int,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        tenant: bytes = b"",
        shared: int = 0,
    ) -> None:
        """Queue a job; raises AssayError("prompt_too_long" or "busy").

        `shared`: so many tokens the prompt begins with may be reused between tenants.
        """
        assert min(len(prompt), max_tokens) > 0
        assert job not in self._running
        if len(prompt) + max_tokens > self._context:
            raise AssayError("prompt_too_long")
        if len(self._waiting) >= self._waiting_max + len(self._free):
            raise AssayError("busy")
        self._waiting.add(_Job(job, list(prompt), len(prompt), max_tokens, tenant, shared))

    def cancel(self, job: int) -> bool:
        """Drop a job, waiting or running; False if there is none of that id."""
        if job in self._running:
            self._release(self._running[job])
            return True
        for waiting in self._waiting:
            if waiting.id == job:
                self._waiting.remove(waiting)
                self._holders.pop(job, None)
                return True
        return False

    def plan(self) -> tuple[Feed, ...]:
        """Admit, then choose the next decode's tokens, by slot. Empty when there is no work."""
        while self._free and (job := self._waiting.take(self._ready)) is not None:
            self._admit(job)
        feeds = [self._feed(job, 1) for job in self._running.values() if job.decoding]
        prompts = [job for job in self._running.values() if not job.decoding]
        budget = self._total if len(prompts) >= len(feeds) else self._chunk
        for job in prompts:  # in order of admission
            if budget > 0:
                feeds.append(self._feed(job, min(self._chunk, budget)))
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

    def _ready(self, job: _Job) -> bool:
        """False while a running job is being fed what this one can copy afterwards."""
        if job.held_back:
            holder = self._holders.get(job.id)
            if holder is None:
                return True
            if holder[0].id in self._running and (holder[0].fresh or holder[0].fed < holder[1]):
                return False
            del self._holders[job.id]
            return True
        there = max(
            [_usable(job, held) for held in self._free.values()]
            + [_usable(job, _fed(other)) for other in self._running.values() if not other.fresh]
        )
        best, awaited = there, None
        for running in self._running.values():
            coming = _usable(job, _prompt(running))
            if coming >= best + COPY_TOKENS_MIN:
                best, awaited = coming, running
        if awaited is None:
            return True
        job.held_back = True
        self._holders[job.id] = (awaited, best)
        return False

    def _admit(self, job: _Job) -> None:
        usable = {number: _usable(job, held) for number, held in self._free.items()}
        job.slot = min(
            self._free, key=lambda number: (-usable[number], self._free[number].last_used, number)
        )
        job.fed = usable[job.slot]
        # A fresh job's slot does not hold yet what `fed` says: nothing is copied from it.
        copies = {r.slot: _usable(job, _fed(r)) for r in self._running.values() if not r.fresh}
        source = max(copies, key=lambda slot: copies[slot], default=None)
        if source is not None and copies[source] >= job.fed + COPY_TOKENS_MIN:
            job.slot = min(self._free, key=lambda number: (self._free[number].last_used, number))
            job.copy_from, job.fed = source, copies[source]
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
            copy_from=job.copy_from,
        )
        job.fed, job.fresh, job.copy_from = end, False, None
        return feed

    def _release(self, job: _Job) -> None:
        del self._running[job.id]
        self._ended += 1
        held = _fed(job)
        if job.copy_from is not None:  # never fed: the copy was not made, the slot is as it was
            held = _Held()
        held.last_used = self._ended
        # A job that was never fed left the former content of its slot beyond `fed` in place.
        self._free[job.slot] = held


def _fed(job: _Job) -> _Held:
    return _Held(job.tokens[: job.fed], job.tenant, job.shared)


def _prompt(job: _Job) -> _Held:
    return _Held(job.tokens[: job.prompt_length], job.tenant, job.shared)


def _usable(job: _Job, held: _Held) -> int:
    """How many of the job's first tokens need not be fed: at least one must be, to have logits."""
    limit = job.prompt_length - 1
    if held.tenant != job.tenant:
        limit = min(limit, job.shared, held.shared)
    if limit <= 0 or not held.tokens or held.tokens[0] != job.tokens[0]:
        return 0
    return min(limit, _shared_length(held.tokens, job.tokens))


def _shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(i for i in range(length) if left[i] != right[i])
