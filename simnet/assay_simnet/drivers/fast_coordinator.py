"""The coordinator's production core, its tables, its chain, and the sessions of those it knows.

Rows are in the tables before anything the event caused leaves (D1). A crash takes the process: what
is in the tables is all that the next one starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from assay_coordinator.core.calibration import Tables as NoiseTables
from assay_coordinator.core.coordinator import Coordinator, Listed
from assay_coordinator.core.events import (
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
    Save,
    Tick,
)
from assay_coordinator.core.policy import Policy
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_simnet.chain import Chain
from assay_simnet.drivers.ground import Ground
from assay_simnet.evidence import calibration
from assay_simnet.forging import forged_receipt
from assay_simnet.links import Wire
from assay_simnet.roster import remembered
from assay_simnet.tables import Tables

NUMBER: Final = 0  # among the parties
TICK_US: Final = 250_000
FORGET_US: Final = 600_000_000
_NO_DOCUMENTS: Final = m.Error(code="unexpected_message", detail="simulations keep no documents")


class NodeSession(Protocol):
    """A node as the coordinator knows it."""

    number: int
    region: str
    connected: bool
    inward: Wire

    def answered(self, request: int, body: bytes) -> None: ...

    def noticed(self, body: bytes) -> None: ...

    def unanswered(self, request: int) -> None:
        """Its answer will never come."""
        ...

    def session_lost(self) -> None: ...

    def reconnect_soon(self) -> None: ...


class ClientSession(Protocol):
    """A client as the coordinator knows it."""

    region: str
    inward: Wire

    def answered(self, request: int, message: object) -> None: ...


class CoordinatorWorld(Ground, Protocol):
    """What the coordinator needs of the network it is in."""

    @property
    def nodes(self) -> Sequence[NodeSession]: ...
    @property
    def by_key(self) -> Mapping[bytes, NodeSession]: ...
    @property
    def clients_by_key(self) -> Mapping[bytes, ClientSession]: ...

    def secret(self) -> bytes:
        """The chain's."""
        ...


