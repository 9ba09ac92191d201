"""A network with a history, for pages to show: everything in it was made by production code.

The coordinator's core ran it, with real signatures, audits, an inquiry, convictions and epochs;
its rows are in a real database and its epochs on a real local chain. Only what a model says and the
passing of time are scripted (coordinator_world.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from assay_coordinator.adapters.anchor import Anchor, local_anchor
from assay_coordinator.adapters.credit import Bundles
from assay_coordinator.adapters.store import Store
from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.events import Effect, PostEpoch, Save
from assay_coordinator.core.records import Row
from assay_coordinator.dashboard.subject import CardFacts, Chain, Subject
from assay_protocol import messages as m
from assay_protocol.streams import Times
from coordinator.core.coordinator_world import (
    COORDINATOR,
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

CLIENTS: Final = (identity(50), identity(51))
BEGIN: Final = 1_780_000_000 * SECOND  # a day in 2026
DEVICES: Final = ("NVIDIA GeForce RTX 4090", "NVIDIA RTX A6000", "Apple M3 Max", "cpu")


class LivedIn(World):
    """A world whose rows also go into `tables`, and whose epochs onto the chain of `anchor`."""

    def __init__(self, tables: Store, anchor: Anchor) -> None:
        self.written, self.anchor = tables, anchor
        self.honest = [node(10), node(11), node(12), node(13)]
        self.cheat, self.twofaced, self.suspect = node(20), node(21), node(22)
        self.gone, self.fresh = node(30), node(31)
        self._draw = random.Random(7)
        self._unwritten: list[Row] = []
        super().__init__(POLICY)

    def _start(self) -> Coordinator:
        self.now = max(self.now, BEGIN)
        return super()._start()

    def carry_out(self, effects: list[Effect]) -> None:
        self._unwritten += [effect.row for effect in effects if isinstance(effect, Save)]
        super().carry_out(effects)
        for effect in effects:
            if isinstance(effect, PostEpoch):
                self.write()
                mined = trio.run(self.anchor.post, effect)
                self.carry_out(self.coordinator.handle(self.now, mined))

    def write(self) -> None:
        """Commit what happened since the last time, at once: a disk is slow."""
        rows, self._unwritten = self._unwritten, []
        self.written.commit(rows)

    def enter(self, one: ScriptedNode, number: int) -> None:
        """The node registers, with hardware of its own."""
        self.nodes[one.key] = one
        offer = m.Offer(
            model=MODEL,
            class_id="pseudo",
            slots=(8, 16, 4, 1)[number % 4],
            context=4_096,
            prefill_rate=(4_100_000, 2_600_000, 900_000, 70_000)[number % 4],
            decode_rate=(92_400, 61_000, 38_500, 7_900)[number % 4],
        )
        asked = m.Register(
            operator=one.operator,
            offers=(offer,),
            addresses=("/ip4/192.0.2.7/tcp/4001",),
            software="assay 0.1.0",
            device=DEVICES[number % 4],
        )
        assert isinstance(self.call(one.key, asked), m.Registered)

    def live(self) -> None:
        """Hours of work; cheats are found out; three epochs close."""
        for number, one in enumerate((*self.honest, self.cheat, self.twofaced, self.suspect)):
            self.enter(one, number)
        self.enter(self.gone, 5)
        for client in CLIENTS:
            self.grant(client.public_key)
        self.work(90, 40)
        self.lose(self.gone)
        del self.nodes[self.gone.key]
        self.close_epoch()
        self.cheat.wrong = 0.5
        self.work(50, 60)
        self.equivocate()
        self.close_epoch()
        self.enter(self.fresh, 2)
        self.work(40, 60)
        self.suspect.loses = True
        self.ask_and_serve(CLIENTS[0], max_tokens=64, verify="now", only=(self.suspect.key,))
        self.suspect.loses = False
        self.work(20, 20)
        self.close_epoch()
        self.work(14, 10)
        self.ask_and_serve(CLIENTS[0], max_tokens=64, only=(self.suspect.key,))
        self.inquire(self.suspect)
        self.work(3, 10)
        for number, one in enumerate(self.honest):
            self.call(one.key, heartbeat(running=number, free_slots=max(1, 8 - number)))
        self.write()

    def work(self, jobs: int, seconds: float) -> None:
        """So many jobs, one every so many seconds, by whom the scheduler picks."""
        for number in range(jobs):
            tokens = self._draw.choice((24, 64, 96, 160))
            verify = self._draw.choice((None, None, None, "now", "none"))
            wanted = self._draw.choice(list(self.nodes.values())).key
            client = CLIENTS[number % 2]
            self.ask_and_serve(client, max_tokens=tokens, verify=verify, only=(wanted,))
            self.pass_time(self._draw.uniform(0.2, 1.8) * seconds, step=15)

    def ask_and_serve(self, client: Any, **changes: Any) -> None:
        held = self.ask(client, **changes)
        if isinstance(held, m.Error):
            return  # it was banned, or is gone
        self.timed(held)
        self.serve(held)
        self.hand_in(held)
        self.settle()

    def timed(self, held: Issued) -> None:
        """What its node will say of when: a time to the first token, then its rate."""
        server = self.nodes[held.ticket.node]
        rate = self.coordinator.registry.nodes[server.key].offers[MODEL].decode_rate
        first = self.now + self._draw.randrange(90_000, 900_000)
        server.times = Times(self.now, first, first + held.ticket.max_tokens * 10**9 // rate)

    def equivocate(self) -> None:
        """One node signs two receipts for one ticket."""
        held = self.ask(CLIENTS[0], only=(self.twofaced.key,))
        assert not isinstance(held, m.Error), held
        self.serve(held)
        self.hand_in(held)
        held.receipt = other_receipt(held, self.twofaced.me)
        self.hand_in(held)
        self.settle()

    def inquire(self, one: ScriptedNode) -> None:
        """An alarm that turns out to be none: its unpaid jobs are audited, then it rests."""
        core = self.coordinator
        known, inquiries = core.registry.nodes[one.key], core.settlement.inquiries
        self.carry_out(inquiries.begin(self.now, known, "alarm"))
        self.settle()
        if inquiries.over(known):  # nothing was unpaid: as settlement.py goes on then
            self.carry_out(inquiries.conclude(self.now, known))
        assert self.row(one).state == "suspended"

    @contextmanager
    def anchor_down(self) -> Iterator[None]:
        """Rounds are closed and not drawn in here."""
        self.chain_up = False
        yield
        self.chain_up = True
        self.mine()

    def close_epoch(self) -> None:
        self.call(OPERATOR.public_key, m.CloseEpoch())

    def subject(self, faults: Sequence[str] = ()) -> Subject:
        """What the dashboard sees of it, at the moment it stopped."""
        deployment = self.anchor.deployment
        bundles = Bundles(self.written, deployment.chain_id, deployment.address)
        return Subject(
            core=lambda: self.coordinator,
            engine=self.written.engine,
            clock=lambda: self.now,
            faults=lambda: faults,
            bundle=partial(trio.to_thread.run_sync, bundles.bundle),
            key=COORDINATOR.public_key,
            chain=Chain(chain_id=deployment.chain_id, ledger=deployment.address, local=True),
            cards={
                MODEL: CardFacts(
                    license="apache-2.0",
                    architecture="llama",
                    quantization="Q4_1",
                    size_bytes=98_000_000,
                    source="example/pseudo/pseudo.gguf",
                )
            },
        )


@contextmanager
def lived_in(folder: Path) -> Iterator[LivedIn]:
    """One that has lived. Takes seconds."""
    store = Store(f"sqlite:///{folder / 'coordinator.db'}")
    anchor = local_anchor(folder / "chain.db", COORDINATOR, store.engine)
    try:
        world = LivedIn(store, anchor)
        world.live()
        yield world
    finally:
        anchor.close()
        store.close()
