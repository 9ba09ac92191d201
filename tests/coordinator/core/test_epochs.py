"""Prices are divided exactly, statements grow as they would be built, and rules hold from epoch to
epoch whatever happens in between."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.epochs import Earning, Epochs, StoredEpochs
from assay_coordinator.core.events import Effect, PostEpoch, Save, SplitsDecided
from assay_coordinator.core.ledger import MINT, TREASURY, Ledger, Purse
from assay_coordinator.core.records import LeavesRow, LineRow, PostingRow, PricingRow, Row
from assay_coordinator.core.statements import Statements
from assay_protocol import messages as m
from assay_protocol.codec import decode_as
from assay_protocol.credit_tree import CreditLine, receipts_root
from assay_protocol.errors import ProtocolError
from assay_protocol.leaf_file import LeafFile
from assay_protocol.splits import ADAPTER, AUDITOR, COMPUTE, DATA, PUBLISHER, Splits
from assay_protocol.splits import TREASURY as TREASURER
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import MODEL, POLICY, World, identity, node

CLIENT, AUTHOR, PURSER = identity(50), identity(61).public_key, identity(60).public_key
accounts = st.binary(min_size=1, max_size=1).map(lambda byte: byte * 32)
shares = st.lists(
    st.builds(
        lambda account, role, bps: m.Share(account=account, role=role, bps=bps),
        accounts,
        st.sampled_from([PUBLISHER, ADAPTER, DATA]),
        st.integers(1, 500),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda share: (share.account, share.role),
)


def split(*listed: m.Share, model: bytes = MODEL) -> m.ModelSplit:
    return m.ModelSplit(model=model, shares=listed)


def share(role: int = PUBLISHER, bps: int = 1_000, account: bytes = AUTHOR) -> m.Share:
    return m.Share(account=account, role=role, bps=bps)


@given(shares, st.integers(0, 10_000), st.integers(0, 2**62))
def test_a_price_is_divided_without_loss_and_each_part_is_a_floor(
    listed: list[m.Share], fee_bps: int, price: int
) -> None:
    splits = Splits(m.Pricing(fee_bps=fee_bps, splits=(split(*listed),)))
    parts = splits.divide(MODEL, price)
    assert parts.node + parts.treasury + sum(part.amount for part in parts.others) == price
    rest = price - price * fee_bps // 10_000
    given_bps = sum(one.bps for one in listed)
    assert 0 <= rest * (10_000 - given_bps) - parts.node * 10_000 < 10_000
    for one, part in zip(listed, parts.others, strict=True):
        assert (part.account, part.role) == (one.account, one.role)
        assert 0 <= rest * one.bps - part.amount * 10_000 < 10_000
    rounding = parts.treasury - price * fee_bps // 10_000
    assert 0 <= rounding <= len(listed), "each floor leaves less than one"
    assert splits.divide(bytes(32), price).others == ()


@given(
    st.lists(
        st.tuples(accounts, st.integers(0, 5), st.binary(min_size=16, max_size=16), st.integers(1)),
        max_size=60,
    )
)
def test_statements_grow_into_the_trees_of_their_lines(
    lines: list[tuple[bytes, int, bytes, int]],
) -> None:
    grown = Statements()
    booked: dict[tuple[bytes, int], list[CreditLine]] = {}
    for account, role, ref, amount in lines:
        amount %= 2**90
        mine = booked.setdefault((account, role), [])
        assert grown.add(account, role, "job", ref, bytes(32), amount) == len(mine)
        mine.append(CreditLine("job", ref, bytes(32), amount))
    assert grown.summary() == {key: receipts_root(mine) for key, mine in booked.items()}
    assert grown.jobs == sum(len(mine) for (_, role), mine in booked.items() if role == COMPUTE)


def test_statements_are_not_made_from_tables_with_a_gap() -> None:
    rows = [LineRow(1, AUTHOR, 0, n, "job", bytes([n]) * 16, bytes(32), 5) for n in range(3)]
    assert Statements.of(rows).root(AUTHOR, 0)[1] == 15
    with pytest.raises(AssertionError, match="a line is missing"):
        Statements.of(rows[1:])


def world_of(**changes: object) -> World:
    policy = replace(POLICY, fee_bps=1_000, **changes)  # type: ignore[arg-type]
    return World(policy, [node(10), node(11), node(12)])


def work(world: World) -> None:
    """A job from beginning to end; after a crash the nodes come back first."""
    for one in list(world.nodes.values()):
        world.join(one)
    world.run_job(CLIENT)


def leaves_of(world: World, epoch: int) -> dict[tuple[bytes, int], int]:
    [row] = [row for row in world.store.rows(LeavesRow) if row.epoch == epoch]
    return {(leaf.account, leaf.role): leaf.cumulative for leaf in LeafFile(row.data).leaves()}


def close(world: World) -> m.EpochClosed:
    closed = world.call(next(iter(world.policy.operators)), m.CloseEpoch())
    assert isinstance(closed, m.EpochClosed)
    return closed


def test_shares_begin_with_the_next_epoch_and_survive_a_crash() -> None:
    world = world_of()
    world.grant(CLIENT.public_key)
    work(world)
    world.handle(SplitsDecided((split(share(bps=2_000), share(ADAPTER, 500)),)))
    check_restart(world)
    work(world)
    close(world)
    assert not any(role in (PUBLISHER, ADAPTER) for _, role in leaves_of(world, 1))
    work(world)
    check_restart(world)
    close(world)
    check_all(world)
    paid = leaves_of(world, 2)
    charged = [p.amount for p in world.store.rows(PostingRow) if p.reason == "charge"][-1]
    rest = charged - charged // 10
    assert paid[AUTHOR, PUBLISHER] == rest * 2_000 // 10_000
    assert paid[AUTHOR, ADAPTER] == rest * 500 // 10_000
    assert world.balance("earned", AUTHOR) == paid[AUTHOR, PUBLISHER] + paid[AUTHOR, ADAPTER]
    assert [key for key in paid if key[1] == AUDITOR], "auditors earn in a role of their own"
    [first, second] = sorted(world.store.rows(PricingRow), key=lambda row: row.epoch)
    assert (first.epoch, second.epoch) == (1, 2)
    assert [post.pricing for post in world.posts[-2:]] == [first.digest, second.digest]


def test_rules_that_contradict_themselves_change_nothing() -> None:
    world = world_of()
    for wrong in (
        (split(share(bps=4_001)),),
        (split(share(role=AUDITOR)),),
        (split(share(), share()),),
        (split(share()), split(share())),
    ):
        effects = world.handle(SplitsDecided(wrong))
        assert [getattr(effect, "event", "") for effect in effects] == ["splits_refused"]
    close(world)
    assert not world.coordinator.epochs.splits.pricing.splits


def test_what_is_decided_twice_is_written_once_and_the_last_word_counts() -> None:
    world = world_of()
    decided = SplitsDecided((split(share()),))
    assert world.handle(decided)
    assert world.handle(decided) == []
    world.handle(SplitsDecided(()))
    check_restart(world)
    close(world)
    check_restart(world)
    assert not world.coordinator.epochs.splits.pricing.splits
    world.handle(decided)
    close(world)
    assert world.coordinator.epochs.splits.pricing.splits == decided.splits
    assert world.handle(decided) == [], "it is in force"


def test_the_operator_s_fee_changes_between_epochs_only() -> None:
    world = world_of()
    world.grant(CLIENT.public_key)
    work(world)
    world.policy = replace(world.policy, fee_bps=2_500)
    world.crash()
    assert world.coordinator.epochs.splits.pricing.fee_bps == 1_000
    work(world)
    close(world)
    assert world.coordinator.epochs.splits.pricing.fee_bps == 2_500
    work(world)
    close(world)
    check_all(world)
    rules = {row.epoch: decode_as(m.Pricing, row.data) for row in world.store.rows(PricingRow)}
    assert {epoch: one.fee_bps for epoch, one in rules.items()} == {1: 1_000, 2: 2_500}


def test_what_the_treasury_can_spare_is_credited_to_its_account_once_an_epoch() -> None:
    world = world_of(treasury=PURSER, treasury_reserve=20, audit_pay_bps=0)
    world.grant(CLIENT.public_key)
    for _ in range(3):
        work(world)
    held = world.balance("treasury")
    assert held > 20
    close(world)
    check_all(world)
    assert world.balance("treasury") == 20
    assert leaves_of(world, 1)[PURSER, TREASURER] == world.balance("earned", PURSER) == held - 20
    close(world)
    check_all(world)
    assert leaves_of(world, 2)[PURSER, TREASURER] == held - 20, "there was nothing more to spare"
    lines = [line for line in world.store.rows(LineRow) if line.kind == "sweep"]
    assert [(line.epoch, line.role) for line in lines] == [(1, TREASURER)]


class Books:
    """Epochs on a ledger of their own, and the rows they asked to keep."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.epochs = Epochs(self.ledger, 100)
        self.epochs.restore(StoredEpochs(), 0)
        self.rows: list[Row] = []

    def keep(self, effects: list[Effect]) -> None:
        self.rows += [effect.row for effect in effects if isinstance(effect, Save)]

    def earn(self, account: bytes, role: int, ref: int, amount: int) -> None:
        escrow = Purse("escrow", account)
        self.keep(self.ledger.transfer(0, MINT, escrow, amount, "grant", bytes(16)))
        why = Earning("job", ref.to_bytes(16), bytes(32))
        self.keep(self.epochs.earn(0, escrow, account, role, why, amount))


