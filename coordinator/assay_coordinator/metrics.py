"""What Prometheus is told of a coordinator.

What happened is counted from the effects of the core, once their rows are committed: what a failed
commit takes back was never counted. What is the case now is read off the runtime when somebody
asks. Nothing names a client, a job or a node.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Histogram

from assay_coordinator.core.events import Effect, Log, Reply, Save
from assay_coordinator.core.jobs import FINAL
from assay_coordinator.core.ledger import KINDS
from assay_coordinator.core.lottery import UNDRAWN
from assay_coordinator.core.records import (
    AuditRow,
    EpochRow,
    JobRow,
    PostingRow,
    RoundRow,
    Row,
    VerdictRow,
)
from assay_coordinator.core.standing import CLOSED
from assay_coordinator.runtime import Depths, Runtime
from assay_network.readings import PREFIX, Reading, Readings, exposition, new_registry
from assay_protocol.messages import Error

ROWS_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
DRIFT_BUCKETS: Final = (0.0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
EARLY_MAX: Final = 65_536  # jobs that ended before their round was drawn
_MICRO: Final = 1_000_000
_STATES: Final = ("probation", "active", *sorted(CLOSED))


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a coordinator. Credit in micro-credits, evidence in micro-nats."""

    depths: Depths
    faults: int
    commit_failures: int
    post_failures: int
    nodes: Tally[str]  # by standing
    present: int
    slots: int
    free_slots: int
    running: int
    waiting: int
    evidence_max: int
    purses: Tally[str]  # what all of a kind hold
    accounts: int
    jobs: int
    audits: int
    epoch: int
    round: int


def see(runtime: Runtime) -> Seen:
    """What is the case now; takes time in proportion to nodes and accounts."""
    core, depths, health = runtime.core, runtime.depths(), runtime.health
    nodes = core.registry.nodes.values()
    present = [node for node in nodes if node.present(depths.now)]
    standings = Tally(dict.fromkeys(_STATES, 0))
    standings.update(node.row.state for node in nodes)
    purses: Tally[str] = Tally(dict.fromkeys(KINDS, 0))
    for purse, amount in core.ledger.balances.items():
        purses[purse.kind] += amount
    return Seen(
        depths=depths,
        faults=len(runtime.faults()),
        commit_failures=health.commit_failures,
        post_failures=health.post_failures,
        nodes=standings,
        present=len(present),
        slots=sum(node.slots for node in present),
        free_slots=sum(node.free_slots for node in present),
        running=sum(node.running for node in present),
        waiting=sum(node.waiting for node in present),
        evidence_max=max((n.row.evidence for n in present if n.row.state not in CLOSED), default=0),
        purses=purses,
        accounts=len(core.ledger.credit),
        jobs=len(core.jobs.jobs),
        audits=len(core.audits.cases),
        epoch=core.epochs.running,
        round=core.lottery.running,
    )


READINGS: Final[tuple[Reading[Seen], ...]] = (
    Reading("faults", "Reasons why /readyz says no.", lambda s: s.faults),
    Reading("nodes", "Nodes ever registered, by standing.", lambda s: s.nodes, label="state"),
    Reading("nodes_present", "Nodes with a lease.", lambda s: s.present),
    Reading("slots", "Answers that nodes with a lease can compute at once.", lambda s: s.slots),
    Reading("slots_free", "Of these, the free ones, as last told.", lambda s: s.free_slots),
    Reading("num_requests_running", "Jobs on nodes with a lease.", lambda s: s.running),
    Reading("num_requests_waiting", "Jobs that wait there.", lambda s: s.waiting),
    Reading(
        "evidence_nats_max",
        "Most evidence against a node that serves (docs/verification.md).",
        lambda s: s.evidence_max / _MICRO,
    ),
    Reading(
        "purse_credit",
        "Micro-credits in all purses of a kind; mint is less what was granted.",
        lambda s: s.purses,
        label="purse",
    ),
    Reading("credit_leaves", "Leaves of the next epoch's tree so far.", lambda s: s.accounts),
    Reading("jobs_open", "Jobs whose money or identity still matters.", lambda s: s.jobs),
    Reading("audits_open", "Audits without a verdict yet.", lambda s: s.audits),
    Reading("epoch_height", "The running epoch.", lambda s: s.epoch),
    Reading("round_height", "The running round of the lottery.", lambda s: s.round),
    Reading("peers_connected", "Peers with a session.", lambda s: s.depths.peers),
    Reading("events_waiting", "Events that the core has not seen.", lambda s: s.depths.events),
    Reading("events_waiting_bytes", "The size of their messages.", lambda s: s.depths.bytes),
    Reading("requests_open", "Requests without an answer yet.", lambda s: s.depths.requests),
    Reading("lookups_open", "Documents being made or waited for.", lambda s: s.depths.lookups),
    Reading(
        "chain_posts_waiting",
        "Epochs and rounds that are not on the chain to stay.",
        lambda s: s.depths.posts,
    ),
    Reading("db_commit_failures", "Commits that failed.", lambda s: s.commit_failures, rises=True),
    Reading(
        "chain_post_failures",
        "Posts that the chain did not take.",
        lambda s: s.post_failures,
        rises=True,
    ),
)