class FastCoordinator:
    """One coordinator, crashing and coming back as the scenario says."""

    def __init__(self, world: CoordinatorWorld, policy: Policy, listed: Listed) -> None:
        self.world, self.listed = world, listed
        self.operator = world.identity("operator").public_key
        self.policy = replace(policy, operators=frozenset({self.operator}))
        self.signer = world.identity("coordinator")
        self.region = world.scenario.network.coordinator
        self.tables, self.chain = Tables(), Chain(world)
        self.down, self.starts, self.asked = False, 0, 0
        self.chain_down = False
        self._waiting: list[PostRound | PostEpoch] = []  # for the chain to be back
        self.core = self._start()
        world.buckets.after(TICK_US, self._tick)
        world.buckets.after(FORGET_US, self._forget)

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    # ---- life ----

    def _start(self) -> Coordinator:
        self.starts += 1
        core = Coordinator(
            self.policy,
            {self.listed.model: self.listed},
            self.signer,
            self.world.streams.secret(f"coordinator entropy {self.starts}"),
            verifier=self.world.verifier,
            tables=NoiseTables([calibration(self.listed.model)]),
        )
        self._carry_out(
            core, core.restore(self.world.buckets.now, self.tables.load(self.world.buckets.now))
        )
        return core

    def crash(self) -> None:
        """The process is gone; sessions end."""
        self.world.checks.crashed(self.core)
        self.down = True
        for node in self.world.nodes:
            node.session_lost()

    def restart(self) -> None:
        """A new process over the same tables."""
        self.down = False
        self.core = self._start()
        self.world.checks.restarted(self.core)
        for node in self.world.nodes:
            node.reconnect_soon()

    def remember(self, node: bytes, operator: bytes, verified: int) -> None:
        """A node that was here before and passed `verified` audits."""
        now = self.world.buckets.now
        self.tables.save(remembered(node, operator, verified, self.policy, now))

    def relearn(self) -> None:
        """Start over from what was remembered, before anybody joins."""
        self.core = self._start()

    # ---- what reaches it ----

    def receive(self, peer: bytes, number: int, request: int, body: bytes) -> None:
        """A message of a node, encoded."""
        if self.down:
            return
        self.world.history.note(self.world.buckets.now, number, NUMBER, "message", body)
        self.world.checks.heard(body, number)
        message = decode(body)
        if isinstance(message, m.SubmitReceipt):
            self._probe(peer, message, number)
        self.handle(Received(peer, request, message))

    def receive_client(self, peer: bytes, number: int, request: int, message: object) -> None:
        """A message of a client: both ends are ours, so it is not encoded for the way."""
        if self.down:
            return
        self.world.history.note(self.world.buckets.now, number, NUMBER, type(message).__name__)
        self.world.checks.heard_client(message, number)
        self.handle(Received(peer, request, message))

    def lost(self, peer: bytes) -> None:
        """A peer's session ended."""
        self.handle(PeerLost(peer))

    def handle(self, event: Event) -> None:
        if not self.down:
            self._carry_out(self.core, self.core.handle(self.world.buckets.now, event))

    def chain_back(self) -> None:
        """The chain takes transactions again."""
        self.chain_down = False
        waiting, self._waiting = self._waiting, []
        for effect in waiting:
            self._post(effect)

    def _tick(self) -> None:
        self.handle(Tick())
        self.world.buckets.after(TICK_US, self._tick)

    def _forget(self) -> None:
        self.tables.forget(self.world.buckets.now)
        self.world.buckets.after(FORGET_US, self._forget)

    def _probe(self, peer: bytes, message: m.SubmitReceipt, number: int) -> None:
        """Now and then what a forger would send first: one bit of the receipt is another (S1)."""
        self.asked += 1
        share = self.world.scenario.checks.probe
        if not share or self.asked % share:
            return
        forged = forged_receipt(message, self.asked, share)
        effects = self.core.handle(self.world.buckets.now, Received(peer, 1, forged))
        self.world.checks.forged(effects, number)

    # ---- what it does ----

    def _carry_out(self, core: Coordinator, effects: Iterable[Effect]) -> None:
        checks = self.world.checks
        others = []
        for effect in effects:
            if isinstance(effect, Save):
                self.tables.save(effect.row)
                checks.saved(effect.row)
            else:
                others.append(effect)
        for effect in others:
            match effect:
                case Reply(peer, request, message):
                    checks.replied(message)
                    self._answer(peer, request, message)
                case Notify(peer, message):
                    self._tell(peer, message)
                case PostEpoch() | PostRound():
                    self._post(effect)
                case (
                    Lookup(peer, request) | LookupVerdict(peer, request) | CountVote(peer, request)
                ):
                    self._answer(peer, request, _NO_DOCUMENTS)
                case Log():
                    self.world.record.logged(self.world.buckets.now, effect)

    def _post(self, effect: PostRound | PostEpoch) -> None:
        if self.chain_down:
            self._waiting.append(effect)
        elif isinstance(effect, PostEpoch):
            self.world.buckets.after(0, self.handle, EpochPosted(effect.epoch))
        else:
            told, later_us = self.chain.post(effect)
            self.world.buckets.after(later_us, self._mined, told)

    def _mined(self, told: Event) -> None:
        self.world.history.note(self.world.buckets.now, NUMBER, NUMBER, "RoundMined")
        self.handle(told)

    def _answer(self, peer: bytes, request: int, message: object) -> None:
        world = self.world
        node = world.by_key.get(peer)
        if node is not None:
            told = partial(node.answered, request)
            if not self._send(node.region, node.inward, told, encode(message)):
                node.unanswered(request)
            return
        client = world.clients_by_key.get(peer)
        if client is None:
            return
        arrives = world.links.arrival(world.buckets.now, client.inward, self.region, client.region)
        if arrives is not None:
            world.buckets.at(arrives, client.answered, request, message)

    def _tell(self, peer: bytes, message: object) -> None:
        node = self.world.by_key.get(peer)
        if node is not None and node.connected:
            self._send(node.region, node.inward, node.noticed, encode(message))

    def _send(self, region: str, wire: Wire, call: Callable[[bytes], None], body: bytes) -> bool:
        world = self.world
        arrives = world.links.arrival(world.buckets.now, wire, self.region, region)
        if arrives is None:
            return False
        world.buckets.at(arrives, call, body)
        if world.links.twice():
            world.buckets.at(arrives, call, body)
        return True
