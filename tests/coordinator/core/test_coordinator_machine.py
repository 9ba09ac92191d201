"""Anything that peers can do, in any order: the invariants hold after every step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from assay_coordinator.core.events import (
    EpochPosted,
    Received,
    RoundMined,
    Save,
    SplitsDecided,
    Tick,
)
from assay_coordinator.core.records import JobRow
from assay_protocol import messages as m
from assay_protocol.signing import seal
from coordinator.core.coordinator_checks import (
    check_all,
    check_all_ended,
    check_honest,
    check_restart,
)
from coordinator.core.coordinator_world import (
    MODEL,
    OPERATOR,
    POLICY,
    SECOND,
    Issued,
    ScriptedNode,
    World,
    heartbeat,
    identity,
    node,
    other_receipt,
)

CLIENTS = [identity(50), identity(51), identity(10)]  # the last one is a node, too
STRANGER = identity(99)
CHEATS: list[dict[str, Any]] = [
    {"wrong": 0.35},
    {"lies": True},
    {"copies": True},
    {"wrong": 0.35, "lies": True},
    {"spites": True},
]
TREASURER = identity(60).public_key
pick = st.integers(0, 10**6)
shares = st.builds(
    lambda model, listed: m.ModelSplit(model=model, shares=tuple(listed)),
    st.sampled_from([MODEL, bytes(32)]),
    st.lists(
        st.builds(
            lambda key, role, bps: m.Share(account=key, role=role, bps=bps),
            st.sampled_from([identity(61).public_key, identity(10).public_key]),
            st.integers(1, 4),  # the last is none that shares
            st.sampled_from([1, 999, 2_000]),
        ),
        min_size=1,
        max_size=4,
    ),
)


class Network(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        policy = replace(POLICY, round_receipts=3, round_us=20 * SECOND)
        policy = replace(policy, holdback_us=61 * SECOND, vouching_us=31 * SECOND)
        self.world = World(replace(policy, treasury=TREASURER, treasury_reserve=50))
        self.answers: dict[bytes, m.ReceiptBooked] = {}
        self.notices: list[tuple[bytes, object]] = []  # delivered ones, to be sent again

    @initialize(cheat=st.sampled_from(CHEATS), joined=st.sampled_from([4, 4, 4, 3, 2, 0]))
    def start(self, cheat: dict[str, Any], joined: int) -> None:
        self.cheat = node(13, **cheat)
        self.nodes = [node(10), node(11), node(12), self.cheat]
        self.world.nodes = {one.key: one for one in self.nodes}
        for one in self.nodes[:joined]:
            self.world.join(one)
        self.world.grant(CLIENTS[0].public_key, 10**7)

    # ---- choosing ----

    def held(self, index: int) -> Issued | None:
        all_of_them = list(self.world.issued.values())
        return all_of_them[-1 - index % min(8, len(all_of_them))] if all_of_them else None

    def node(self, index: int) -> ScriptedNode:
        return self.nodes[index % len(self.nodes)]

    # ---- nodes and clients ----

    @rule(index=pick)
    def register(self, index: int) -> None:
        answer = self.world.join(self.node(index))
        if isinstance(answer, m.Error):
            assert answer.code == "convicted"
            assert self.node(index) is self.cheat

    @rule(index=pick)
    def lose(self, index: int) -> None:
        self.world.lose(self.node(index))

    @rule(index=pick, draining=st.booleans(), running=st.sampled_from([0, 1, 2**31]))
    def beat(self, index: int, draining: bool, running: int) -> None:
        self.world.call(self.node(index).key, heartbeat(draining=draining, running=running))

    @rule(
        client=st.integers(0, 2),
        max_tokens=st.sampled_from([1, 16, 40, 200]),
        only=pick,
        verify=st.sampled_from([None, "none", "sample", "now", "quorum"]),
    )
    def submit(self, client: int, max_tokens: int, only: int, verify: str | None) -> None:
        some = (self.node(only).key,) if only % 3 == 0 else ()
        self.world.ask(CLIENTS[client], max_tokens=max_tokens, only=some, verify=verify)

    @rule(
        client=st.integers(0, 2),
        count=st.sampled_from([1, 4, 8]),
        size=st.sampled_from([1, 16, 40]),
        through=st.booleans(),
    )
    def work(self, client: int, count: int, size: int, through: bool) -> None:
        """The common course of things, so that states further on are reached."""
        for _ in range(count):
            held = self.world.ask(CLIENTS[client], max_tokens=size)
            if isinstance(held, Issued):
                self.world.serve(held)
                self.answers[held.ticket.ticket] = self.world.hand_in(held)
        if through:
            self.world.settle()

    @rule(index=pick, count=st.integers(0, 40))
    def resume(self, index: int, count: int) -> None:
        held = self.held(index)
        if held is None:
            return
        point = m.ResumePoint(ticket=held.ticket.ticket, count=count)
        again = self.world.ask(held.client, held.nonce, n_in=held.ticket.n_in + count, resume=point)
        if isinstance(again, Issued):
            assert again.ticket.seed_ticket == held.ticket.seed_ticket
            assert again.ticket.start == held.ticket.start + count

    # ---- receipts ----

    @rule(index=pick, by_client=st.booleans(), part=st.sampled_from([1.0, 1.0, 0.5, 0.0]))
    def hand_in(self, index: int, by_client: bool, part: float) -> None:
        held = self.held(index)
        if held is None:
            return
        if not held.receipt:
            self.world.serve(held, int(held.ticket.max_tokens * part))
        answer = self.world.hand_in(held, by_client)
        if isinstance(answer, m.ReceiptBooked):
            first = self.answers.setdefault(held.ticket.ticket, answer)
            assert answer == first, "L2: the same receipt, the same answer"

    @rule(index=pick, kind=st.sampled_from(["signature", "ticket", "tokens", "sender", "ack"]))
    def mis_hand_in(self, index: int, kind: str) -> None:
        """S1, L3: nothing of this moves a row."""
        held = self.held(index)
        if held is None or not held.receipt:
            return
        peer, receipt, ack = held.ticket.node, held.receipt, held.ack
        signer = self.world.nodes[held.ticket.node].me
        if kind == "signature":
            receipt = other_receipt(held, STRANGER)
        elif kind == "ticket":
            receipt = other_receipt(held, signer, ticket=bytes(16))
        elif kind == "tokens":
            receipt = other_receipt(held, signer, n_out=held.ticket.max_tokens + 1)
        elif kind == "sender":
            peer = STRANGER.public_key
        elif self.world.job(held).state == "issued":
            ack = seal(STRANGER, m.Ack(ticket=held.ticket.ticket, count=1, output_hash=bytes(32)))
        else:
            return
        message = m.SubmitReceipt(receipt=receipt, ack=ack)
        effects = self.world.handle(Received(peer, 7, message))
        assert not [e for e in effects if isinstance(e, Save)]
        assert isinstance(self.world.call(peer, message), m.Error)

    @rule(index=pick)
    def equivocate(self, index: int) -> None:
        held = self.held(index)
        if held is None or held.ticket.node != self.cheat.key or not held.receipt:
            return
        receipt = other_receipt(held, self.cheat.me)
        self.world.call(held.client.public_key, m.SubmitReceipt(receipt=receipt))

    @rule(index=pick, mine=st.booleans())
    def abandon(self, index: int, mine: bool) -> None:
        held = self.held(index)
        if held is not None:
            peer = held.client.public_key if mine else STRANGER.public_key
            answer = self.world.call(peer, m.AbandonJob(ticket=held.ticket.ticket))
            assert isinstance(answer, m.Done) or answer.code == "unknown_ticket"

    # ---- audits ----

    @precondition(lambda self: self.world.wire)
    @rule(lost=st.sampled_from([False, False, False, True]), again=st.booleans())
    def deliver(self, lost: bool, again: bool) -> None:
        if lost:
            self.world.wire.popleft()
            return
        peer, message = self.world.wire[0]
        self.world.deliver()
        self.notices = [*self.notices[-5:], (peer, message)]
        if again:
            for answer in self.world.nodes[peer].receive(message):
                self.world.notice(peer, answer)

    @rule()
    def deliver_all(self) -> None:
        self.world.settle()

    @rule(index=pick, sender=pick, kind=st.integers(0, 5))
    def stray(self, index: int, sender: int, kind: int) -> None:
        """A notice of an audit from whom it is not asked, or not now."""
        audits = list(self.world.coordinator.audits._by_audit) or [bytes(16)]
        audit, peer = audits[index % len(audits)], self.node(sender).key
        case = self.world.coordinator.audits._by_audit.get(audit)
        if case is not None and case.replay is not None:
            involved = {case.replay.auditor, case.job.ticket.node}
            if peer in involved and peer != self.cheat.key:
                peer = STRANGER.public_key
        junk: list[object] = [
            m.AuditAccept(audit=audit, box_key=bytes(32)),
            m.Transcript(audit=audit, sealed=bytes(48)),
            m.AuditCommit(audit=audit, commitment=bytes(32)),
            m.LeavesOpened(audit=audit, hashes=bytes(31), logits=bytes(3)),
            m.AuditReveal(
                audit=audit, nonce=bytes(32), mismatches=(9,), margins=(), logits=b"abc", fault="no"
            ),
            m.AuditDecline(audit=audit, code="busy"),
        ]
        self.world.notice(peer, junk[kind])

    # ---- time, epochs, the operator, crashes ----

    @rule(seconds=st.sampled_from([0.25, 1, 5, 31, 61, 300, 901, 4_300]))
    def wait(self, seconds: float) -> None:
        self.world.now += round(seconds * SECOND)
        self.world.handle(Tick())

    @rule(client=st.integers(0, 2))
    def grant(self, client: int) -> None:
        self.world.grant(CLIENTS[client].public_key, 100_000)

    @rule(allowed=st.booleans())
    def close_epoch(self, allowed: bool) -> None:
        peer = OPERATOR if allowed else STRANGER
        answer = self.world.call(peer.public_key, m.CloseEpoch())
        assert isinstance(answer, m.EpochClosed if allowed else m.Error)

    @rule(epoch=st.integers(0, 4))
    def posted(self, epoch: int) -> None:
        self.world.handle(EpochPosted(epoch))

    @rule(splits=st.lists(shares, max_size=2, unique_by=lambda one: one.model))
    def decide_splits(self, splits: list[m.ModelSplit]) -> None:
        """They hold from the next epoch on, whatever happens until then."""
        before = self.world.coordinator.epochs.splits
        self.world.handle(SplitsDecided(tuple(splits)))
        assert self.world.coordinator.epochs.splits is before

    @rule(up=st.booleans())
    def chain(self, up: bool) -> None:
        self.world.chain_up = up
        self.world.mine()

    @rule(number=st.integers(0, 9))
    def mined(self, number: int) -> None:
        """Rounds that are drawn already, or that there are none of, are drawn by nothing."""
        closed = self.world.coordinator.lottery._closed
        if number not in closed:
            mined = RoundMined(number, bytes(32), bytes(32), 1, bytes(32))
            assert self.world.handle(mined) == []

    @rule()
    def crash(self) -> None:
        check_restart(self.world)

    # ---- what must hold ----

    @invariant()
    def everything_holds(self) -> None:
        check_all(self.world)
        check_honest(self.world)

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        world = self.world
        world.chain_up = True
        for _ in range(6):  # rounds are drawn, audits end, tickets expire, epochs release held pay
            for job in world.store.rows(JobRow):
                assert job.state != "drawn" or job.ticket in world.coordinator.audits.cases
            world.now += 4_300 * SECOND
            world.handle(Tick())
        check_all(world)
        check_all_ended(world)


Network.TestCase.settings = settings(max_examples=25, stateful_step_count=40)
TestNetwork = Network.TestCase
