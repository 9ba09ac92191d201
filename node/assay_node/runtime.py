"""Turns the effects of one Node into I/O with trio: job streams, engine calls, session, disk.

One rule keeps it right: `post` runs the node and starts what it asks for, and nothing started from
an effect reports back before `post` has returned. Disk writes go through one task in order and are
committed in groups; every wait on the network has a bound.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from assay_network.frames import Frames
from assay_network.host import Host
from assay_network.logs import get_logger
from assay_network.session import Session, open_session
from assay_node.coordinator import Coordinator
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.node import Node
from assay_node.engines import Engines
from assay_node.rules_file import Keep
from assay_node.store import Mark, ReceiptStore, Saved
from assay_protocol.codec import decode, decode_as, encode
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.links import JOB, SESSION
from assay_protocol.messages import Done, Error, StartJob, Ticket
from assay_protocol.signing import peek
from assay_protocol.streams import remote_error

FIRST_FRAME_SECONDS: Final = 10.0
SEND_SECONDS_MAX: Final = 30.0
REQUEST_SECONDS_MAX: Final = 15.0
REPLAY_SECONDS_MAX: Final = 300.0
KEEP_RULES_SECONDS_MAX: Final = 120.0  # to compare them with a chain and write them
RECONNECT_SECONDS: Final = (1.0, 60.0)  # first and longest wait, before jitter
REST_SECONDS_MAX: Final = 10.0  # without a look at the node: its clock may jump
DISK_BATCH_MAX: Final = 256
LAST_FRAMES_SECONDS: Final = 1.0

log = get_logger("node")

Observe = Callable[[int, on.Event, Sequence[do.Effect]], None]  # what happened when, and followed


@dataclass(slots=True)
class _Line:
    """One job stream as I/O."""

    frames: Frames
    nursery: trio.Nursery
    queue: deque[bytes] = field(default_factory=deque)
    stirred: trio.Event = field(default_factory=trio.Event)
    closing: bool = False
    ended: trio.Event = field(default_factory=trio.Event)
    wanted: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(0))
    generating: trio.CancelScope = field(default_factory=trio.CancelScope)

    def stir(self) -> None:
        self.stirred.set()


class NodeRuntime:
    """Runs one node. `clock` gives microseconds since the epoch."""

    def __init__(
        self,
        node: Node,
        *,
        host: Host,
        engines: Engines,
        store: ReceiptStore,
        coordinator: Coordinator,
        clock: Callable[[], int],
        tick_seconds: float,
        keep_rules: Keep,
        observe: Observe | None = None,
    ) -> None:
        self.node, self.started, self.drained = node, trio.Event(), trio.Event()
        self._host, self._engines, self._store = host, engines, store
        self._coordinator, self._clock, self._tick_seconds = coordinator, clock, tick_seconds
        self._keep, self._observe = keep_rules, observe
        self._session: Session | None = None
        self._lines: dict[int, _Line] = {}
        self._numbers = itertools.count(1)
        self._to_disk, self._from_post = trio.open_memory_channel[do.SaveReceipt | do.MarkReceipt](
            math.inf  # bounded by the node: outbox_max
        )
        self._disk_idle = trio.Event()
        self._roused = trio.Event()  # something happened while the node had nothing to do
        self._nursery: trio.Nursery | None = None
        self._over = True  # nothing may be posted before it runs and after its end

    @property
    def connected(self) -> bool:
        """Whether there is a session with the coordinator."""
        return self._session is not None

    async def ask(self, message: object) -> object:
        """The coordinator's answer to a request beside the node's own.

        Raises PeerGone without a session, AssayError("timeout"), RemoteError for its refusals.
        """
        if self._session is None:
            raise PeerGone("there is no session with the coordinator")
        answer = decode(await self._session.request(encode(message), REQUEST_SECONDS_MAX))
        if isinstance(answer, Error):
            raise remote_error(answer)
        return answer

    async def run(self) -> None:
        """Serve until the node is drained or this is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self._over = nursery, False
                self.started.set()
                nursery.start_soon(self._disk_loop)
                nursery.start_soon(self._session_loop)
                nursery.start_soon(self._tick_loop)
                self._host.serve(JOB, self._serve_job)
                await self.drained.wait()
                await self._let_out()
                nursery.cancel_scope.cancel()
        finally:
            self._over = True

    async def _let_out(self) -> None:
        """After the last decision: what is queued for disk is written, frames get a moment."""
        self._to_disk.close()  # so the disk loop ends when all is written
        await self._disk_idle.wait()
        with trio.move_on_after(LAST_FRAMES_SECONDS):
            for line in tuple(self._lines.values()):
                await line.ended.wait()

    def post(self, event: on.Event) -> None:
        """Tell the node what happened and start what it wants done; nothing once it is over."""
        if self._over:
            return
        self._roused.set()
        now = self._clock()
        effects = self.node.handle(now, event)
        if self._observe is not None:
            self._observe(now, event, effects)
        for effect in effects:
            self._do(effect)

    def _do(self, effect: do.Effect) -> None:
        assert self._nursery is not None, "it runs"
        start = self._nursery.start_soon
        match effect:
            case do.SendFrame(stream, frame):
                if (line := self._lines.get(stream)) is not None:
                    line.queue.append(frame)
                    line.stir()
            case do.NextChunk(stream):
                if (line := self._lines.get(stream)) is not None:
                    line.wanted.release()
            case do.StartGenerate(stream):
                if (line := self._lines.get(stream)) is not None:
                    line.nursery.start_soon(self._generate, line, effect)
            case do.StopGenerate(stream):
                if (line := self._lines.get(stream)) is not None:
                    line.generating.cancel()
            case do.CloseStream(stream):
                if (line := self._lines.get(stream)) is not None:
                    line.closing = True
                    line.stir()
            case do.StartReplay():
                start(self._replay, effect)
            case do.OpenEngine(engine):
                start(self._open_engine, engine)
            case do.CloseEngine(engine):
                start(self._close_engine, engine)
            case do.Request():
                start(self._request, effect)
            case do.Notify(body):
                if self._session is not None:
                    self._session.notify(body)
            case do.SaveReceipt() | do.MarkReceipt():
                self._to_disk.send_nowait(effect)
            case do.KeepRules():
                start(self._keep_rules, effect)
            case do.Log(event, fields):
                log.info(event, **dict(fields))
            case do.Drained():
                self._over = True
                self.drained.set()

    # job streams

    async def _serve_job(self, client: bytes, frames: Frames) -> None:
        """One client's stream, from its first frame to the end."""
        first = await frames.receive(FIRST_FRAME_SECONDS)
        answered = await trio.to_thread.run_sync(self._is_answered, first)
        if self._over:
            return
        stream = next(self._numbers)
        try:
            async with trio.open_nursery() as nursery:
                line = self._lines[stream] = _Line(frames, nursery)
                nursery.start_soon(self._read, stream, line)
                nursery.start_soon(self._write, stream, line)
                self.post(on.StreamOpened(stream, client, first, answered))
        finally:
            self._lines.pop(stream).ended.set()
            self.post(on.StreamLost(stream))

    def _is_answered(self, frame: bytes) -> bool:
        """Whether the store has a receipt for the ticket in `frame`; not knowing counts as yes."""
        try:
            ticket = peek(Ticket, decode_as(StartJob, frame).ticket).ticket
        except ProtocolError:
            return False  # the node says what is wrong with it
        try:
            return self._store.has(ticket)
        except AssayError as error:
            log.error("receipts_not_read", code=error.code)
            return True

    async def _read(self, stream: int, line: _Line) -> None:
        try:
            while True:
                self.post(on.StreamFrame(stream, await line.frames.receive()))
        except AssayError:
            self._lose(stream, line)

    async def _write(self, stream: int, line: _Line) -> None:
        while True:
            if line.queue:
                batch = list(line.queue)
                line.queue.clear()
                if not await self._send(line, batch):
                    self._lose(stream, line)
                    return
            elif line.closing:
                line.nursery.cancel_scope.cancel()
                return
            else:
                line.stirred = trio.Event()
                await line.stirred.wait()

    async def _send(self, line: _Line, batch: list[bytes]) -> bool:
        sent = False
        with trio.move_on_after(SEND_SECONDS_MAX), contextlib.suppress(AssayError):
            await line.frames.send_many(batch)
            sent = True
        return sent

    def _lose(self, stream: int, line: _Line) -> None:
        """The client is gone: tell the node, and let what it still sends out end the stream."""
        self.post(on.StreamLost(stream))
        line.closing = True
        line.stir()
        if not line.queue:
            line.nursery.cancel_scope.cancel()

    # the engines

    async def _open_engine(self, engine: bytes) -> None:
        try:
            await self._engines.open(engine)
        except AssayError as error:
            fields = {"code": error.code, "reason": error.message}
            log.warning("engine_not_opened", model=engine.hex(), **fields)
            self.post(on.EngineNotOpened(engine))
        else:
            self.post(on.EngineOpened(engine))

    async def _close_engine(self, engine: bytes) -> None:
        await self._engines.close(engine)
        self.post(on.EngineClosed(engine))

    async def _generate(self, line: _Line, started: do.StartGenerate) -> None:
        stream = started.stream
        with line.generating:
            try:
                engine = self._engines.get(started.engine)
                async with engine.generate(started.generate) as chunks:
                    async for chunk in chunks:
                        self.post(on.Drawn(stream, chunk))
                        if chunk.finish is not None:
                            return
                        await line.wanted.acquire()
                code = "engine_failed"
            except AssayError as error:
                code = error.code
            log.warning("engine_stopped", code=code)
            self.post(on.EngineStopped(stream, code))

    async def _replay(self, effect: do.StartReplay) -> None:
        with trio.move_on_after(REPLAY_SECONDS_MAX) as scope:
            try:
                replayed = await self._engines.get(effect.engine).replay(effect.replay)
                self.post(on.ReplayDone(effect.audit, replayed))
            except AssayError as error:
                self.post(on.ReplayFailed(effect.audit, error.code))
        if scope.cancelled_caught:
            self.post(on.ReplayFailed(effect.audit, "timeout"))

    # the coordinator

    async def _session_loop(self) -> None:
        """One session after the other, with jittered waits between."""
        wait, longest = RECONNECT_SECONDS
        where = self._coordinator
        while True:
            try:
                async with open_session(
                    self._host, where.key, where.addresses, SESSION, self._on_frame
                ) as session:
                    self._session, wait = session, RECONNECT_SECONDS[0]
                    log.info("coordinator_connected")
                    self.post(on.SessionUp())
                    await session.closed.wait()
            except AssayError as error:
                log.warning("coordinator_unreachable", code=error.code, wait_seconds=wait)
            self._session = None
            self.post(on.SessionDown())
            await trio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, longest)

    def _on_frame(self, session: Session, request: int, body: bytes) -> None:
        """A notice, or a request that needs no other answer than that it came."""
        if request:
            session.reply(request, encode(Done()))
        if session is self._session:
            self.post(on.Noticed(body))

    async def _request(self, effect: do.Request) -> None:
        session, code = self._session, "peer_gone"
        if session is not None:
            try:
                answer = await session.request(effect.body, REQUEST_SECONDS_MAX)
            except AssayError as error:
                code = error.code
            else:
                self.post(on.Answered(effect.request, answer))
                return
        self.post(on.Failed(effect.request, code))

    async def _keep_rules(self, effect: do.KeepRules) -> None:
        code = "timeout"
        with trio.move_on_after(KEEP_RULES_SECONDS_MAX):
            try:
                await self._keep(effect.document, effect.rules)
            except AssayError as error:
                log.warning("rules_not_kept", code=error.code, reason=error.message)
                code = error.code
            else:
                code = ""
        self.post(on.RulesNotKept(code) if code else on.RulesKept())

    # disk and time

    async def _disk_loop(self) -> None:
        """Write in order, as many as wait in one commit."""
        async for first in self._from_post:
            batch = [first]
            while len(batch) < DISK_BATCH_MAX:
                try:
                    batch.append(self._from_post.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            await self._commit(batch)
        self._disk_idle.set()

    async def _commit(self, batch: list[do.SaveReceipt | do.MarkReceipt]) -> None:
        now = self._clock()
        saves, marks = [], []
        for one in batch:
            if isinstance(one, do.SaveReceipt):
                saves.append(Saved(one.ticket, one.receipt, one.ack, one.ticket_blob, now))
            else:
                marks.append(Mark(one.ticket, one.state, one.charged, one.code))
        code = None
        try:
            await trio.to_thread.run_sync(self._store.write, saves, marks)
        except AssayError as error:
            # Marks are not tried again: an unmarked receipt is submitted anew at the next start.
            code = error.code
            log.error("receipts_not_written", code=code, count=len(batch))
        for save in saves:
            if code is None:
                self.post(on.ReceiptSaved(save.ticket))
            else:
                self.post(on.ReceiptNotSaved(save.ticket, code))

    async def _tick_loop(self) -> None:
        """Now and then; where nothing is under way, only when something is due or happened."""
        while True:
            self.post(on.Tick())
            rest = min((self.node.rests_until - self._clock()) / 1e6, REST_SECONDS_MAX)
            if rest <= self._tick_seconds:
                await trio.sleep(self._tick_seconds)
                continue
            self._roused = trio.Event()
            with trio.move_on_after(rest):
                await self._roused.wait()
