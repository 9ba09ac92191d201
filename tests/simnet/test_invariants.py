"""A checker that finds nothing is worth nothing: bugs are planted, found, and found again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from assay.core import JobMachine
from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.jobs import Job, Jobs
from assay_coordinator.core.ledger import Ledger, Purse
from assay_coordinator.core.lottery import Lottery
from assay_coordinator.core.records import BalanceRow, CreditRow
from assay_node.core.outbox import Outbox
from assay_protocol.hashing import pack_tokens
from assay_simnet.cli import main
from assay_simnet.drivers.fast import Fast
from assay_simnet.invariants import Violated
from assay_simnet.keyed import KeyedVerifier
from assay_simnet.setting import CANARY
from simnet.scenario_texts import SMALL, scenario

Patch = Callable[[pytest.MonkeyPatch], None]


def _keeps_change(patch: pytest.MonkeyPatch) -> None:
    """The ledger: one transfer in fifty counts one micro-credit too many, in memory and in rows."""
    honest = Ledger._move

    def move(
        self: Ledger, now: int, source: Purse, target: Purse, amount: int, reason: str, ref: bytes
    ) -> list[Effect]:
        effects = honest(self, now, source, target, amount, reason, ref)
        if effects and self.next_seq % 50 == 0 and target.kind == "earned":
            self.balances[target] += 1
            self.balances[source] -= source.kind == "mint"
            row = BalanceRow(target.kind, target.owner, self.balances[target])
            effects[2] = Save(row)
        return effects

    patch.setattr(Ledger, "_move", move)


def _credits_twice(patch: pytest.MonkeyPatch) -> None:
    """The ledger: lifetime credit of a rare payment is counted twice."""
    honest = Ledger._count_credit

    def count(self: Ledger, account: bytes, role: int, amount: int) -> Save:
        saved = honest(self, account, role, amount)
        if self.next_seq % 7 == 0:
            saved = honest(self, account, role, amount)
        assert isinstance(saved.row, CreditRow)
        return saved

    patch.setattr(Ledger, "_count_credit", count)


def _draws_none(patch: pytest.MonkeyPatch) -> None:
    """The lottery: it spares a node."""
    honest = Lottery.draw

    def draw(self: Lottery, now: int, mined: Any) -> Any:
        effects, draws = honest(self, now, mined)
        return effects, [type(one)(one.ticket, False, one.seed) for one in draws]

    patch.setattr(Lottery, "draw", draw)


def _resumes_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """The resume path: a client takes what it holds for one token less than it is."""
    honest = JobMachine._deliver

    def deliver(self: JobMachine, run: Any, step: Any) -> None:
        if not run.tokens and self.held:
            self.held[-1] += 1
        honest(self, run, step)

    patch.setattr(JobMachine, "_deliver", deliver)


def _loses_receipts(patch: pytest.MonkeyPatch) -> None:
    """The outbox: every ninth receipt is dropped when it is to be sent."""
    honest = Outbox.due

    def due(self: Outbox, now: int, *, may_send: bool) -> Any:
        saves, sends = honest(self, now, may_send=may_send)
        for ticket, _ in sends:
            if ticket[0] % 9 == 0:
                self._landed(ticket)
        return saves, [one for one in sends if one[0][0] % 9]

    patch.setattr(Outbox, "due", due)


def _raises(patch: pytest.MonkeyPatch) -> None:
    """A core that breaks down over a message."""

    def draw(self: Lottery, now: int, mined: Any) -> Any:
        raise KeyError("round")

    patch.setattr(Lottery, "draw", draw)


def _pays_and_refunds(patch: pytest.MonkeyPatch) -> None:
    """A released job's price goes back to its client, too."""
    honest = Jobs.release

    def release(self: Jobs, now: int, job: Job, verdict: str) -> list[Effect]:
        client, ticket = job.ticket.client, job.ticket.ticket
        node, available = job.ticket.node, Purse("available", client)
        effects = honest(self, now, job, verdict)
        earned = Purse("earned", node)
        return [*effects, *self._ledger.transfer(now, earned, available, 1, "refund", ticket)]

    patch.setattr(Jobs, "release", release)


@pytest.mark.parametrize(
    ("plant", "ident"),
    [
        (_keeps_change, "L1"),
        (_credits_twice, "L1"),
        (_draws_none, "V1"),
        (_pays_and_refunds, "L2"),
        (_resumes_elsewhere, "P1"),
        (_loses_receipts, "D1"),
        (_raises, "raised"),
    ],
)
def test_a_planted_bug_is_found_and_found_again_from_its_line(
    plant: Patch, ident: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch)
    assert main(["check", "churn-storm", "--seeds", "1..3"]) == 1
    told = capsys.readouterr().out
    again = re.search(r"^simnet (replay .*)$", told, re.MULTILINE)
    assert again is not None
    assert re.search(rf"^{ident} does not hold at ", told, re.MULTILINE), told[:500]
    assert told.count(" -> ") >= 20, "the last events of those involved"
    assert main(again[1].split()) == 1
    assert capsys.readouterr().out.splitlines()[1] == told.splitlines()[1]


def _run(monkeypatch: pytest.MonkeyPatch, more: str = "") -> Violated:
    world = Fast(scenario(more), 1)
    with pytest.raises(Violated) as caught:
        world.run()
    return caught.value


def test_a_ticket_that_runs_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Fast(scenario(), 1)
    began = world.checks.began
    monkeypatch.setattr(world.checks, "began", lambda n, t: (began(n, t), began(n, t)))
    with pytest.raises(Violated, match="L2: a ticket runs twice"):
        world.run()


def test_a_prompt_in_a_message_is_seen() -> None:
    world = Fast(scenario(), 1)
    with pytest.raises(Violated, match="S3"):
        world.checks.heard(b"before" + pack_tokens(CANARY) + b"after", 1)


def test_a_forged_receipt_that_is_booked_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: with signatures that are never looked at, damaged receipts change rows."""
    monkeypatch.setattr(KeyedVerifier, "verify", lambda *_: True)
    found = _run(monkeypatch, "[checks]\nprobe = 2\n")
    assert found.ident == "S1"


def test_only_what_is_asked_for_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    _draws_none(monkeypatch)
    world = Fast(scenario('[checks]\nof = ["P1"]\n', SMALL), 1)
    world.run()