class CoordinatorMetrics:
    """Feed it what was committed; `text` is what is told."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self._early: OrderedDict[bytes, None] = OrderedDict()

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        def spread(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, buckets=buckets, registry=registry)

        self._rows = spread("db_commit_batch_size", "Rows of a commit.", ROWS_BUCKETS)
        self._commits = spread("db_commit_seconds", "What a commit took.", COMMIT_BUCKETS)
        self._drift = spread(
            "audit_distance",
            "Logits or logprobs between an auditor's values and the executor's, on average.",
            DRIFT_BUCKETS,
        )
        self._replies = count(
            "replies", "Answers of the core, by message and error code.", "message", "code"
        )
        self._events = count("log_events", "Events that the core logged.", "event")
        self._jobs = count(
            "jobs", "Jobs that ended, by outcome: released, refunded, expired.", "outcome"
        )
        self._audits = count(
            "audits", "Replays, by what they found: good, doubtful, bad.", "verdict"
        )
        self._verdicts = count("verdicts", "Audits that ended, by outcome.", "outcome")
        self._credit = count("credit", "Micro-credits moved, by reason.", "reason")
        self._epochs = count("epochs", "Epochs, by what happened: queued, posted.", "state")
        self._rounds = count("rounds", "Rounds, by what happened: closed, drawn.", "state")

    def follow(self, runtime: Runtime) -> None:
        """Read all else off `runtime`."""
        self.registry.register(Readings(READINGS, lambda: see(runtime)))

    def text(self) -> bytes:
        """All of it, for Prometheus."""
        return exposition(self.registry)

    def observe(self, batch: Sequence[Effect], rows: int, seconds: float) -> None:
        """`batch` holds from now on; of it, so many rows were committed in so much time."""
        if rows:
            self._rows.observe(rows)
            self._commits.observe(seconds)
        for effect in batch:
            match effect:
                case Save(row):
                    self._saved(row)
                case Reply(message=Error(code=code)):
                    self._replies.labels("Error", code).inc()
                case Reply(message=message):
                    self._replies.labels(type(message).__name__, "").inc()
                case Log(event):
                    self._events.labels(event).inc()

    def _saved(self, row: Row) -> None:
        match row:
            case JobRow(state=state) if state in FINAL:
                self._ended(row)
            case PostingRow(reason=reason, amount=amount):
                self._credit.labels(reason).inc(amount)
            case AuditRow(outcome=outcome, drift=drift):
                self._audits.labels(outcome).inc()
                self._drift.observe(drift / _MICRO)
            case VerdictRow(outcome=outcome):
                self._verdicts.labels(outcome).inc()
            case EpochRow(state=state):
                self._epochs.labels(state).inc()
            case RoundRow(state=state):
                self._rounds.labels(state).inc()

    def _ended(self, row: JobRow) -> None:
        """Count it once. One that an inquiry or a conviction ended before its round was drawn is
        saved again, as it was, when that draws it."""
        if row.ticket in self._early:
            del self._early[row.ticket]
            return
        if row.booked_at and not row.drawn_at and row.verdict != UNDRAWN:
            self._early[row.ticket] = None
            if len(self._early) > EARLY_MAX:
                self._early.popitem(last=False)
        self._jobs.labels(row.state).inc()
