"""The decode loop of one model: every running job advances by one step at a time, by one token or,
where drafts of it were decoded and are what it draws, by several.

Owned by one thread, used by the child process, the self-check and the benchmarks. Answers are
batched; replays run in a context of their own, one piece between two steps, so an audit never
stops a stream for longer than the profile's `replay_chunk` tokens take.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_node.engine import llama
from assay_node.engine.batcher import Batcher
from assay_node.engine.drafting import Drafting
from assay_node.engine.gallery import Gallery, Request
from assay_node.engine.grammar import Follower, Grammars, dialect
from assay_node.engine.interface import Chunk, EngineInfo, Generate, Replay, Replayed
from assay_node.engine.payoff import Payoff
from assay_node.engine.plans import Copy, Drop, Feed, Move, Restore, Save, Trim
from assay_node.engine.profiles import FLASH, Profile
from assay_node.engine.shelf import SAVED_BYTES_MAX, Shelf
from assay_node.engine.spans import NO_IMAGES, Seen, Spans
from assay_protocol import samplers, sampling
from assay_protocol.adjustments import asked_logprobs, logprobs_of, prompt_pairs
from assay_protocol.errors import AssayError
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.margins import Allowed
from assay_protocol.sketches import sketch_rows

if TYPE_CHECKING:
    from assay_node.engine.projector import Projector
    from assay_protocol.masks import Matcher

WAITING_MAX: Final = 256
REPLAYS_MAX: Final = 16
WHOLE_TOKENS_MAX: Final = 1024  # of an image that must be in one decode: memory is set aside for it

Event = tuple[int, Chunk | Replayed | AssayError]


@dataclass(slots=True)
class _Answer:
    request: Generate
    position: int  # output position of the next draw
    last: frozenset[int]  # tokens that end it
    matcher: Matcher | None = None  # where it stands in its grammar, if it has one


@dataclass(slots=True)
class _Replaying:
    job: int
    request: Replay
    spans: Spans
    follower: Follower | None = None
    fed: int = 0
    drawn: list[int] = field(default_factory=list)
    logits: list[bytes] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    sketches: list[bytes] = field(default_factory=list)

    def result(self) -> Replayed:
        return Replayed(
            tuple(self.drawn),
            b"".join(self.logits),
            tuple(self.margins),
            tuple(self.gaps),
            b"".join(self.sketches),
        )


class DecodeLoop:
    """A model with `slots` sequences of `context` tokens. Raises AssayError on opening.

    `adapters`: LoRA files and their digests. `projector`: the file that lets it read images.

    `saved_bytes_max`: so much of preempted jobs' states is kept; the others are fed again.
    `drafts`: try to draw several tokens a step where it pays.
    """

    def __init__(
        self,
        path: Path,
        digest: bytes,
        *,
        slots: int,
        context: int,
        threads: int,
        profile: Profile = FLASH,
        gpu_layers: int = -1,
        saved_bytes_max: int = SAVED_BYTES_MAX,
        adapters: Sequence[tuple[Path, bytes]] = (),
        drafts: bool = True,
        projector: Path | None = None,
    ) -> None:
        self._profile = profile
        self._model = llama.Model(path, profile, gpu_layers)
        self._adapters = _load(self._model, adapters)
        self._gallery: Gallery | None = None
        whole = 0  # positions that must be in one decode
        if projector is not None:
            eyes = _open(projector, self._model, profile, threads)
            self._gallery, whole = Gallery(eyes), eyes.tokens if eyes.whole else 0
        self._piece_max = max(profile.replay_chunk, whole)
        context = min(context, self._model.trained_context)
        self._context = llama.Context(
            self._model,
            sequences=slots,
            context=context,
            batch=max(profile.total + slots, whole) + slots,  # these for rows that keep company
            threads=threads,
            profile=profile,
        )
        self._threads = threads
        self._replayer: llama.Context | None = None  # made by the first replay
        self._batcher = Batcher(
            slots=slots,
            context=context,
            chunk=profile.chunk,
            total=profile.total,
            waiting_max=WAITING_MAX,
        )
        # On a CPU, whatever else runs there takes time, but none of this thread's own.
        self._clock = time.thread_time if llama.device() == "cpu" else time.perf_counter
        # In unified memory the cells of rejected drafts would move where others' tokens go.
        self.may_draft = not profile.unified
        if drafts and self.may_draft:
            self.drafting = Payoff()
        # A state restored among others' cells was not tried: unified memory is fed again. So are
        # models of which layers see a window: their states lack what is outside of it, and a slot
        # must hold all that it is said to.
        fed_again = profile.unified or self._model.window > 0
        self._shelf = Shelf(0 if fed_again else saved_bytes_max)
        self.restores = 0  # of preempted jobs' states
        self._answers: dict[int, _Answer] = {}
        self._replays: deque[_Replaying] = deque()
        self.info = self._about(digest, context, slots)
        self._grammars = Grammars(self._model.pieces, self._model.eog)

    def _about(self, digest: bytes, context: int, slots: int) -> EngineInfo:
        quant = self._model.quant
        return EngineInfo(
            model=digest,
            n_vocab=self._model.n_vocab,
            context=context,
            slots=slots,
            class_id=self._profile.named(
                commit=llama.commit(), device=llama.arithmetic(), quant=quant
            ),
            eog=self._model.eog,
            device=llama.device(),
            grammar=dialect(),
            adapters=tuple(digest for digest in self._adapters if digest is not None),
            tells_prompts=True,
            image_tokens=0 if self._gallery is None else self._gallery.tokens,
        )

    @property
    def idle(self) -> bool:
        waiting = bool(self._grammars) or bool(self._gallery)
        return not self._answers and not self._replays and not waiting

    @property
    def drafting(self) -> Drafting | None:
        """Who says what is drafted; None: nobody."""
        return self._batcher.drafting

    @drafting.setter
    def drafting(self, drafting: Drafting | None) -> None:
        assert drafting is None or self.may_draft
        self._batcher.drafting = drafting

    @property
    def preemptions(self) -> int:
        """How often a job lost its slot to one of a higher class."""
        return self._batcher.preemptions

    @property
    def drafts(self) -> tuple[int, int]:
        """How many tokens were drafted, and how many of these were drawn."""
        return self._batcher.drafted, self._batcher.accepted

    def generate(self, job: int, request: Generate) -> None:
        self._ask(job, request)

    def _begin(self, job: int, request: Generate, matcher: Matcher | None = None) -> None:
        self._batcher.submit(
            job,
            request.prompt,
            request.max_tokens,
            tenant=request.tenant,
            shared=request.shared,
            priority=request.priority,
            adapter=request.adapter,
            may_draft=matcher is None,
            asks=request.tells_prompt,
            spans=self._spans(request),
        )
        last = samplers.ends(request.sampler, self.info.eog)
        self._answers[job] = _Answer(request, request.start, last, matcher)

    def replay(self, job: int, request: Replay) -> None:
        if len(self._replays) >= REPLAYS_MAX:
            raise AssayError("busy")
        self._ask(job, request)

    def _ask(self, job: int, request: Request) -> None:
        """Its images first, then its grammar, then it begins."""
        if request.images:
            if self._gallery is None:
                raise AssayError("image_refused", "the model reads no images")
            self._gallery.look(job, request)
        else:
            self._ask_seeing(job, request)

    def _ask_seeing(self, job: int, request: Request) -> None:
        if request.grammar is not None:
            self._grammars.read(job, request)
        elif isinstance(request, Generate):
            self._begin(job, request)
        else:
            self._replays.append(_Replaying(job, request, self._spans(request)))

    def _spans(self, request: Request) -> Spans:
        return NO_IMAGES if self._gallery is None else self._gallery.spans(request)

    def cancel(self, job: int) -> None:
        """Forget a job of either kind; nothing happens if it is over."""
        self._batcher.cancel(job)
        self._shelf.drop(job)
        self._grammars.cancel(job)
        self._forget_images(job)
        self._answers.pop(job, None)
        self._replays = deque(replaying for replaying in self._replays if replaying.job != job)

    def step(self) -> list[Event]:
        """One decode of each group of running answers, and one piece of the oldest replay."""
        events = self._take_images() if self._gallery else []
        events += self._take_grammars() if self._grammars else []
        events += self._answer_step()
        if self._replays:
            events += self._replay_step(self._replays[0])
        return events

    def close(self) -> None:
        self._grammars.close()
        self._context.close()
        if self._replayer is not None:
            self._replayer.close()
        if self._gallery is not None:
            self._gallery.close()
        self._model.close()

    def _take_images(self) -> list[Event]:
        """Go on with the jobs whose images were encoded meanwhile; refuse those that cannot be."""
        assert self._gallery is not None
        events: list[Event] = []
        block = not self._answers and not self._replays
        for job, request, failure in self._gallery.ready(block=block):
            try:
                if failure is not None:
                    raise failure
                self._ask_seeing(job, request)
            except AssayError as refusal:
                self._gallery.drop(job)
                events.append((job, refusal))
        return events

    def _forget_images(self, job: int) -> None:
        if self._gallery is not None:
            self._gallery.drop(job)

    def _take_grammars(self) -> list[Event]:
        """Begin the jobs whose grammars were read meanwhile; refuse those that cannot be."""
        events: list[Event] = []
        block = not self._answers and not self._replays
        for job, request, matcher in self._grammars.ready(block=block):
            try:
                if isinstance(matcher, AssayError):
                    raise matcher
                if isinstance(request, Generate):
                    self._begin(job, request, matcher)
                else:
                    follower = Follower(matcher)
                    self._replays.append(_Replaying(job, request, self._spans(request), follower))
            except AssayError as refusal:
                self._forget_images(job)
                events.append((job, refusal))
        return events

    def _answer_step(self) -> list[Event]:
        plan = self._batcher.plan()
        if not plan.feeds:
            return []
        for move in plan.moves:
            self._move(move)
        events: list[Event] = []
        groups = plan.groups
        began = self._clock()
        for adapter, feeds in groups:
            events += self._decode(self._adapters[adapter], feeds)
        if self.drafting is not None and len(groups) == 1:
            self.drafting.took(plan.feeds, self._clock() - began)
        return events

    def _decode(self, adapter: Any, feeds: list[Feed]) -> list[Event]:
        """One group's; its tokens are drawn before the next decode overwrites the logits."""
        self._context.adapt(adapter)
        batch = self._context.batch
        batch.clear()
        for feed in feeds:
            place = (feed.position, feed.slot)
            self._add(batch, feed.job, feed.tokens, feed.seen, *place, wanted=feed.wanted)
        logits = self._context.decode(causal=not feeds[0].whole)
        events: list[Event] = []
        if any(feed.told for feed in feeds):
            events, logits = self._tell(logits, feeds)
        return events + self._draw(logits, [feed for feed in feeds if feed.draws])

    def _add(
        self,
        batch: llama.Batch,
        job: int,
        tokens: Sequence[int],
        seen: Seen | None,
        position: int,
        slot: int,
        *,
        wanted: int,
    ) -> None:
        """Tokens, or what stands in their place."""
        if seen is None:
            batch.add(tokens, position, slot, wanted=wanted)
        else:
            assert self._gallery is not None
            rows = self._gallery.rows(job, seen, len(tokens))
            batch.add_embedded(rows, position, slot, wanted=wanted)

    def _tell(
        self, logits: NDArray[np.float32], feeds: list[Feed]
    ) -> tuple[list[Event], NDArray[np.float32]]:
        """What rows say of prompts, and the rows that are left to draw from. No row is kept."""
        events: list[Event] = []
        kept: list[int] = []
        begin = 0
        for feed in feeds:
            end = begin + feed.told
            if feed.told:
                request = self._answers[feed.job].request
                tokens = request.prompt[feed.telling + 1 : feed.telling + 1 + feed.told]
                told = prompt_pairs(logits[begin:end], tokens, request.sampler)
                events.append((feed.job, Chunk((), b"", None, prompt_logprobs=told)))
            begin = end + feed.rows
            kept.extend(range(end, begin))
        return events, logits[kept]

    def _move(self, move: Move) -> None:
        match move:
            case Save(job, slot):
                if self._shelf.fits(self._context.state_bytes(slot)):
                    self._shelf.put(job, self._context.state(slot))
                    self._batcher.saved(job)
            case Restore(job, slot):
                self._context.restore(slot, self._shelf.take(job))
                self.restores += 1
            case Drop(job):
                self._shelf.drop(job)
            case Copy(source, slot):
                self._context.copy(source, slot)
            case Trim(slot, length):
                self._context.truncate(slot, length)

    def _draw(self, logits: NDArray[np.float32], feeds: list[Feed]) -> list[Event]:
        events: list[Event] = []
        rows = [(feed, number) for feed in feeds for number in range(feed.rows)]
        masks: list[Allowed] | None = None
        if any(self._answers[feed.job].matcher is not None for feed in feeds):
            masks, kept, events = self._masks(rows)
            if len(kept) < len(rows):
                logits, rows = logits[kept], [rows[row] for row in kept]
                feeds = [feed for feed, number in rows if number == 0]
        if not rows:
            return events
        answers = [self._answers[feed.job] for feed, _ in rows]
        seeds = [answer.request.seed for answer in answers]
        positions = [answer.position + row[1] for answer, row in zip(answers, rows, strict=True)]
        tokens = sampling.draw_rows(
            logits,
            [answer.request.sampler for answer in answers],
            seeds,
            positions,
            [self._text(feed, number) for feed, number in rows],
            masks,
        )
        values = logits[np.arange(len(rows)), tokens].astype("<f4")
        sketches = sketch_rows(logits, seeds, positions)
        begin = 0
        for feed in feeds:
            own = slice(begin, begin + feed.rows)
            sketched = sketches[SKETCH_BYTES * own.start : SKETCH_BYTES * own.stop]
            chunk = self._take(feed, tokens[own], values[own], logits[own], sketched)
            events.append((feed.job, chunk))
            begin += feed.rows
        return events

    def _text(self, feed: Feed, number: int) -> Sequence[int]:
        """What row `number` of those drawn for `feed` comes after."""
        text = self._batcher.text(feed.job)
        if number == 0 or not samplers.looks_back(self._answers[feed.job].request.sampler):
            return text
        return [*text, *feed.drafted[:number]]

    def _take(
        self,
        feed: Feed,
        tokens: list[int],
        values: NDArray[np.float32],
        logits: NDArray[np.float32],
        sketches: bytes,
    ) -> Chunk:
        """One job's draws, up to the last that counts: no later row saw the text that is now."""
        answer = self._answers[feed.job]
        finish, logprobs, count = None, b"", 0
        for row, token in enumerate(tokens):
            count += 1
            answer.position += 1
            if answer.matcher is not None:
                answer.matcher.advance(token)
            logprobs += asked_logprobs(logits[row], token, answer.request.sampler)
            finish = self._batcher.drawn(feed.job, token, ends=token in answer.last)
            if finish is not None:
                del self._answers[feed.job]
                self._forget_images(feed.job)
                break
            if row < feed.drafts and token != feed.drafted[row]:
                break
        sketches = sketches[: SKETCH_BYTES * count]
        return Chunk(tuple(tokens[:count]), values[:count].tobytes(), finish, logprobs, sketches)

    def _masks(self, rows: list[tuple[Feed, int]]) -> tuple[list[Allowed], list[int], list[Event]]:
        """What each row may draw, and which rows are left: a grammar too complex ends its job."""
        masks: list[Allowed] = []
        kept: list[int] = []
        events: list[Event] = []
        for row, (feed, _) in enumerate(rows):
            matcher = self._answers[feed.job].matcher
            try:
                masks.append(None if matcher is None else matcher.allowed())
                kept.append(row)
            except AssayError as refusal:
                self.cancel(feed.job)
                events.append((feed.job, refusal))
        return masks, kept, events

    def _replay_step(self, state: _Replaying) -> list[Event]:
        """Teacher-force the next piece; all but the last output token are fed."""
        context = self._replay_context()
        request = state.request
        tokens = (request.prompt + request.output)[:-1]
        most = min(state.fed + self._profile.replay_chunk, len(tokens))
        end, seen = state.spans.piece(state.fed, most)
        piece = tokens[state.fed : end]
        wanted = min(len(piece), max(0, end - len(request.prompt) + 1))
        if state.fed == 0:
            context.adapt(self._adapters[request.adapter])
            context.truncate(0, 0)
        context.batch.clear()
        self._add(context.batch, state.job, piece, seen, state.fed, 0, wanted=wanted)
        logits = context.decode(causal=seen is None or not seen.whole)
        state.fed = end
        try:
            if wanted:
                _compare(state, logits)
        except AssayError as refusal:
            self._end_replay(state)
            return [(state.job, refusal)]
        if end < len(tokens):
            return []
        self._end_replay(state)
        return [(state.job, state.result())]

    def _end_replay(self, state: _Replaying) -> None:
        self._replays.popleft()
        self._forget_images(state.job)

    def _replay_context(self) -> llama.Context:
        if self._replayer is None:
            self._replayer = llama.Context(
                self._model,
                sequences=1,
                context=self.info.context,
                batch=self._piece_max + 1,
                threads=self._threads,
                profile=self._profile,
            )
        return self._replayer


