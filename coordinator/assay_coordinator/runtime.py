"""Turns the core's effects into I/O: one loop that handles, commits, then sends.

Events wait in one queue, bounded in number, in bytes and for each peer. The loop takes all that
are there, runs the core over them, commits every row in one transaction (group commit) and only
then releases the messages: what a peer is told has survived (D1). If a commit fails, nothing of the
batch is acknowledged and the core is rebuilt from the tables, which are the truth.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from assay_coordinator.core.coordinator import Coordinator, Stored
from assay_coordinator.core.events import (
    BlockToVote,
    CountVote,
    Effect,
    EpochPosted,
    Event,
    Log,
    Lookup,
    LookupVerdict,
    Notify,
    PeerLost,
    PostEpoch,
    PostRound,
    Received,
    Reply,
    RoundMined,
    Save,
    Tick,
)
from assay_coordinator.core.records import Row
from assay_coordinator.core.rules import PART_BYTES
from assay_coordinator.health import Health
from assay_network.logs import get_logger
from assay_network.session import Session
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.limits import SESSION_REQUESTS_MAX, SESSIONS_MAX

QUEUE_EVENTS_MAX: Final = 65_536
QUEUE_BYTES_MAX: Final = 256 << 20
PEER_EVENTS_MAX: Final = 1_024  # one peer's share of the queue
BATCH_EVENTS_MAX: Final = 2_048
TICK_SECONDS: Final = 0.25
BLOCK_SECONDS: Final = 1.0
DOCUMENTS_CACHED_MAX: Final = 64
DOCUMENT_BYTES_CACHED_MAX: Final = 256 << 20
LOOKUPS_WAITING_MAX: Final = 1_024
POSTS_WAITING_MAX: Final = 65_536
POSTS_UNDER_WAY_MAX: Final = 2_048  # written down, and not yet on the chain to stay
POST_SECONDS_MAX: Final = 600.0  # of one wait; then it is said, and waited for again
POST_RETRY_SECONDS: Final = 5.0
RESTORE_RETRY_SECONDS: Final = 1.0

log = get_logger("coordinator")

Commit = Callable[[list[Row]], None]
Load = Callable[[int], Stored]  # all of these are synchronous and raise AssayError
Document = Callable[[bytes], bytes]
Submit = Callable[[PostEpoch | PostRound], Awaitable[None]]
Settled = Callable[[PostEpoch | PostRound], Awaitable[EpochPosted | RoundMined]]
Verdict = Callable[[bytes, bytes], m.JobVerdict]
Vote = Callable[[bytes, bytes], None]
Observe = Callable[[Sequence[Effect], int, float], None]  # what holds; rows and seconds of it
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """What the runtime needs of the world; what is not async is called in a thread.

    `submit` returns when what is to be posted is durable, `settled` when it is on chain to stay.
    `documents`: by what `GetPart` asks for, from its key. `verdict`: of a client's ticket. `vote`:
    a node's seal of a block; `block`: the one to vote on now, if any.
    """

    commit: Commit
    load: Load
    documents: Mapping[str, Document]
    submit: Submit
    settled: Settled
    verdict: Verdict
    vote: Vote
    block: Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Depths:
    """How much waits where, at `now` in microseconds since the epoch."""

    now: int
    events: int  # in the queue
    bytes: int  # of their messages
    peers: int  # with a session
    requests: int  # without an answer
    lookups: int
    posts: int  # not on the chain to stay


class Runtime:
    """A running coordinator; `serve_sessions` feeds `opened` and `closed`."""

    def __init__(
        self,
        make_core: Callable[[], Coordinator],
        backends: Backends,
        cards: Mapping[bytes, bytes],
        clock: Callable[[], int],
        observe: Observe | None = None,
    ) -> None:
        self._make_core, self._backends, self._cards, self._clock = (
            make_core,
            backends,
            cards,
            clock,
        )
        self.core, self.health, self._observe = make_core(), Health(), observe
        self._queue: deque[tuple[Event, int]] = deque()  # with the size of the peer's message
        self._queued_bytes = 0
        self._queued: Counter[bytes] = Counter()  # by peer
        self._wake = trio.Event()
        self._requests: dict[int, tuple[Session, int]] = {}
        self._next_request = 0
        self._sessions: dict[bytes, list[Session]] = {}
        self._kept: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()  # documents
        self._kept_bytes = 0
        self._lookups = 0
        self._writer = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(2)
        self._to_post, self._posts = trio.open_memory_channel[PostEpoch | PostRound](
            POSTS_WAITING_MAX
        )
        self._posting = trio.Semaphore(POSTS_UNDER_WAY_MAX)
        self._under_way: set[PostEpoch | PostRound] = set()
        self._now = 0

    async def run(self, started: trio.Event) -> None:
        """Restore from the tables, set `started`, serve until cancelled.

        Raises AssayError if the tables cannot be read at the start; later it waits for them.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._release(await self._restored())
            nursery.start_soon(self._tick_loop)
            nursery.start_soon(self._post_loop)
            nursery.start_soon(self._block_loop)
            started.set()
            await self._handle_loop()

    def tell(self, event: Event) -> None:
        """Something happened that is no peer's doing: what a chain says."""
        self._put(event)

    def depths(self) -> Depths:
        """How much waits where."""
        return Depths(
            now=self._time(),
            events=len(self._queue),
            bytes=self._queued_bytes,
            peers=len(self._sessions),
            requests=len(self._requests),
            lookups=self._lookups,
            posts=len(self._under_way) + self._posts.statistics().current_buffer_used,
        )

    def faults(self) -> list[str]:
        """Why it does not do its work, or cannot keep up with it; none: it does."""
        full = len(self._queue) >= QUEUE_EVENTS_MAX or self._queued_bytes >= QUEUE_BYTES_MAX
        return [*self.health.faults, *(["queue_full"] if full else [])]

    async def document(self, what: str, key: bytes, *, begun: bool = False) -> bytes:
        """All of a document that comes in parts; `begun`: a part of it was taken already, and the
        others should be of the same one. Raises AssayError as whoever makes it does."""
        if what == "card":
            if key not in self._cards:
                raise AssayError("model_unknown")
            return self._cards[key]
        if what == "calibration":
            return self.core.tables.of(int.from_bytes(key, "big")).signed
        make = self._backends.documents.get(what)
        if make is None:
            raise AssayError("unexpected_message", "no such document comes in parts")
        name = (what, key)
        kept = self._kept.get(name)
        if begun and kept is not None:
            return kept
        document = await trio.to_thread.run_sync(make, key, limiter=self._readers)
        self._keep(name, document)
        return document

    # ---- sessions ----

    def opened(self, session: Session) -> Callable[[Session, int, bytes], None]:
        self._sessions.setdefault(session.peer, []).append(session)
        return self._on_frame

    def closed(self, session: Session) -> None:
        mine = self._sessions.get(session.peer, [])
        if session in mine:
            mine.remove(session)
        if not mine:
            self._sessions.pop(session.peer, None)
            self._put(PeerLost(session.peer))

    def _on_frame(self, session: Session, request_id: int, body: bytes) -> None:
        try:
            message = decode(body)
        except AssayError as error:
            self._refuse(session, request_id, error)
            return
        if message is None:
            if request_id:
                self._refuse(session, request_id, AssayError("unknown_message"))
            return
        if self._has_room(session, len(body)):
            event = Received(session.peer, self._track(session, request_id), message)
            self._put(event, len(body))
        elif request_id:
            self._refuse(session, request_id, AssayError("busy", retry_after_ms=1_000))
        else:  # the audit it belongs to has deadlines of its own
            session.end(PeerGone("notices come faster than they can be handled"))

    def _has_room(self, session: Session, size: int) -> bool:
        return (
            len(self._queue) < QUEUE_EVENTS_MAX
            and self._queued_bytes + size <= QUEUE_BYTES_MAX
            and self._queued[session.peer] < PEER_EVENTS_MAX
        )

    def _track(self, session: Session, request_id: int) -> int:
        """A number of ours for this request; the core answers by it. 0 awaits no answer."""
        if not request_id:
            return 0
        self._next_request += 1
        self._requests[self._next_request] = (session, request_id)
        assert len(self._requests) <= SESSIONS_MAX * SESSION_REQUESTS_MAX
        return self._next_request

    def _refuse(self, session: Session, request_id: int, error: AssayError) -> None:
        if request_id:
            session.reply(request_id, encode(_refusal(error)))

    # ---- the loop ----

    def _put(self, event: Event, size: int = 0) -> None:
        self._queue.append((event, size))
        self._queued_bytes += size
        if isinstance(event, Received):
            self._queued[event.peer] += 1
        self._wake.set()

    def _take(self) -> Event:
        event, size = self._queue.popleft()
        self._queued_bytes -= size
        if isinstance(event, Received):
            self._queued[event.peer] -= 1
            if not self._queued[event.peer]:
                del self._queued[event.peer]
        return event

    async def _handle_loop(self) -> None:
        while True:
            if not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
            batch: list[Effect] = []
            for _ in range(min(len(self._queue), BATCH_EVENTS_MAX)):
                batch += self.core.handle(self._time(), self._take())
            await self._carry_out(batch)

    async def _carry_out(self, batch: list[Effect]) -> None:
        rows = [effect.row for effect in batch if isinstance(effect, Save)]
        began = trio.current_time()
        if rows:
            try:
                await trio.to_thread.run_sync(self._backends.commit, rows, limiter=self._writer)
            except AssayError as error:
                await self._recover(batch, error)
                return
        if self._observe is not None:
            self._observe(batch, len(rows), trio.current_time() - began)
        self._release(batch)

    async def _recover(self, batch: list[Effect], error: AssayError) -> None:
        """Nothing of the batch happened. Say so, and become what the tables say."""
        self.health.commit_failed()
        log.error("commit_failed", code=error.code, detail=error.message)
        for effect in batch:
            if isinstance(effect, Reply | Lookup | LookupVerdict | CountVote) and effect.request:
                self._answer(effect.request, m.Error(code="storage_failed", detail=error.code))
        while True:
            try:
                self._release(await self._restored())
                self.health.recovering = False
                return
            except AssayError as again:
                log.error("restore_failed", code=again.code, detail=again.message)
                await trio.sleep(RESTORE_RETRY_SECONDS)

    async def _restored(self) -> list[Effect]:
        stored = await trio.to_thread.run_sync(
            self._backends.load, self._time(), limiter=self._writer
        )
        self.core = self._make_core()
        return self.core.restore(self._time(), stored)

    def _release(self, batch: list[Effect]) -> None:
        for effect in batch:
            match effect:
                case Save():
                    continue
                case Reply(_, request, message):
                    self._answer(request, message)
                case Notify(peer, message):
                    self._notify(peer, message)
                case Lookup() | LookupVerdict() | CountVote():
                    self._begin_lookup(effect)
                case PostEpoch() | PostRound():
                    self._to_post.send_nowait(effect)
                case Log(event, fields):
                    log.info(event, **dict(fields))

    def _answer(self, request: int, message: object) -> None:
        session, request_id = self._requests.pop(request)
        session.reply(request_id, encode(message))

    def _notify(self, peer: bytes, message: object) -> None:
        sessions = self._sessions.get(peer)
        if sessions:
            sessions[-1].notify(encode(message))

    # ---- the slow things ----

    def _begin_lookup(self, wanted: Lookup | LookupVerdict | CountVote) -> None:
        if not wanted.request:
            return  # a notice, which awaits no answer
        if self._lookups >= LOOKUPS_WAITING_MAX:
            self._answer(wanted.request, _refusal(AssayError("busy", retry_after_ms=1_000)))
            return
        self._lookups += 1
        self._nursery.start_soon(self._look_up, wanted)

    async def _look_up(self, wanted: Lookup | LookupVerdict | CountVote) -> None:
        try:
            self._answer(wanted.request, await self._found(wanted))
        except AssayError as error:
            self._answer(wanted.request, _refusal(error))
        finally:
            self._lookups -= 1

    async def _found(
        self, wanted: Lookup | LookupVerdict | CountVote
    ) -> m.Part | m.JobVerdict | m.Done:
        if isinstance(wanted, CountVote):
            await trio.to_thread.run_sync(
                self._backends.vote, wanted.peer, wanted.seal, limiter=self._readers
            )
            return m.Done()
        if isinstance(wanted, LookupVerdict):
            return await trio.to_thread.run_sync(
                self._backends.verdict, wanted.peer, wanted.ticket, limiter=self._readers
            )
        document = await self.document(wanted.what, wanted.key, begun=wanted.offset > 0)
        part = document[wanted.offset : wanted.offset + PART_BYTES]
        return m.Part(total=len(document), data=part)

    def _keep(self, name: tuple[str, bytes], document: bytes) -> None:
        """For the parts that will be asked for next; the oldest go first."""
        self._kept_bytes += len(document) - len(self._kept.pop(name, b""))
        self._kept[name] = document
        while (
            len(self._kept) > DOCUMENTS_CACHED_MAX or self._kept_bytes > DOCUMENT_BYTES_CACHED_MAX
        ):
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    async def _post_loop(self) -> None:
        """Written down in order, and told in order: a round's link is told only after those before
        it. Epochs and rounds do not wait for each other."""
        last: dict[type, trio.Event] = {}
        async for effect in self._posts:
            if effect in self._under_way:
                continue  # asked for again after the core was restored
            await self._tried(self._backends.submit, effect)
            await self._posting.acquire()
            self._under_way.add(effect)
            before, told = last.get(type(effect)), trio.Event()
            last[type(effect)] = told
            self._nursery.start_soon(self._post, effect, before, told)

    async def _post(
        self, effect: PostEpoch | PostRound, before: trio.Event | None, told: trio.Event
    ) -> None:
        posted = await self._tried(self._backends.settled, effect)
        if before is not None:
            await before.wait()
        self._put(posted)
        told.set()
        self._under_way.discard(effect)
        self._posting.release()

    async def _tried(
        self,
        action: Callable[[PostEpoch | PostRound], Awaitable[_T]],
        effect: PostEpoch | PostRound,
    ) -> _T:
        """Until it is done: nothing that was closed is given up."""
        while True:
            code = "timeout"
            with trio.move_on_after(POST_SECONDS_MAX):
                try:
                    done = await action(effect)
                    self.health.unposted.discard(effect)
                    return done
                except AssayError as error:
                    code = error.code
            self.health.post_failed(effect)
            log.error("not_posted", what=type(effect).__name__, code=code)
            await trio.sleep(POST_RETRY_SECONDS)

    async def _block_loop(self) -> None:
        """Tells the core which block to vote on, whenever that is another."""
        told: int | None = None
        while True:
            try:
                block = await trio.to_thread.run_sync(self._backends.block, limiter=self._readers)
            except AssayError as error:
                self.health.chain_unread = True
                log.error("chain_not_read", code=error.code)
            else:
                self.health.chain_unread = False
                if block is not None or told is not None:  # again: the core may be a new one
                    self._put(BlockToVote(block))
                told = block
            await trio.sleep(BLOCK_SECONDS)

    async def _tick_loop(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            self._put(Tick())

    def _time(self) -> int:
        """Microseconds since the epoch; never goes back while we run."""
        self._now = max(self._now, self._clock())
        return self._now


def _refusal(error: AssayError) -> m.Error:
    return m.Error(code=error.code, detail=error.message[:200], retry_after_ms=error.retry_after_ms)
