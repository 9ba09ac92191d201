"""The coordinator's core in a simulated network, with its tables and its operator's key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from assay_coordinator.core.calibration import Tables
from assay_coordinator.core.coordinator import Coordinator, Listed, Stored
from assay_coordinator.core.epochs import StoredEpochs
from assay_coordinator.core.events import (
    CountVote,
    Effect,
    EpochPosted,
    Event,
    Log,
    Lookup,
    LookupVerdict,
    Notify,
    PostEpoch,
    PostRound,
    Received,
    Reply,
    RulesRead,
    Save,
    Tick,
)
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import AuditRow, JobRow, NodeRow, Row
from assay_coordinator.core.registry import Node
from assay_coordinator.core.rules import SignedPolicy
from assay_coordinator.core.standing import fresh_row
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_protocol.errors import ProtocolError
from assay_simnet.chain import Chain
from assay_simnet.noise_table import NOISE_TABLE
from assay_simnet.parties.surroundings import Surroundings

_R = TypeVar("_R")
_NO_DOCUMENTS: Final = m.Error(
    code="unexpected_message", detail="simulations keep no documents", retry_after_ms=None
)


class CoordinatorParty:
    """Takes encoded messages, as its runtime does, and keeps every row it saves."""

    def __init__(
        self,
        world: Surroundings,
        policy: Policy,
        listed: Listed,
        moderation: SignedPolicy | None = None,
    ) -> None:
        self._world, self.policy = world, policy
        self.identity, self._operator = world.identity(), world.identity()
        self.tables: dict[type, dict[tuple[Any, ...], Row]] = {}
        self.logs: list[tuple[int, Log]] = []
        self.chain = Chain(world)
        operated = _with_operator(policy, self._operator.public_key)
        self.core = Coordinator(
            operated,
            {listed.model: listed},
            self.identity,
            world.secret(),
            tables=Tables([NOISE_TABLE]),
            moderation=moderation,
        )
        self.carry_out(self.core.restore(world.now, _nothing()))

    @property
    def key(self) -> bytes:
        return self.identity.public_key

    # ---- what reaches it ----

    def receive(self, peer: bytes, request: int, body: bytes) -> None:
        """A request (or, with 0, a notice) of an authenticated peer."""
        try:
            message = decode(body)
        except ProtocolError as error:
            if request:
                refusal = m.Error(code=error.code, detail="", retry_after_ms=None)
                self._answer(peer, request, refusal)
            return
        self.handle(Received(peer, request, message))

    def tick(self) -> None:
        self.handle(Tick())

    def grant(self, account: bytes, amount: int) -> None:
        """The operator gives an account money."""
        order = m.Grant(account=account, amount=amount)
        self.handle(Received(self._operator.public_key, 0, order))

    def close_epoch(self) -> None:
        """The operator closes the running epoch."""
        self.handle(Received(self._operator.public_key, 0, m.CloseEpoch()))

    def decide(self, rules: m.NetworkRules) -> None:
        """A final block of the chain says so."""
        self.handle(RulesRead(rules))

    def remember(self, node: bytes, operator: bytes, verified: int) -> None:
        """A node that was here before and passed `verified` audits."""
        assert node not in self.core.registry.nodes
        row = fresh_row(node, operator, self._world.now)
        row = replace(row, state="active", verified=verified)
        self.core.registry.nodes[node] = Node(row)
        self._save(row)

    # ---- what it does ----

    def handle(self, event: Event) -> None:
        self.carry_out(self.core.handle(self._world.now, event))

    def carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Save(row):
                    self._save(row)
                case Reply(peer, request, message):
                    self._answer(peer, request, message)
                case Notify(peer, message):
                    self._tell(peer, message)
                case PostEpoch(epoch):
                    self.carry_out(self.core.handle(self._world.now, EpochPosted(epoch)))
                case PostRound():
                    told, later_us = self.chain.post(effect)
                    self._world.after(later_us, partial(self.handle, told))
                case (
                    Lookup(peer, request) | LookupVerdict(peer, request) | CountVote(peer, request)
                ):
                    self._answer(peer, request, _NO_DOCUMENTS)
                case Log():
                    self.logs.append((self._world.now, effect))

    def _answer(self, peer: bytes, request: int, message: object) -> None:
        body = encode(message)
        if peer in self._world.nodes:
            self._world.nodes[peer].answered(request, body)
        elif peer in self._world.clients:
            self._world.clients[peer].answered(request, body)

    def _tell(self, peer: bytes, message: object) -> None:
        node = self._world.nodes.get(peer)
        if node is not None:
            node.noticed(encode(message))

    def _save(self, row: Row) -> None:
        key = tuple(getattr(row, name) for name in row.KEY)
        self.tables.setdefault(type(row), {})[key] = row

    # ---- looking ----

    def rows(self, cls: type[_R]) -> list[_R]:
        """All rows of one table, oldest key first."""
        return [row for row in self.tables.get(cls, {}).values() if isinstance(row, cls)]

    def standing(self, node: bytes) -> NodeRow:
        return self.core.registry.nodes[node].row

    def jobs_of(self, node: bytes) -> list[JobRow]:
        """Its jobs whose receipts were booked, in the order of their tickets."""
        return [row for row in self.rows(JobRow) if row.node == node and row.receipt_blob]

    def audits_by(self, auditor: bytes) -> list[AuditRow]:
        return [row for row in self.rows(AuditRow) if row.auditor == auditor]

    def undecided(self) -> bool:
        """Whether some booked job still waits for its draw or its verdict."""
        return any(job.state in ("pending", "drawn") for job in self.core.jobs.jobs.values())

    def balance(self, kind: str, owner: bytes = bytes(32)) -> int:
        return self.core.ledger.balance(kind, owner)


def _with_operator(policy: Policy, operator: bytes) -> Policy:
    return replace(policy, operators=policy.operators | {operator})


def _nothing() -> Stored:
    return Stored(
        nodes=[],
        balances=[],
        credit=[],
        jobs=[],
        epochs=StoredEpochs(),
        next_posting=1,
        audits=0,
    )
