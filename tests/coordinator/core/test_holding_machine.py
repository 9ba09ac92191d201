"""A node with a record, its owner's purse and strangers' jobs, in any order and of any size: what
is held stays for its time, and what speaks for the node is what it has in escrow of late."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from assay_coordinator.core.events import Tick
from assay_protocol.messages import CloseEpoch
from assay_protocol.signing import Identity
from coordinator.core.coordinator_checks import check_all, check_held, check_restart
from coordinator.core.coordinator_world import OPERATOR, POLICY, SECOND, World, identity, node

CLIENTS = identity(50), identity(51)
HELD_US, VOUCHING_US = 300 * SECOND, 100 * SECOND
RARELY = replace(POLICY, probation_audits=0, audit_bps_min=200, gain_bps=2_000, open_tickets_max=8)


class Holding(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.nodes = node(10), node(11)
        policy = replace(RARELY, holdback_us=HELD_US, vouching_us=VOUCHING_US)
        self.world = World(policy, self.nodes)
        for client in CLIENTS:
            self.world.grant(client.public_key)

    @rule(
        client=st.sampled_from(CLIENTS),
        count=st.integers(1, 6),
        size=st.sampled_from([1, 16, 90]),
        verify=st.sampled_from(["sample", "sample", "none"]),
    )
    def buy(self, client: Identity, count: int, size: int, verify: str) -> None:
        for _ in range(count):
            self.world.run_job(client, max_tokens=size, verify=verify, only=(self.nodes[0].key,))

    @rule(seconds=st.sampled_from([1, 30, 100, 290, 310]))
    def wait(self, seconds: int) -> None:
        self.world.now += seconds * SECOND
        self._join()

    @rule()
    def close_epoch(self) -> None:
        self.world.call(OPERATOR.public_key, CloseEpoch())

    @rule(up=st.booleans())
    def chain(self, up: bool) -> None:
        self.world.chain_up = up
        self.world.mine()

    @rule()
    def crash(self) -> None:
        check_restart(self.world)
        self._join()

    def _join(self) -> None:
        self.world.handle(Tick())
        for one in self.nodes:
            self.world.join(one)

    @invariant()
    def it_is_held(self) -> None:
        check_held(self.world)

    def teardown(self) -> None:
        self.world.chain_up = True
        self.world.mine()
        self.world.settle()
        check_all(self.world)
        for _ in range(self.world.policy.holdback_epochs + 1):
            self.close_epoch()
        for one in self.nodes:
            assert self.world.balance("escrow", one.key) == 0, "paid in bounded time"


Holding.TestCase.settings = settings(max_examples=20, stateful_step_count=25)
TestHolding = Holding.TestCase
