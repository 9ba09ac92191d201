"""A whole network on one machine under a virtual clock: the production cores, and nothing else.

Coordinator, nodes and clients are the classes that production runs; this interprets their effects
over a heap of events. Time is microseconds and moves only from event to event, so hours take
seconds. Everything random comes from `seed`: one seed, one history.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.rules import SignedPolicy
from assay_node.core.sealing import Secrets
from assay_protocol.signing import Identity
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.honest import Honest
from assay_simnet.language import Language
from assay_simnet.parties.client import ClientParty
from assay_simnet.parties.coordinator import CoordinatorParty
from assay_simnet.parties.node import NodeParty
from assay_simnet.setting import (
    EVENTS_MAX,
    GRANT,
    LISTED,
    MODEL,
    POLICY,
    SECOND,
    START,
    TICK_US,
)


class World:
    """One network. Add parties, then `run`."""

    def __init__(
        self, seed: int, policy: Policy | None = None, moderation: SignedPolicy | None = None
    ) -> None:
        self.now = START
        self._secrets = Secrets(hashlib.sha256(b"world" + seed.to_bytes(8, "big")).digest())
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.language = Language(MODEL)
        self.nodes: dict[bytes, NodeParty] = {}
        self.clients: dict[bytes, ClientParty] = {}
        self.coordinator = CoordinatorParty(self, policy or POLICY, LISTED, moderation)
        self.every(TICK_US, self.coordinator.tick)

    # ---- parties ----

    def identity(self) -> Identity:
        """A key nobody had before."""
        return Identity(self._secrets.next())

    def secret(self) -> bytes:
        """32 bytes nobody had before."""
        return self._secrets.next()

    def number(self) -> int:
        """A number nobody had before."""
        self._count += 1
        return self._count

    def below(self, bound: int) -> int:
        """A number in [0, bound)."""
        return self._secrets.below(bound)

    def add_node(
        self,
        behaviour: Behaviour | None = None,
        *,
        verified: int = 0,
        class_id: str = "scripted/F",
        operator: bytes | None = None,
    ) -> NodeParty:
        """A node that joins now. `verified`: audits it passed in an earlier life, if any."""
        node = NodeParty(self, behaviour or Honest(), class_id, operator)
        self.nodes[node.key] = node
        if verified:
            self.coordinator.remember(node.key, node.operator, verified)
        node.join()
        self.every(TICK_US, node.tick)
        return node

    def add_client(self) -> ClientParty:
        """A client with all the money it may need."""
        client = ClientParty(self, self.identity())
        self.clients[client.key] = client
        self.coordinator.grant(client.key, GRANT)
        return client

    # ---- time ----

    def after(self, delay_us: int, call: Callable[[], None]) -> None:
        """Do it so much later; what is due at the same time happens in the order it was asked."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_us, self._count, call))

    def every(self, period_us: int, call: Callable[[], None]) -> None:
        """Do it again and again, first after one period."""

        def again() -> None:
            call()
            self.after(period_us, again)

        self.after(period_us, again)

    def run(self, done: Callable[[], bool], seconds_max: float = 3_600 * 24.0) -> bool:
        """Let time pass until `done`; False if that is not so after `seconds_max`."""
        end = self.now + round(seconds_max * SECOND)
        while not done():
            assert self._count < EVENTS_MAX, "events never end"
            at, _, call = heapq.heappop(self._events)
            if at > end:
                heapq.heappush(self._events, (at, 0, call))
                self.now = end
                return False
            self.now = at
            call()
        return True

    def settle(self, seconds_max: float = 3_600.0) -> bool:
        """Let time pass until no job waits for a draw or a verdict."""
        return self.run(lambda: not self.coordinator.undecided(), seconds_max)

    def idle(self, seconds: float) -> None:
        """Let time pass."""
        self.run(lambda: False, seconds)


def operators(nodes: Sequence[NodeParty]) -> set[bytes]:
    """Whose they are."""
    return {node.operator for node in nodes}
