"""Published rounds: anybody can draw them again, and whoever is favoured by them is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay_contracts.credit.rounds import CASE_US_MAX, RoundChecks, RoundReport, open_round
from assay_coordinator.adapters.draws import job_verdict, round_draws
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.records import JobRow, RoundRow
from assay_protocol.errors import AssayError
from assay_protocol.lottery import RoundNote, is_drawn, round_seed, round_tree
from assay_protocol.messages import DrawEntry, RoundDraws
from coordinator.core.coordinator_world import POLICY, FakeChain, World, identity, node

CLIENT = identity(50)
FRIEND = node(10)
LEVELS = ("sample", "sample", "sample", "none", "now")
LATER = 10**15  # of the reader's clock; the worlds' starts at 10**12


@pytest.fixture(scope="module")
def played() -> World:
    """Sixty receipts in rounds of twelve, some in probation, some drawn."""
    made = World(replace(POLICY, round_receipts=12), [FRIEND, node(11), node(12)])
    made.grant(CLIENT.public_key)
    for turn in range(60):
        made.run_job(CLIENT, verify=LEVELS[turn % 5])
    made.pass_time(2)
    return made


@pytest.fixture
def world(played: World) -> Iterator[World]:
    """The same; what a test puts on its chain goes again."""
    kept = list(played.chain.notes_in)
    yield played
    played.chain.notes_in[:] = kept


@contextmanager
def tables_of(world: World, folder: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{folder / 'coordinator.db'}")
    try:
        store.commit([row for table in world.store.tables.values() for row in table.values()])
        yield store
    finally:
        store.close()


@pytest.fixture
def store(tmp_path: Path, world: World) -> Iterator[Store]:
    with tables_of(world, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def rounds(played: World, tmp_path_factory: pytest.TempPathFactory) -> list[RoundDraws]:
    """What is published of them."""
    with tables_of(played, tmp_path_factory.mktemp("published")) as store:
        return documents(store)


def documents(store: Store) -> list[RoundDraws]:
    numbers = [row.number for row in store.rows(RoundRow)]
    return [open_round(round_draws(store, n.to_bytes(32, "big")), n) for n in numbers]


def checked(rounds: list[RoundDraws], chain: FakeChain, now: int = 0) -> list[RoundReport]:
    checks = RoundChecks(chain, now)
    return [checks.check(one) for one in rounds]


def failed(reports: list[RoundReport]) -> set[str]:
    return {step.name for report in reports for step in report.steps if not step.ok}


def test_what_an_honest_coordinator_publishes_holds(rounds: list[RoundDraws], world: World) -> None:
    reports = checked(rounds, world.chain)
    assert len(reports) == 5
    assert all(report.ok for report in reports), failed(reports)
    assert sum(report.receipts for report in reports) == 60
    assert sum(report.waived for report in reports) == 12
    drawn = sum(report.drawn for report in reports)
    assert drawn == sum(bool(row.drawn_at) for row in world.store.rows(JobRow)) > 12
    outcomes = {one.outcome for document in rounds for one in document.entries}
    assert {"passed", "undrawn"} <= outcomes
    assert all(report.ok for report in checked(rounds[2:4], world.chain)), "any part holds, too"


# ---- coordinators that are not honest ----


def _hits(document: RoundDraws) -> Iterator[DrawEntry]:
    seed = round_seed(document.link, document.block_hash)
    for one in document.entries:
        if one.asked == "sample" and is_drawn(seed, one.receipt, one.numerator, one.denominator):
            yield one


def _changed(rounds: list[RoundDraws], was: DrawEntry, **changes: Any) -> list[RoundDraws]:
    return [
        replace(
            document,
            entries=tuple(replace(e, **changes) if e == was else e for e in document.entries),
        )
        for document in rounds
    ]


def _first_hit(rounds: list[RoundDraws]) -> DrawEntry:
    return next(one for document in rounds for one in _hits(document))


def _skips(rounds: list[RoundDraws]) -> list[RoundDraws]:
    """The friend was drawn and is let off."""
    return _changed(rounds, _first_hit(rounds), outcome="undrawn")


def _waves(rounds: list[RoundDraws]) -> list[RoundDraws]:
    """The friend's client is said to have waived the audit, after the draw."""
    return _changed(rounds, _first_hit(rounds), asked="none", numerator=0, denominator=1)


def _drops(rounds: list[RoundDraws]) -> list[RoundDraws]:
    """The friend's receipt is left out of its round."""
    friend = _first_hit(rounds)
    return [replace(one, entries=tuple(e for e in one.entries if e != friend)) for one in rounds]


def _harasses(rounds: list[RoundDraws]) -> list[RoundDraws]:
    """Somebody is audited again and again without being drawn."""
    foe = next(e for one in rounds for e in one.entries if e.outcome == "undrawn")
    return _changed(rounds, foe, outcome="passed")


def _never_ends(rounds: list[RoundDraws]) -> list[RoundDraws]:
    """The friend's audit is said to be under way, for ever."""
    return _changed(rounds, _first_hit(rounds), outcome="open")


def _other_link(rounds: list[RoundDraws]) -> list[RoundDraws]:
    return [replace(rounds[0], link=bytes(32)), *rounds[1:]]


def _other_block(rounds: list[RoundDraws]) -> list[RoundDraws]:
    return [replace(rounds[0], block_hash=rounds[1].block_hash), *rounds[1:]]


