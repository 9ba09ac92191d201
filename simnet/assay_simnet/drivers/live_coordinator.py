"""The coordinator of the live driver: production's runtime, SQL store and sessions.

Its database is SQLite's in memory and outlives the process, as a disk does. What is watched is what
leaves and enters: rows committed, messages at its sessions, events at its core. Only the chain
behind it is simulated (live_chain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import trio

from assay_coordinator.adapters.credit import pricing_document
from assay_coordinator.adapters.draws import job_verdict, round_draws
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.verdicts import verdict_record
from assay_coordinator.core.calibration import Tables
from assay_coordinator.core.coordinator import Coordinator, Stored
from assay_coordinator.core.events import Effect, Event, Log, Received, Save
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import Row
from assay_coordinator.runtime import Backends, Runtime
from assay_network.session import OnFrame, Session, serve_sessions
from assay_protocol import messages as m
from assay_protocol.codec import decode
from assay_protocol.errors import AssayError
from assay_protocol.links import SESSION
from assay_simnet.determinism import halting
from assay_simnet.drivers.live_chain import LiveChain
from assay_simnet.drivers.live_ground import NUMBER, LiveGround
from assay_simnet.evidence import calibration
from assay_simnet.forging import forged_receipt


class CoordinatorWorld(LiveGround, Protocol):
    """What the coordinator needs beyond."""

    def secret(self) -> bytes:
        """The chain's."""
        ...


class _Core(Coordinator):
    """The production core; what it logs is recorded, and what it has not saved yet is known."""

    owner: LiveCoordinator

    def handle(self, now: int, event: Event) -> list[Effect]:
        with halting():
            return self.owner.hear(super().handle(now, event))

    def restore(self, now: int, stored: Stored) -> list[Effect]:
        with halting():
            return self.owner.hear(super().restore(now, stored))


