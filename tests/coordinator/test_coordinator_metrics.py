"""What a coordinator tells Prometheus, against its own tables: what happened is counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio
import trio.testing

from assay_coordinator import metrics as metrics_module
from assay_coordinator.core.events import Effect, Log, Reply, Save
from assay_coordinator.core.jobs import FINAL
from assay_coordinator.core.lottery import UNDRAWN
from assay_coordinator.core.records import (
    AuditRow,
    EpochRow,
    JobRow,
    PostingRow,
    RoundRow,
    VerdictRow,
)
from assay_coordinator.metrics import CoordinatorMetrics
from assay_protocol import messages as m
from coordinator.core.coordinator_world import (
    OPERATOR,
    POLICY,
    ScriptedNode,
    World,
    identity,
    node,
)
from coordinator.test_coordinator_runtime import running
from prometheus_text import label_names, samples

CLIENT = identity(50)
LABELS = {"code", "event", "le", "message", "outcome", "reason", "state", "verdict"}


class Watched(World):
    """A world whose coordinator is watched as a runtime does it: not while it is restored."""

    def __init__(self, nodes: Iterable[ScriptedNode]) -> None:
        self.metrics, self.watching = CoordinatorMetrics(), False
        super().__init__(POLICY, nodes)

    def _start(self) -> Any:
        self.watching = False
        started = super()._start()
        self.watching = True
        return started

    def carry_out(self, effects: list[Effect]) -> None:
        super().carry_out(effects)
        if self.watching:
            self.metrics.observe(effects, sum(isinstance(e, Save) for e in effects), 0.002)

    def counted(self, name: str, key: Callable[[Any], str], rows: Iterable[Any]) -> None:
        """The counter says what the tables say."""
        seen = {
            sample: value
            for sample, value in samples(self.metrics.text()).items()
            if sample.startswith(f"assay_{name}_total{{")
        }
        wanted = Counter(key(row) for row in rows)
        assert seen == {f"assay_{name}_total{{{label}}}": n for label, n in wanted.items()}
        assert wanted, name


def test_what_is_counted_is_what_the_tables_hold() -> None:
    cheat, *others = node(10), node(11), node(12), node(13)
    world = Watched((cheat, *others))
    world.grant(CLIENT.public_key)
    while world.row(cheat).verified < 16:
        world.run_job(CLIENT, max_tokens=96, only=(cheat.key,))
    for _ in range(8):
        world.run_job(CLIENT, max_tokens=96)
    world.crash()  # what is restored was counted before
    for one in (cheat, *others):
        world.join(one)
    cheat.wrong, world.chain_up = 1.0, False
    for _ in range(8):  # they end before their round is drawn
        world.run_job(CLIENT, max_tokens=96, only=(cheat.key,))
    known = world.coordinator.registry.nodes[cheat.key]
    world.carry_out(world.coordinator.settlement.inquiries.begin(world.now, known, "alarm"))
    world.pass_time(30)
    assert world.row(cheat).state == "convicted"
    world.chain_up = True
    world.mine()
    abandoned = world.ask(CLIENT)
    assert not isinstance(abandoned, m.Error)
    world.call(CLIENT.public_key, m.AbandonJob(ticket=abandoned.ticket.ticket))
    world.pass_time(300, step=10)
    world.call(OPERATOR.public_key, m.CloseEpoch())
    rows = world.store.rows
    ended = [row for row in rows(JobRow) if row.state in FINAL]
    assert {row.state for row in ended} == {"released", "refunded", "expired"}
    world.counted("jobs", lambda row: f'outcome="{row.state}"', ended)
    world.counted("audits", lambda row: f'verdict="{row.outcome}"', rows(AuditRow))
    world.counted("verdicts", lambda row: f'outcome="{row.outcome}"', rows(VerdictRow))
    assert label_names(world.metrics.text()) == LABELS
    seen = samples(world.metrics.text())
    moved: Counter[str] = Counter()
    for row in rows(PostingRow):
        moved[row.reason] += row.amount
    assert {r: seen[f'assay_credit_total{{reason="{r}"}}'] for r in moved} == moved
    assert seen['assay_epochs_total{state="queued"}'] == len(rows(EpochRow))
    assert seen['assay_rounds_total{state="closed"}'] == len(rows(RoundRow))
    assert seen["assay_audit_distance_count"] == len(rows(AuditRow))
    assert seen['assay_log_events_total{event="verdict"}'] > 0


def test_a_job_that_ended_before_its_draw_is_counted_once() -> None:
    metrics = CoordinatorMetrics()
    early = _job(1, verdict="failed", drawn_at=0)
    metrics.observe([Save(early)], 1, 0.0)
    metrics.observe([Save(_job(1, verdict="failed", drawn_at=9))], 1, 0.0)
    metrics.observe([Save(_job(2, verdict="passed", drawn_at=9))], 1, 0.0)
    metrics.observe([Save(_job(3, verdict=UNDRAWN, drawn_at=0))], 1, 0.0)
    assert samples(metrics.text())['assay_jobs_total{outcome="released"}'] == 3


def test_no_more_jobs_that_ended_early_are_remembered_than_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_module, "EARLY_MAX", 3)
    metrics = CoordinatorMetrics()
    many = [Save(_job(i, verdict="passed", drawn_at=0)) for i in range(4)]
    metrics.observe(many, len(many), 0.0)
    metrics.observe([Save(_job(0, verdict="passed", drawn_at=9))], 1, 0.0)
    assert samples(metrics.text())['assay_jobs_total{outcome="released"}'] == 5, (
        "the first came again"
    )


def test_answers_and_log_events_are_counted_without_names() -> None:
    metrics = CoordinatorMetrics()
    peer = CLIENT.public_key
    refusal = Reply(peer, 7, m.Error(code="busy", detail=peer.hex()))
    log = Log("registered", (("node", peer.hex()), ("state", "active")))
    metrics.observe([Reply(peer, 7, m.Done()), refusal, log], 0, 0.0)
    text = metrics.text()
    seen = samples(text)
    assert seen['assay_replies_total{code="",message="Done"}'] == 1
    assert seen['assay_replies_total{code="busy",message="Error"}'] == 1
    assert seen['assay_log_events_total{event="registered"}'] == 1
    assert seen["assay_db_commit_batch_size_count"] == 0, "nothing was committed"
    assert peer.hex()[:8].encode() not in text


async def test_a_running_coordinator_is_read_and_says_what_fails() -> None:
    metrics = CoordinatorMetrics()
    async with running(lambda key: b"") as runtime:
        metrics.follow(runtime)
        await trio.testing.wait_all_tasks_blocked()
        seen = samples(metrics.text())
        assert (seen["assay_faults"], runtime.faults()) == (0, [])
        assert seen['assay_nodes{state="convicted"}'] == 0
        assert seen["assay_epoch_height"] == 1
        runtime.health.commit_failed()
        assert runtime.faults() == ["commit_failed"]
        assert samples(metrics.text())["assay_db_commit_failures_total"] == 1


def _job(number: int, verdict: str, drawn_at: int) -> JobRow:
    return JobRow(
        ticket=number.to_bytes(16, "big"),
        client=bytes(32),
        node=bytes(32),
        model=bytes(32),
        state="released",
        ticket_blob=b"",
        receipt_blob=b"",
        reserved=0,
        charged=0,
        deadline_at=0,
        held_epoch=1,
        verdict=verdict,
        booked_at=5,
        drawn_at=drawn_at,
    )
