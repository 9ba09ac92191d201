"""An owner that buys from itself: what it buys, whom it cheats, and that its books add up."""

from __future__ import annotations

from collections import Counter

import pytest

from assay_coordinator.core.records import JobRow, PostingRow
from assay_simnet.drivers.fast import Fast
from assay_simnet.drivers.fast_wash import PURSE, RECORD, WashClient
from assay_simnet.setting import GRANT
from simnet.scenario_texts import scenario

WASH = """# Is washing worth it?
schema = 1
name = "wash"
warm_up = "10 s"
duration = "150 s"
heal = "30 min"
audits = "{rules}"
[coordinator]
probation_audits = 3
audit_bps_min = 3000
holdback_jobs = 5
round = "5 s"
[population]
nodes = 4
[workload]
rate = "2 / s"
clients = 4
[[adversary]]
behaviour = "wash_trader"
count = 1
"""


class _Books:
    """All money that moved, and all jobs, as they were saved."""

    def __init__(self, world: Fast) -> None:
        self.postings: list[PostingRow] = []
        self.jobs: dict[bytes, JobRow] = {}
        self._checked = world.checks.saved
        world.checks.saved = self._saved  # type: ignore[method-assign]

    def _saved(self, row: object) -> None:
        if isinstance(row, PostingRow):
            self.postings.append(row)
        elif isinstance(row, JobRow):
            self.jobs[row.ticket] = row
        self._checked(row)


def _run(rules: str = "assay", seed: int = 1) -> tuple[Fast, _Books, WashClient]:
    world = Fast(scenario(text=WASH.format(rules=rules)), seed)
    books = _Books(world)
    world.run()
    (buyer,) = (client for client in world.clients if isinstance(client, WashClient))
    return world, books, buyer


@pytest.fixture(scope="module")
def washed() -> tuple[Fast, _Books, WashClient]:
    return _run()


def test_it_buys_a_record_and_purses_from_its_own_node(
    washed: tuple[Fast, _Books, WashClient],
) -> None:
    world, books, buyer = washed
    (node,) = (node for node in world.nodes if node.cheat is not None)
    own = [job for job in books.jobs.values() if job.client == buyer.key]
    assert {job.node for job in own} == {node.key}
    bought = Counter(job.verify for job in own)
    assert set(bought) == {RECORD, PURSE}
    assert bought[PURSE] > world.scenario.policy.holdback_jobs, "more than once"
    record = [job for job in own if job.verify == RECORD]
    assert all(job.charged == 1 and job.verdict == "passed" for job in record)
    assert not [
        p for p in books.postings if p.reason == "fee" and p.ref in {j.ticket for j in record}
    ]


def test_its_books_add_up(washed: tuple[Fast, _Books, WashClient]) -> None:
    """The owner's net is what came from others less what went to them, posting by posting."""
    world, books, buyer = washed
    (node,) = (node for node in world.nodes if node.cheat is not None)
    owners = {buyer.key, node.key}
    came = went = 0
    for one in books.postings:
        inward, outward = one.target_owner in owners, one.source_owner in owners
        came += one.amount * (inward and not outward and one.source != "mint")
        went += one.amount * (outward and not inward)
    figures = world.summary()["adversaries"]["wash_trader"]
    ledger = world.coordinator.core.ledger
    escrow = ledger.balance("escrow", node.key)
    assert figures["net"] == came - went - (escrow - figures["held"])
    left = ledger.balance("available", buyer.key) + ledger.balance("reserved", buyer.key)
    assert figures["spent"] == GRANT - left > 0
    own = [job for job in books.jobs.values() if job.client == buyer.key]
    paid = sum(job.charged for job in own if job.state != "refunded")
    assert figures["spent"] == paid, "nothing else was paid for"
    assert figures["own_jobs"] == len(own)


def test_it_cheats_strangers_only_and_only_with_a_record_and_a_purse(
    washed: tuple[Fast, _Books, WashClient],
) -> None:
    world, books, buyer = washed
    (node,) = (node for node in world.nodes if node.cheat is not None)
    at_it = [job for job in books.jobs.values() if job.node == node.key]
    strangers = [job for job in at_it if job.client != buyer.key]
    figures = world.summary()["adversaries"]["wash_trader"]
    assert 0 < figures["cheated"] <= figures["jobs"] - figures["own_jobs"] <= len(strangers)
    assert sum(world.frauds.values()) <= figures["cheated"], "its own made-up answers are no fraud"


def test_where_pay_is_not_held_it_needs_no_purse_and_where_days_count_it_never_dares() -> None:
    world, books, buyer = _run("boinc")
    own = {job.verify for job in books.jobs.values() if job.client == buyer.key}
    assert own == {RECORD}
    assert world.frauds["released"] > 0
    world, books, buyer = _run("gonka")
    assert world.summary()["adversaries"]["wash_trader"]["cheated"] == 0
