"""Bugs to plant into production's cores, so that the checks have something to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from assay.core import JobMachine
from assay_contracts.adapters.outbox_core import Estimate, Item, OutboxCore
from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.jobs import Job, Jobs
from assay_coordinator.core.ledger import Ledger, Purse
from assay_coordinator.core.lottery import Lottery
from assay_coordinator.core.records import BalanceRow, CreditRow
from assay_node.core.outbox import Outbox, Owed

Patch = Callable[[pytest.MonkeyPatch], None]


def keeps_change(patch: pytest.MonkeyPatch) -> None:
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


def credits_twice(patch: pytest.MonkeyPatch) -> None:
    """The ledger: lifetime credit of a rare payment is counted twice."""
    honest = Ledger._count_credit

    def count(self: Ledger, account: bytes, role: int, amount: int) -> Save:
        saved = honest(self, account, role, amount)
        if self.next_seq % 7 == 0:
            saved = honest(self, account, role, amount)
        assert isinstance(saved.row, CreditRow)
        return saved

    patch.setattr(Ledger, "_count_credit", count)


def draws_none(patch: pytest.MonkeyPatch) -> None:
    """The lottery: it spares a node."""
    honest = Lottery.draw

    def draw(self: Lottery, now: int, mined: Any) -> Any:
        effects, draws = honest(self, now, mined)
        return effects, [type(one)(one.ticket, False, one.seed) for one in draws]

    patch.setattr(Lottery, "draw", draw)


def resumes_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """The resume path: a client takes what it holds for one token less than it is."""
    honest = JobMachine._deliver

    def deliver(self: JobMachine, run: Any, step: Any) -> None:
        if not run.tokens and self.held:
            self.held[-1] += 1
        honest(self, run, step)

    patch.setattr(JobMachine, "_deliver", deliver)


def loses_receipts(patch: pytest.MonkeyPatch) -> None:
    """The outbox: every ninth receipt is dropped when it is to be sent."""
    honest = Outbox.due

    def due(self: Outbox, now: int, *, may_send: bool) -> Any:
        saves, sends = honest(self, now, may_send=may_send)
        for ticket, _ in sends:
            if ticket[0] % 9 == 0:
                self._landed(ticket)
        return saves, [one for one in sends if one[0][0] % 9]

    patch.setattr(Outbox, "due", due)


def raises(patch: pytest.MonkeyPatch) -> None:
    """A core that breaks down over a message."""

    def draw(self: Lottery, now: int, mined: Any) -> Any:
        raise KeyError("round")

    patch.setattr(Lottery, "draw", draw)


def pays_and_refunds(patch: pytest.MonkeyPatch) -> None:
    """A released job's price goes back to its client, too."""
    honest = Jobs.release

    def release(self: Jobs, now: int, job: Job, verdict: str) -> list[Effect]:
        client, ticket = job.ticket.client, job.ticket.ticket
        node, available = job.ticket.node, Purse("available", client)
        effects = honest(self, now, job, verdict)
        earned = Purse("earned", node)
        return [*effects, *self._ledger.transfer(now, earned, available, 1, "refund", ticket)]

    patch.setattr(Jobs, "release", release)


def posts_again(patch: pytest.MonkeyPatch) -> None:
    """The outbox on chain: what a re-org took out of its block is signed anew, whatever waits."""
    honest = OutboxCore._missing

    def missing(self: OutboxCore, now: int, item: Item) -> Any:
        if item.state != "mined" or item.key in self._sent_now:
            return honest(self, now, item)
        return [Estimate(item.key)]

    patch.setattr(OutboxCore, "_missing", missing)


def forgets_rounds(patch: pytest.MonkeyPatch) -> None:
    """The lottery: after a restart, rounds that were closed and not posted are not posted."""
    patch.setattr(Lottery, "unposted", lambda self: [])


def starts_empty(patch: pytest.MonkeyPatch) -> None:
    """A node's outbox: a new process overlooks every third receipt on its disk."""
    honest = Outbox.restore

    def restore(self: Outbox, owed: Owed) -> None:
        if owed.ticket[0] % 3:
            honest(self, owed)

    patch.setattr(Outbox, "restore", restore)


def gives_up(patch: pytest.MonkeyPatch) -> None:
    """A node's outbox: a receipt whose hand-in had no answer in time is handed in no more."""
    honest = Outbox.refused

    def refused(self: Outbox, now: int, ticket: bytes, code: str) -> list[Any]:
        if code == "timeout":
            self._landed(ticket)
            return []
        return honest(self, now, ticket, code)

    patch.setattr(Outbox, "refused", refused)