def test_the_rules_are_written_down_before_the_first_line_they_price() -> None:
    books = Books()
    books.earn(AUTHOR, COMPUTE, 1, 5)
    books.earn(AUTHOR, COMPUTE, 2, 5)
    kinds = [type(row) for row in books.rows]
    assert kinds.count(PricingRow) == 1
    assert kinds.index(PricingRow) < kinds.index(LineRow)


def test_nobody_earns_without_a_role() -> None:
    ledger = Ledger()
    with pytest.raises(AssertionError, match="gift"):
        ledger.transfer(0, MINT, Purse("earned", AUTHOR), 5, "gift", bytes(16))


def test_an_empty_epoch_closes_and_is_posted() -> None:
    books = Books()
    closed, effects = books.epochs.close(7)
    assert (closed.epoch, closed.total, closed.accounts) == (1, 0, 0)
    [posted] = [effect for effect in effects if isinstance(effect, PostEpoch)]
    assert posted.root == closed.root != bytes(32)
    books.keep(effects)
    [leaves] = [row for row in books.rows if isinstance(row, LeavesRow)]
    assert LeafFile(leaves.data).digest == posted.data_hash


def test_splits_refuse_a_fee_of_more_than_all() -> None:
    with pytest.raises(ProtocolError, match="more than all"):
        Splits(m.Pricing(fee_bps=10_001, splits=()))


def test_the_treasury_is_not_swept_without_an_account() -> None:
    books = Books()
    books.keep(books.ledger.transfer(0, MINT, TREASURY, 99, "grant", bytes(16)))
    books.epochs.close(1)
    assert books.ledger.balance("treasury") == 99