def _load(model: llama.Model, files: Sequence[tuple[Path, bytes]]) -> dict[bytes | None, Any]:
    """By digest. Contexts must be made later: they reserve what their graphs need with adapters."""
    if len(files) > llama.ADAPTERS_MAX:
        raise AssayError("engine_failed", f"at most {llama.ADAPTERS_MAX} adapters")
    return {None: None} | {digest: model.adapter(path) for path, digest in files}


def _open(file: Path, model: llama.Model, profile: Profile, threads: int) -> Projector:
    """Raises AssayError("engine_failed")."""
    from assay_node.engine.projector import Projector  # loads libmtmd: only where it is asked for

    gpu = llama.device() != "cpu"
    eyes = Projector(file, model, threads=threads, flash=profile.flash, gpu=gpu)
    if eyes.whole and eyes.tokens > WHOLE_TOKENS_MAX:
        eyes.close()
        raise AssayError("engine_failed", f"{eyes.tokens} positions of an image in one decode")
    return eyes


def _compare(state: _Replaying, logits: NDArray[np.float32]) -> None:
    request, done = state.request, len(state.drawn)
    given = request.output[done : done + len(logits)]
    before = request.prompt + request.output[:done]
    masks = None if state.follower is None else state.follower.along(given)
    compared = sampling.replay(
        logits, given, request.sampler, request.seed, request.start + done, before, masks
    )
    state.drawn += compared.drawn
    state.margins += compared.margins
    state.gaps += compared.gaps
    if request.normalized:
        own = logprobs_of(logits, given)
    else:
        own = logits[np.arange(len(given)), given]
        begin = request.start + done
        positions = range(begin, begin + len(given))
        state.sketches.append(sketch_rows(logits, [request.seed] * len(given), positions))
    state.logits.append(own.astype("<f4").tobytes())
