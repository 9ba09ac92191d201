"""The coordinator's anchor on a chain that others mine, and epochs that the contract voids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import Engine, create_engine

from assay_contracts.adapters.follower import Change
from assay_contracts.adapters.follower_core import Mark
from assay_contracts.adapters.outbox import METADATA
from assay_contracts.adapters.outbox_core import Patience
from assay_contracts.artefact import load
from assay_contracts.calls import topic
from assay_contracts.credit import ledger_abi
from assay_contracts.deploy.ledger import CreditLedgerClient, Deployment
from assay_contracts.local.genesis import Genesis
from assay_contracts.records import Log
from assay_coordinator.adapters.anchor import Anchor
from assay_coordinator.adapters.check import check_books
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.void_watch import VoidWatch
from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.events import (
    EpochPosted,
    EpochVoided,
    PostEpoch,
    PostRound,
    RoundMined,
    Save,
)
from assay_coordinator.core.policy import Policy
from assay_protocol.lottery import AnchorNote
from assay_protocol.signing import Identity
from contracts.rpc_node import RpcNode
from contracts.test_outbox import KEY, WALLET

ROUND = PostRound(number=1, note=b"assay round of a test", chain=1, links=16, anchor=b"\x05" * 32)


def epoch(number: int) -> PostEpoch:
    root = bytes([number]) * 32
    return PostEpoch(number, root, 100 * number, 3, 2, bytes(32), bytes(32))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RpcNode]:
    (tmp_path / "node").mkdir()
    made = RpcNode(tmp_path / "node", Genesis(WALLET.address))
    CreditLedgerClient(made.chain, KEY).deploy()
    yield made
    made.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path / 'coordinator.db'}")
    METADATA.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def anchor(node: RpcNode, engine: Engine) -> Anchor:
    ledger = CreditLedgerClient(node.chain, KEY).address
    deployment = Deployment(node.chain_id, ledger, WALLET.address)
    chain = node.rpc(chain_id=node.chain_id)
    return Anchor(chain, deployment, WALLET, engine, Patience(confirmations=2, has_pool=True))


async def until(anchor: Anchor, node: RpcNode) -> None:
    for _ in range(40):
        await anchor.outbox.pump()
        if not anchor.outbox.pending:
            return
        node.mine()
    raise AssertionError("it never ends")


async def test_a_round_is_drawn_by_a_block_after_its_root(anchor: Anchor, node: RpcNode) -> None:
    await anchor.submit(ROUND)
    await until(anchor, node)
    mined = await anchor.settled(ROUND)
    assert isinstance(mined, RoundMined)
    note = node.chain.transaction(mined.posted)
    anchored = node.chain.transaction(mined.anchored)
    deciding = node.chain.block(mined.block)
    assert note is not None
    assert anchored is not None
    assert deciding is not None
    assert (note.block, deciding.hash) == (mined.block - 1, mined.block_hash)
    assert AnchorNote.decode(anchored.data).lag == 1
    assert node.chain.head_block().number >= mined.block + 2


async def test_epochs_wait_for_one_another_and_rounds_for_none(
    anchor: Anchor, node: RpcNode
) -> None:
    for effect in (epoch(1), epoch(2), ROUND):
        await anchor.submit(effect)
    await anchor.outbox.pump()
    assert len(node.pool) == 3, "an epoch, the anchor and the round"
    await until(anchor, node)
    assert await anchor.settled(epoch(2)) == EpochPosted(2)
    assert await anchor.newest_posted() == 2


async def test_what_is_submitted_while_the_chain_is_down_is_durable(
    anchor: Anchor, node: RpcNode
) -> None:
    import httpx

    node.fault = lambda asked: httpx.Response(503)
    with trio.fail_after(20):
        await anchor.submit(epoch(1))
        await anchor.submit(ROUND)
    node.fault = lambda asked: None
    await until(anchor, node)
    assert await anchor.settled(epoch(1)) == EpochPosted(1)


async def test_an_epoch_posted_with_another_root_is_an_alarm(
    node: RpcNode, anchor: Anchor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    alarms: list[str] = []
    monkeypatch.setattr(anchor.outbox, "_on_alarm", lambda alarm: alarms.append(alarm.code))
    other = anchor._epoch(replace(epoch(1), root=b"\x99" * 32))
    node.chain.send(KEY, other.call.to, other.call.data)
    await anchor.submit(epoch(1))
    await anchor.outbox.pump()
    assert alarms == ["chain_mismatch"]
    assert node.pool == {}


def voided(number: int) -> Log:
    name = topic(ledger_abi.CONTRACT, "EpochVoided")
    data = (0).to_bytes(32) + (0).to_bytes(32)
    return Log(bytes(20), (name, number.to_bytes(32), bytes(32)), data)


async def test_a_voided_epoch_is_told_and_told_back(anchor: Anchor) -> None:
    told: list[EpochVoided] = []
    watch = VoidWatch(anchor.chain, anchor.deployment.address, anchor.newest_posted, told.append)
    for applied in (True, False):
        await watch.changed(Change(applied, Mark(9, bytes(32)), (voided(4),)))
    other = Log(bytes(20), (topic(ledger_abi.CONTRACT, "EpochPosted"),), b"")
    await watch.changed(Change(True, Mark(10, bytes(32)), (other,)))
    assert told == [EpochVoided(4, True), EpochVoided(4, False)]
    assert "EpochVoided" in load(ledger_abi.CONTRACT).events.values()


async def test_what_was_voided_while_nobody_looked_is_seen_at_the_start(
    anchor: Anchor, node: RpcNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[EpochVoided] = []
    watch = VoidWatch(anchor.chain, anchor.deployment.address, anchor.newest_posted, told.append)
    for number in (1, 2, 3):
        await anchor.submit(epoch(number))
    await until(anchor, node)
    await watch.look_back()
    assert told == []
    real = anchor.chain.call

    async def call(to: bytes, data: bytes, **options: object) -> bytes:
        """The ledger after epoch 2 was proven false."""
        if data == ledger_abi.head_call():
            return (1).to_bytes(32)
        return await real(to, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(anchor.chain, "call", call)
    await watch.look_back()
    assert told == [EpochVoided(2, True)]


async def test_a_chain_that_went_back_is_not_taken_for_a_voided_epoch(
    anchor: Anchor, node: RpcNode
) -> None:
    told: list[EpochVoided] = []
    watch = VoidWatch(anchor.chain, anchor.deployment.address, anchor.newest_posted, told.append)
    for number in (1, 2):
        await anchor.submit(epoch(number))
    # The ledger is not among the node's own blocks: it stands on the chain they are built upon.
    await anchor.outbox.pump()
    node.mine()
    await watch.look_back()
    assert told == []


def test_the_books_say_what_was_voided(tmp_path: Path) -> None:
    identity = Identity(b"\x01" * 32)
    core = Coordinator(Policy(), {}, identity, bytes(32))
    store = Store(f"sqlite:///{tmp_path / 'coordinator.db'}")
    for standing, findings in ((True, 1), (False, 0)):
        effects = core.handle(7, EpochVoided(3, standing))
        store.commit([effect.row for effect in effects if isinstance(effect, Save)])
        found = check_books(f"sqlite:///{tmp_path / 'coordinator.db'}")
        assert len([line for line in found if "epoch 3" in line and "voided" in line]) == findings
    store.close()