def _other_note(rounds: list[RoundDraws]) -> list[RoundDraws]:
    return [replace(rounds[0], posted=rounds[1].posted), *rounds[1:]]


def _no_anchor(rounds: list[RoundDraws]) -> list[RoundDraws]:
    return [replace(rounds[0], anchored=bytes(32)), *rounds[1:]]


@pytest.mark.parametrize(
    ("bias", "found"),
    [
        (_skips, "draws"),
        (_waves, "root"),
        (_drops, "root"),
        (_harasses, "draws"),
        (_never_ends, "in time"),
        (_other_link, "links"),
        (_other_block, "block"),
        (_other_note, "root"),
        (_no_anchor, "poster"),
    ],
)
def test_a_coordinator_that_favours_somebody_is_found(
    rounds: list[RoundDraws],
    world: World,
    bias: Callable[[list[RoundDraws]], list[RoundDraws]],
    found: str,
) -> None:
    reports = checked(bias(rounds), world.chain, LATER)
    assert found in failed(reports)
    assert not all(report.ok for report in reports)


def _posted_with(world: World, document: RoundDraws) -> RoundDraws:
    """The document as if the coordinator had put this very root on chain in the first place."""
    tree = round_tree(document.entries)
    note = RoundNote(document.number, tree.root, tree.total, 4, 500)
    world.chain.notes_in.append(note.encode())
    block = len(world.chain.notes_in) - 1
    name = world.chain.block_hash(block)
    assert name is not None
    seed = round_seed(document.link, name)
    entries = tuple(
        replace(e, outcome="passed")
        if is_drawn(seed, e.receipt, e.numerator, e.denominator)
        else replace(e, outcome="undrawn")
        for e in document.entries
    )
    return replace(document, posted=name, block=block, block_hash=name, entries=entries)


def test_a_friend_s_better_rate_is_found(rounds: list[RoundDraws], world: World) -> None:
    """Even if the root was posted over it, and everything else fits."""
    new = next(e for e in rounds[0].entries if e.asked == "sample" and e.numerator == e.denominator)
    for rate in ((1, 3), (500, 10_000)):
        friend = _changed(rounds, new, numerator=rate[0], denominator=rate[1])
        world.chain.notes_in[1:] = world.chain.notes_in[1:2]
        report = checked([_posted_with(world, friend[0])], world.chain)[0]
        assert failed([report]) == {"rates"}, rate


def test_a_second_root_of_a_round_is_found(rounds: list[RoundDraws], world: World) -> None:
    """Else its maker could post roots until one draws what it likes."""
    again = _posted_with(world, rounds[-1])
    assert failed(checked([*rounds[:-1], again], world.chain)) == {"posted once"}


def test_notes_of_strangers_count_for_nothing(rounds: list[RoundDraws], world: World) -> None:
    checks = RoundChecks(world.chain, 0, poster=b"\x0b" * 20)
    report = checks.check(rounds[0])
    assert "poster" in failed([report])


# ---- what the tables answer ----


@pytest.mark.parametrize("number", [0, 6, 1 << 63, (1 << 256) - 1])
def test_a_round_that_is_not_drawn_has_no_document(store: Store, number: int) -> None:
    with pytest.raises(AssayError) as refused:
        round_draws(store, number.to_bytes(32, "big"))
    assert refused.value.code == "unknown_round"


def test_a_document_is_of_the_round_asked_for(store: Store) -> None:
    with pytest.raises(AssayError):
        open_round(round_draws(store, (1).to_bytes(32, "big")), 2)
    with pytest.raises(AssayError):
        open_round(b"junk", 1)


def test_an_audit_in_time_may_be_open(rounds: list[RoundDraws], world: World) -> None:
    waiting = _never_ends(rounds)
    newest = max(one.drawn_at for one in waiting)
    assert "in time" not in failed(checked(waiting, world.chain, newest))
    assert "in time" in failed(checked(waiting, world.chain, newest + CASE_US_MAX + 1))


def test_a_client_learns_how_its_own_ticket_stands(store: Store, world: World) -> None:
    held = next(h for h in world.issued.values() if world.job(h).verdict == "passed")
    told = job_verdict(store, CLIENT.public_key, held.ticket.ticket)
    assert (told.state, told.outcome) == ("released", "passed")
    for client, ticket in (
        (identity(51).public_key, held.ticket.ticket),
        (CLIENT.public_key, bytes(16)),
    ):
        with pytest.raises(AssayError) as refused:
            job_verdict(store, client, ticket)
        assert refused.value.code == "unknown_ticket"


def test_nothing_is_told_of_what_is_not_decided(store: Store) -> None:
    row = replace(store.rows(JobRow)[0], ticket=b"\x01" * 16, state="drawn", verdict="")
    store.commit([row])
    told = job_verdict(store, CLIENT.public_key, row.ticket)
    assert (told.state, told.outcome, told.statements) == ("drawn", "", ())


def test_an_inquiry_is_called_one(store: Store, world: World) -> None:
    """Undrawn answers of a node whose others failed are audited: that favours nobody."""
    job = next(row for row in store.rows(JobRow) if row.state == "held")
    with store.engine.begin() as connection:
        table = TABLES[JobRow]
        connection.execute(
            table.update()
            .where(table.c.ticket == job.ticket)
            .values(state="refunded", verdict="failed")
        )
    reports = checked(documents(store), world.chain)
    assert all(report.ok for report in reports), failed(reports)
    assert sum(report.inquiries for report in reports) == 1
