"""Who is here: nodes, their leases, loads and standing; who serves which model.

A node is a key. Its standing (NodeRow) is for life and durable; its lease, offers and load are of
this session and are not. Its states are those of standing.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.standing import CLOSED, aged, fresh_row, offering
from assay_protocol.messages import Heartbeat, Offer, Register


@dataclass(slots=True)
class Node:
    """One node: durable standing, and what its lease says."""

    row: NodeRow
    offers: dict[bytes, Offer] = field(default_factory=dict)
    classes: dict[bytes, str] = field(default_factory=dict)  # of its newest offers, gone or not
    addresses: tuple[str, ...] = ()
    lease_until: int = 0
    running: int = 0
    waiting: int = 0
    free_slots: int = 0
    # By model, since the last heartbeat: tickets given, and receipts booked of whatever was given.
    issued: Counter[bytes] = field(default_factory=Counter)
    ended: Counter[bytes] = field(default_factory=Counter)
    jobs: dict[bytes, int] | None = None  # by model; None: the node does not tell them apart
    wait_ms: dict[bytes, int] = field(default_factory=dict)  # until a model is loaded
    draining: bool = False
    auditing: int = 0
    joined: int = 0  # registrations of anybody until its last one
    device: str = ""  # what it says of itself, like `software`; nothing follows from either
    region: str | None = None  # where it says it is; jobs may ask for it
    software: str = ""
    # What it told of itself was not so: see `lose`. Not durable, and no standing.
    lost: int = 0
    doubted_until: int = 0

    @property
    def key(self) -> bytes:
        return self.row.node

    def present(self, now: int) -> bool:
        return now < self.lease_until

    def serves(self, now: int, model: bytes) -> bool:
        return model in self.offers and self.present(now) and self.row.state not in CLOSED

    @property
    def slots(self) -> int:
        """Answers at once: the offers share them."""
        return max((offer.slots for offer in self.offers.values()), default=0)

    @property
    def load(self) -> int:
        """Its jobs, as far as is known here: what it told last, and tickets and receipts since.

        A receipt may overtake the heartbeat that still counts its job, or the other way round; the
        next heartbeat mends the one job of difference. Receipts of what is not counted any more, of
        which a node may bring hundreds after a time without a session, end nothing (`end`).
        """
        return max(0, self.running + self.waiting + self.issued.total() - self.ended.total())

    def end(self, model: bytes) -> None:
        """A receipt of a job of `model` was booked."""
        if self.load and self.load_of(model):
            self.ended[model] += 1

    def lose(self, policy: Policy, now: int) -> None:
        """A client gave up one of its jobs. Rates, slots and load are a node's own word, and one
        that promises most and answers nobody would be everybody's first choice: so it comes last
        for a while."""
        self.lost += 1
        if self.lost >= policy.lost_max:
            self.lost, self.doubted_until = 0, now + policy.doubt_us

    def load_of(self, model: bytes) -> int:
        """Its jobs of one model; all of them where the node does not tell."""
        if self.jobs is None:
            return self.load
        return max(0, self.jobs.get(model, 0) + self.issued[model] - self.ended[model])

    def wait_us(self, model: bytes) -> int:
        """Microseconds until the node should have loaded `model`."""
        return self.wait_ms.get(model, 0) * 1000


class Registry:
    """All nodes by key, and the present ones by model."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.nodes: dict[bytes, Node] = {}
        self._by_model: dict[bytes, dict[bytes, Node]] = {}
        self._listed: dict[bytes, list[Node]] = {}  # the same by `joined`, to draw from by index
        self._joined = 0

    def restore(self, rows: list[NodeRow]) -> None:
        self.nodes = {row.node: Node(row) for row in rows}

    def get(self, key: bytes) -> Node | None:
        return self.nodes.get(key)

    def serving(self, model: bytes) -> dict[bytes, Node]:
        """Nodes that offer `model`; their leases are the caller's to check."""
        return self._by_model.get(model, {})

    def listed(self, model: bytes) -> list[Node]:
        """The same in a list, the newest registration last; not to be changed."""
        return self._listed.get(model, [])

    def register(
        self,
        now: int,
        key: bytes,
        message: Register,
        lease_until: int,
        withdrawn: Iterable[Offer] = (),
    ) -> Node:
        """Take or renew a lease. The operator of a key is fixed by its first registration.

        `withdrawn`: offers it makes no more and can be audited by all the same.
        """
        node = self.nodes.get(key)
        if node is None:
            node = self.nodes[key] = Node(fresh_row(key, message.operator, now))
        row = aged(self._policy, node.row, now)
        node.row = offering(self._policy, row, message.offers, now)
        self._unlist(node)
        node.offers = {offer.model: offer for offer in (*message.offers, *withdrawn)}
        node.classes = {offer.model: offer.class_id for offer in message.offers}
        node.addresses = message.addresses
        node.device, node.software = message.device, message.software
        node.region = message.region
        node.lease_until, node.draining = lease_until, False
        node.running = node.waiting = 0
        node.issued.clear()
        node.ended.clear()
        node.wait_ms = {}
        node.jobs = {}
        node.free_slots = node.slots
        self._joined += 1
        node.joined = self._joined
        for model in node.offers:
            self._by_model.setdefault(model, {})[key] = node
            self._listed.setdefault(model, []).append(node)
        return node

    def heartbeat(self, node: Node, beat: Heartbeat, lease_until: int) -> None:
        node.running, node.waiting = beat.running, beat.waiting
        node.free_slots, node.draining = min(beat.free_slots, node.slots), beat.draining
        node.lease_until = lease_until
        node.issued.clear()
        node.ended.clear()
        told = beat.models
        node.jobs = None if told is None else {one.model: one.jobs for one in told}
        node.wait_ms = {one.model: one.wait_ms for one in told or ()}

    def leave(self, node: Node) -> None:
        """The lease ends now."""
        node.lease_until = 0
        self._unlist(node)
        node.offers = {}

    def update(self, node: Node, **changes: int | str | bytes) -> NodeRow:
        """Change the standing; the returned row makes it durable."""
        node.row = replace(node.row, **changes)  # type: ignore[arg-type]  # names are NodeRow's
        return node.row

    def _unlist(self, node: Node) -> None:
        for model in node.offers:
            serving, listed = self._by_model[model], self._listed[model]
            del serving[node.key]
            del listed[bisect_left(listed, node.joined, key=_joined)]
            if not serving:
                del self._by_model[model], self._listed[model]


def _joined(node: Node) -> int:
    return node.joined