class LiveCoordinator:
    """One coordinator, crashing and coming back as the scenario says."""

    def __init__(self, ground: CoordinatorWorld, policy: Policy) -> None:
        self._ground = ground
        self.operator = ground.identity("operator").public_key
        self.policy = replace(policy, operators=frozenset({self.operator}))
        self.signer = ground.identity("coordinator")
        self.region = ground.scenario.network.coordinator
        self.address = ground.wires.place(self.key, self.region)
        self.tables = Store("sqlite:///:memory:")
        self.chain = LiveChain(ground)
        self.starts = 1  # the next is the 2nd, as where there was one to remember with
        self.down, self.ready = True, trio.Event()
        self._scope, self._alone = trio.CancelScope(), trio.Lock()
        self._unsaved = False
        self._crashed_clean = False  # a crash, with everything it knew in its tables
        self._watched: dict[Session, _Watched] = {}
        self._hand_ins = 0
        self._runtime: Runtime | None = None
        self._unborn = self._make_core(bytes(32))  # what can be seen before the first start

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    @property
    def core(self) -> Coordinator:
        return self._unborn if self._runtime is None else self._runtime.core

    @property
    def settled(self) -> bool:
        """Whether all that its core decided is committed."""
        return not self._unsaved

    # ---- life ----

    def start(self) -> None:
        """A process over the tables."""
        assert self.down
        self.down, self.ready, self._scope = False, trio.Event(), trio.CancelScope()
        self.starts += 1
        self._ground.spawn(self._live, self.starts, self._scope, self.ready)

    def crash(self) -> None:
        """The process is gone: what was not committed, and everybody's session with it."""
        self._crashed_clean = self.ready.is_set() and not self._unsaved
        if self._crashed_clean:
            self._ground.checks.crashed(self.core)
        self.down = True
        self._ground.wires.kill(self.key)
        self._scope.cancel()

    def restart(self) -> None:
        self.start()

    @property
    def chain_down(self) -> bool:
        return self.chain.down

    @chain_down.setter
    def chain_down(self, down: bool) -> None:
        self.chain.down = down

    def chain_back(self) -> None:
        self.chain.back()

    def remember(self, rows: Sequence[Row]) -> None:
        """Nodes that were here before, in the tables of a coordinator not started yet."""
        self.tables.commit(rows)

    def order(self, message: m.Grant | m.CloseEpoch) -> None:
        """What its operator wants done."""
        assert self._runtime is not None
        self._runtime.tell(Received(self.operator, 0, message))

    def close(self) -> None:
        """Let the tables go; the core can still be read."""
        self.tables.close()

    async def _live(self, start: int, scope: trio.CancelScope, ready: trio.Event) -> None:
        async with self._alone:
            with scope:
                await self._serve(start, ready)

    async def _serve(self, start: int, ready: trio.Event) -> None:
        entropy = self._ground.streams.secret(f"coordinator entropy {start}")
        runtime = Runtime(
            partial(self._make_core, entropy), self._backends(), {}, lambda: self._ground.now
        )
        async with (
            self._ground.wires.host(self.key, self.address) as host,
            trio.open_nursery() as nursery,
        ):
            started = trio.Event()
            nursery.start_soon(runtime.run, started)
            await started.wait()
            self._runtime, self._unsaved = runtime, False
            if self._crashed_clean:
                with halting():
                    self._ground.checks.restarted(self.core)
            serve_sessions(host, SESSION, self._opened, self._closed)
            ready.set()
            await trio.sleep_forever()

    def _make_core(self, entropy: bytes) -> Coordinator:
        listed = self._ground.machines.listed
        core = _Core(
            self.policy,
            {listed.model: listed},
            self.signer,
            entropy,
            verifier=self._ground.verifier,
            tables=Tables([calibration(listed.model)]),
        )
        core.owner = self
        return core

    def _backends(self) -> Backends:
        store = self.tables
        return Backends(
            commit=self._commit,
            load=store.load,
            documents={
                "pricing": partial(pricing_document, store),
                "draws": partial(round_draws, store),
                "verdict": partial(verdict_record, store),
            },
            submit=self.chain.submit,
            settled=self.chain.settled,
            verdict=partial(job_verdict, store),
            vote=_no_blocks,
            block=lambda: None,
        )

    # ---- what is seen of it ----

    def hear(self, effects: Iterable[Effect]) -> list[Effect]:
        """What its core decided."""
        heard = list(effects)
        for effect in heard:
            if isinstance(effect, Save):
                self._unsaved = True
            elif isinstance(effect, Log):
                self._ground.record.logged(self._ground.now, effect)
        return heard

    def _commit(self, rows: list[Row]) -> None:
        self.tables.commit(rows)
        self._unsaved = False
        with halting():
            for row in rows:
                self._ground.checks.saved(row)

    def _opened(self, session: Session) -> OnFrame:
        assert self._runtime is not None
        watched = self._watched[session] = _Watched(self._ground, session)
        # The runtime only ever replies to it, notifies it and ends it.
        on_frame = self._runtime.opened(watched)  # type: ignore[arg-type]
        return partial(self._frame, watched, on_frame)

    def _closed(self, session: Session) -> None:
        assert self._runtime is not None
        self._runtime.closed(self._watched.pop(session))  # type: ignore[arg-type]

    def _frame(
        self,
        watched: _Watched,
        on_frame: Callable[[Any, int, bytes], None],
        session: Session,
        request: int,
        body: bytes,
    ) -> None:
        ground = self._ground
        with halting():
            ground.history.note(ground.now, watched.number, NUMBER, "message", body)
            ground.checks.heard(body, watched.number)
            self._probe(session.peer, body, watched.number)
        on_frame(watched, request, body)

    def _probe(self, peer: bytes, body: bytes, number: int) -> None:
        """Now and then what a forger would send first (S1)."""
        share = self._ground.scenario.checks.probe
        message = decode(body) if share else None
        if not isinstance(message, m.SubmitReceipt):
            return
        self._hand_ins += 1
        if self._hand_ins % share:
            return
        forged = forged_receipt(message, self._hand_ins, share)
        effects = Coordinator.handle(self.core, self._ground.now, Received(peer, 1, forged))
        self._ground.checks.forged(effects, number)


class _Watched:
    """A session as the runtime has it: what it sends is seen on its way."""

    __slots__ = ("_ground", "_session", "number", "peer")

    def __init__(self, ground: LiveGround, session: Session) -> None:
        self._ground, self._session = ground, session
        self.peer, self.number = session.peer, ground.number_of(session.peer)

    def reply(self, request_id: int, body: bytes) -> None:
        message = decode(body)
        with halting():
            self._ground.checks.replied(message)
        self._session.reply(request_id, body)

    def notify(self, body: bytes) -> None:
        self._session.notify(body)

    def end(self, reason: AssayError) -> None:
        self._session.end(reason)


def _no_blocks(_peer: bytes, _seal: bytes) -> None:
    raise AssayError("chain_unavailable", "the simulated chain has no blocks to vote on")
