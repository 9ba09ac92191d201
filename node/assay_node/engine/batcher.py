"""Continuous batching: which tokens of which jobs go into the next decode. Pure.

Rules
- A job waits until a slot (one KV stream of `context` tokens) is free; the highest class is served
  first (priorities.py), within it tenants take turns (turns.py), and a tenant's own jobs are served
  first come, first served.
- Where every slot is taken and a job of a higher class waits, it preempts the job of the lowest
  class that was admitted last. That one comes first in its class then, and goes on where it was:
  its saved state is restored, or its tokens are fed again. It is preempted `PREEMPTIONS_MAX` times
  at most, and not at all if it was overdue when it was taken.
- Every decoding job gives one token to every step, and drafts after it if `drafting` says so
  (payoff.py): not while a prompt is fed. Tokens drawn after drafts are accepted one by one, as far
  as they are the drafts; what was rejected is out of the slot before any other move of the next
  plan. It is never copied, saved, or counted as held.
- Prompts are fed oldest first, at most `chunk` tokens of each to one decode: exact mode needs that.
  All together may be `total` while at least as many jobs wait for their first token as for their
  next one, and `chunk` otherwise: then more would wait longer than would gain.
- What a finished job leaves in its slot stays: the next job begins with the longest prefix it
  shares with any slot and feeds only the rest. A running job's slot is copied. So is a free one
  that holds much more than is shared, if there is another that was used less recently.
- Slots of one adapter's jobs (or of those without) are chosen side by side: llama.cpp takes streams
  of successive numbers through the weights at once, and starts again at every gap.
- A job whose prefix is being fed for another one right now is held back until it can be copied,
  once at most, while others pass.
- A tenant never gains from what another one has sent: how long a prompt takes would tell that
  somebody sent its beginning before. Only the `shared` first tokens of both prompts are excepted.
- What was computed with one adapter is never used with another, nor without. Every plan feeds the
  jobs of all adapters, in groups (plans.py), so none of them waits for another's.
- A job that asks for the logits of its prompt is fed all of it, however much a slot holds, and at
  most TOLD_ROWS_MAX tokens of all such jobs go into one decode. After a preemption it begins where
  it has not been told of. What it leaves in its slot others reuse as ever.
- No feed has tokens of the vocabulary and of an image (spans.py). An image that must be whole is
  fed at once, whatever of `chunk` is left, and no prompt after it: at most one a step.
- The engine makes every move and decodes every feed of a plan, or dies; there is no third way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay_node.engine.drafting import Chosen, Drafting
from assay_node.engine.interface import PRIORITY_NORMAL, Finish
from assay_node.engine.jobs import Held, Job, fed_by, given_to, usable
from assay_node.engine.places import Place
from assay_node.engine.plans import Copy, Drop, Feed, Move, Plan, Restore, Save, Trim
from assay_node.engine.priorities import Classes
from assay_node.engine.spans import NO_IMAGES, Spans
from assay_protocol.errors import AssayError
from assay_protocol.images import IMAGE_TOKEN

TOLD_ROWS_MAX: Final = 64  # of a decode: each is a row of the whole vocabulary, kept and read
COPY_TOKENS_MIN: Final = 16  # feeding fewer costs less than a copy, or than waiting for one
PREEMPTIONS_MAX: Final = 3  # of one job


class Batcher:
    """The jobs of one context: waiting, running, and what each slot holds."""

    def __init__(
        self,
        *,
        slots: int,
        context: int,
        chunk: int,
        total: int,
        waiting_max: int,
        drafting: Drafting | None = None,
    ) -> None:
        assert min(slots, chunk, context) > 0
        assert total >= chunk
        self._context, self._chunk, self._total = context, chunk, total
        self._waiting_max = waiting_max
        self.drafting = drafting  # None: nothing is drafted
        self._waiting: Classes[Job] = Classes(context)
        self._running: dict[int, Job] = {}  # in order of admission
        self._free: dict[int, Held] = {number: Held() for number in range(slots)}
        self._holders: dict[int, tuple[Job, int]] = {}  # by job held: for whom, until it fed what
        self._moves: list[Move] = []  # of the plan that is being made
        self._clock = 0  # counts admissions and ends
        self.preemptions = 0
        self.drafted = self.accepted = 0  # tokens

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
        priority: int = PRIORITY_NORMAL,
        adapter: bytes | None = None,
        may_draft: bool = True,
        asks: bool = False,
        spans: Spans = NO_IMAGES,
    ) -> None:
        """Queue a job; raises AssayError("prompt_too_long" or "busy").

        `shared`: so many tokens the prompt begins with may be reused between tenants. `priority`:
        one of PRIORITIES. `adapter`: what it is computed with. `may_draft`: whether it can be told
        what it would draw after a draft. `asks`: for the logits after each token of its prompt.
        `spans`: where its prompt has images.
        """
        assert min(len(prompt), max_tokens) > 0
        assert job not in self._running
        if len(prompt) + max_tokens > self._context:
            raise AssayError("prompt_too_long")
        if len(self._waiting) >= self._waiting_max + len(self._free):
            raise AssayError("busy")
        length = len(prompt)
        self._waiting.add(
            Job(
                job,
                list(prompt),
                length,
                max_tokens,
                tenant,
                shared,
                priority,
                length,
                adapter,
                may_draft,
                asks,
                spans,
            )
        )

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

    def plan(self) -> Plan:
        """Admit, preempt, then choose the next decode's tokens, by slot. Empty without work."""
        for job in self._running.values():
            if job.stale:
                self._moves.append(Trim(job.slot, job.fed))
                job.stale = False
        while (admitted := self._next()) is not None:
            self._admit(admitted)
        prompts = [job for job in self._running.values() if not job.decoding]
        decoding = [job for job in self._running.values() if job.decoding]
        chosen = {} if prompts else self._drafts(decoding)
        feeds = [self._feed(job, 1, chosen.get(job.id, ())) for job in decoding]
        budget = self._total if len(prompts) >= len(feeds) else self._chunk
        told = TOLD_ROWS_MAX
        for job in prompts:  # in order of admission
            most = min(self._chunk, budget, told) if job.untold else min(self._chunk, budget)
            if most > 0:
                told -= most if job.untold else 0
                feeds.append(self._feed(job, most))
                budget -= budget if feeds[-1].whole else len(feeds[-1].tokens)
        for job in self._running.values():
            job.fresh = False
        moves, self._moves = tuple(self._moves), []
        return Plan(moves, tuple(sorted(feeds, key=lambda feed: feed.slot)))

    def saved(self, job: int) -> None:
        """The job's state was kept, as the newest plan asked."""
        waiting = next(waiting for waiting in self._waiting if waiting.id == job)
        waiting.saved = waiting.fed

    def text(self, job: int) -> Sequence[int]:
        """Prompt and answer so far of a running job."""
        return self._running[job].tokens

    def drawn(self, job: int, token: int, *, ends: bool) -> Finish | None:
        """Take the token drawn for a feed with `draws`; the finish reason if it is the last.

        After a feed with drafts once more for each that was drawn, in order, and for the token
        drawn instead of the first other one, or after all.
        """
        running = self._running[job]
        assert running.fed == len(running.tokens)
        running.tokens.append(token)
        if running.drafted:
            right = token == running.drafted[0]
            running.fed += right
            self.accepted += right
            running.stale = not right
            running.drafted = running.drafted[1:] if right else ()
        output = len(running.tokens) - running.prompt_length
        finish: Finish | None = (
            "stop" if ends else "length" if output == running.max_tokens else None
        )
        if finish is not None:
            self._release(running)
        return finish

    def _ready(self, job: Job) -> bool:
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
            job.saved,
            *(usable(job, held) for held in self._free.values()),
            *(usable(job, fed_by(other)) for other in self._running.values() if not other.fresh),
        )
        best, awaited = there, None
        for running in self._running.values():
            coming = usable(job, given_to(running))
            if coming >= best + COPY_TOKENS_MIN:
                best, awaited = coming, running
        if awaited is None:
            return True
        job.held_back = True
        self._holders[job.id] = (awaited, best)
        return False

    def _next(self) -> Job | None:
        """The job to be admitted now, for which a slot is free, or made free."""
        victim = None
        if not self._free:
            mine = [job for job in self._running.values() if job.preemptions < PREEMPTIONS_MAX]
            mine = [job for job in mine if not job.fresh]  # its slot may not be ready yet
            victim = min(mine, key=lambda job: (job.priority, -job.admitted), default=None)
            if victim is None:
                return None
        above = -1 if victim is None else victim.priority
        taken = self._waiting.take(self._ready, above=above)
        if taken is None:
            return None
        job, overdue = taken
        if overdue:
            job.preemptions = PREEMPTIONS_MAX
        if victim is not None:
            self._preempt(victim)
        return job

    def _preempt(self, job: Job) -> None:
        """Take its slot from a running job; it waits again, before the others of its class."""
        self.preemptions += 1
        job.preemptions += 1
        if job.fed >= COPY_TOKENS_MIN:
            self._moves.append(Save(job.id, job.slot))
        self._release(job)
        job.given, job.slot = len(job.tokens), -1
        self._waiting.put_back(job)

    def _admit(self, job: Job) -> None:
        """Give it a slot, made ready to be fed what nobody holds yet."""
        slot, fed, source = self._shared(job)
        writable = self._writable(job)
        if writable is not None and job.saved >= fed + COPY_TOKENS_MIN:
            slot, fed = writable, job.saved
            self._moves.append(Restore(job.id, slot))
        else:
            if job.saved:
                self._moves.append(Drop(job.id))
            if source is not None:
                self._moves.append(Copy(source, slot))
                if source in self._free:
                    self._free[source].last_used = self._tick()
            self._moves.append(Trim(slot, fed))
        del self._free[slot]
        job.slot, job.fed, job.saved = slot, fed, 0
        job.fresh, job.admitted = True, self._tick()
        self._running[job.id] = job

    def _shared(self, job: Job) -> tuple[int, int, int | None]:
        """Which free slot, how many tokens it will hold, and the slot it must be copied from."""
        free = self._free
        found = {number: usable(job, held) for number, held in free.items()}
        place = self._places(job)
        oldest = min(free, key=place.__getitem__)
        best = min(free, key=lambda number: (-found[number], place[number]))
        fed = found[best]
        apart = place[oldest].beside > place[best].beside
        # Never of a slot that this plan makes ready: it may itself be waiting for a copy.
        others = [other for other in self._running.values() if not other.fresh]
        running = {other.slot: usable(job, fed_by(other)) for other in others}
        source = max(running, key=lambda slot: running[slot], default=None)
        if source is not None and running[source] >= fed + COPY_TOKENS_MIN:
            return oldest, running[source], source
        rest = len(free[best].tokens) - fed  # would be lost
        if best != oldest and fed >= COPY_TOKENS_MIN and (apart or rest >= COPY_TOKENS_MIN):
            return oldest, fed, best
        if apart and fed < COPY_TOKENS_MIN:
            return oldest, found[oldest], None
        return best, fed, None

    def _places(self, job: Job) -> dict[int, Place]:
        """How good a place each free slot is for it."""
        mine = [other.slot for other in self._running.values() if other.adapter == job.adapter]
        others = [other.slot for other in self._running.values() if other.adapter != job.adapter]
        return {n: Place.of(n, held.last_used, mine, others) for n, held in self._free.items()}

    def _writable(self, job: Job) -> int | None:
        """The free slot to restore into: at once, so not one a copy is still to be made of."""
        sources = {move.source for move in self._moves if isinstance(move, Copy)}
        place = self._places(job)
        return min(self._free.keys() - sources, key=place.__getitem__, default=None)

    def _drafts(self, jobs: Sequence[Job]) -> Chosen:
        """What each of the `jobs` that decode is to draft, within the bounds of a decode."""
        if self.drafting is None or not jobs:
            return {}
        room = {job.id: min(job.drafts_max, self._chunk - 1) for job in jobs}
        chosen = self.drafting.choose(jobs, self._total)
        chosen = {job: _sayable(drafts[: room[job]]) for job, drafts in chosen.items()}
        drafted = sum(map(len, chosen.values()))
        assert drafted <= self._total
        self.drafted += drafted
        return chosen

    def _feed(self, job: Job, budget: int, drafts: tuple[int, ...] = ()) -> Feed:
        assert not job.drafted, "something drafted was neither accepted nor rejected"
        end, seen = job.spans.piece(job.fed, min(job.fed + budget, len(job.tokens)))
        begin = job.fed
        told = min(end, job.prompt_length - 1) - max(begin, job.told) if job.untold else 0
        if job.asks:
            job.told = max(job.told, min(end, job.prompt_length))
        job.fed, job.drafted = end, drafts
        draws = end == len(job.tokens)
        tokens = (*job.tokens[begin:end], *drafts)
        told = max(0, told)
        return Feed(job.id, job.slot, tokens, begin, draws, job.adapter, len(drafts), told, seen)

    def _release(self, job: Job) -> None:
        del self._running[job.id]
        held = fed_by(job)
        held.last_used = self._tick()
        self._free[job.slot] = held

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _sayable(drafts: tuple[int, ...]) -> tuple[int, ...]:
    """Up to the first that stands for an image: a prompt has those, no answer does."""
    end = next((place for place, token in enumerate(drafts) if token >= IMAGE_TOKEN), len(drafts))
    return drafts[:end]
