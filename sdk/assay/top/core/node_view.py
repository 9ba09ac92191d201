"""One node as it is shown: from its own words, or from its coordinator's.

A node that does not answer is `gone`, and what it said before is not shown as if it were so now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from assay.top.core import words
from assay.top.core.metric_text import Samples, histogram, samples
from assay.top.core.pace import Pace, Totals

STALE_US: Final = 30_000_000  # a status file older than this was written by no running node
GONE: Final = "gone"
COORDINATOR: Final = "coordinator"  # the source of a row that only it told of


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a node. `at`: microseconds of the reader's steady clock; `fault`: why there is
    nothing, as a code. `status`: the decoded JSON; `from_file`: of a file, written some time ago.
    """

    at: int
    status: object = None
    metrics: str = ""
    reasons: tuple[str, ...] = ()  # of /readyz
    from_file: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One row. None: not told, or not known yet. Rates a second, times in seconds, sizes in bytes,
    credit in micro-credits; `last_error_at` in microseconds since the epoch."""

    source: str  # as it was named, or COORDINATOR
    state: str  # what it does: connecting, serving, paused, draining, drained, away or gone
    fault: str = ""  # why it is gone: a code
    reasons: tuple[str, ...] = ()  # why it takes no jobs, or why it is paused
    node: str = ""  # its key, hex
    standing: str = ""  # the coordinator's word
    model: str = ""  # its name, or its digest
    class_id: str = ""
    device: str = ""
    running: int | None = None
    slots: int | None = None
    queued: int | None = None
    jobs_done: int | None = None
    jobs_failed: int | None = None
    jobs_refused: int | None = None
    tokens_in_per_second: float | None = None
    tokens_out_per_second: float | None = None
    jobs_per_minute: float | None = None
    over_seconds: float = 0.0  # what jobs a minute and the four times below are of
    ttft_p50: float | None = None
    ttft_p95: float | None = None
    tpot_p50: float | None = None
    tpot_p95: float | None = None
    history: tuple[float, ...] = ()  # tokens a second of answers, look by look, the newest last
    cpu_percent: float | None = None
    memory_used: int | None = None
    memory: int | None = None
    gpus: tuple[Mapping[str, Any], ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    earned: int | None = None
    escrow: int | None = None
    receipts_owed: int | None = None
    audits_passed: int | None = None
    audits_failed: int | None = None
    evidence_nats: float | None = None  # against it, by its coordinator
    alarm_nats: float | None = None
    last_error: str = ""
    last_error_at: int | None = None


def totals_of(look: Look) -> Totals | None:
    """What the node counted. All of one document: status and metrics are not of one moment."""
    status = words.fields(look.status)
    read = samples(look.metrics)
    if "generation_tokens_total" in read:
        return Totals(
            at=look.at,
            process=_process(status),
            tokens_in=read.get("prompt_tokens_total"),
            tokens_out=read["generation_tokens_total"],
            jobs=_jobs(read),
            first=histogram(read, "time_to_first_token_seconds"),
            each=histogram(read, "request_time_per_output_token_seconds"),
        )
    at = words.count(status, "at") if look.from_file else look.at
    if at is None or words.count(status, "tokens") is None:
        return None
    return Totals(
        at=at,
        process=_process(status),
        tokens_out=words.count(status, "tokens"),
        jobs=words.count(status, "jobs_done"),
    )


def node_view(source: str, look: Look, pace: Pace, wall_us: int) -> NodeView:
    """The row of a look that `pace` was fed. `wall_us`: now, microseconds since the epoch."""
    if look.fault:
        return NodeView(source=source, state=GONE, fault=look.fault)
    raw = words.fields(look.status)
    at = words.count(raw, "at")
    if look.from_file and (at is None or wall_us - at > STALE_US):
        node = words.text(raw, "node")
        return NodeView(source=source, state=GONE, fault="stale", node=node)
    view = NodeView(
        source=source,
        state=words.text(raw, "phase") or _phase(samples(look.metrics)),
        reasons=tuple(dict.fromkeys(filter(None, (words.text(raw, "paused"), *look.reasons)))),
        node=words.text(raw, "node"),
        standing=words.text(raw, "state"),
        model=words.text(raw, "name") or words.text(raw, "model"),
        class_id=words.text(raw, "class_id"),
        device=words.text(raw, "device"),
        limits=_limits(words.fields(raw.get("limits"))),
        earned=words.amount(raw, "earned"),
        escrow=words.amount(raw, "escrow"),
        last_error=words.text(raw, "last_error"),
        last_error_at=words.count(raw, "last_error_at") or None,
    )
    counts: dict[str, Any] = {name: words.count(raw, name) for name in _COUNTS}
    return replace(view, **counts, **_machine(words.fields(raw.get("machine"))), **_paced(pace))


def listed_view(shape: words.Fields) -> NodeView:
    """The row of a node that the coordinator lists (GET /api/nodes)."""
    models = [words.text(one, "name") or words.text(one, "id") for one in _models(shape)]
    state = words.text(shape, "state")
    working = "draining" if shape.get("draining") is True else "serving"
    return NodeView(
        source=COORDINATOR,
        state="away" if state == "away" else working,
        node=words.text(shape, "node"),
        standing=words.text(shape, "standing") or state,
        model=", ".join(models),
        device=words.text(shape, "device"),
        running=words.count(shape, "running"),
        slots=words.count(shape, "slots"),
        queued=words.count(shape, "waiting"),
        jobs_done=words.count(shape, "jobs"),
        earned=words.amount(shape, "earned"),
        escrow=words.amount(shape, "escrow"),
        audits_passed=words.count(shape, "audits_passed"),
        audits_failed=words.count(shape, "audits_failed"),
        evidence_nats=words.number(shape, "evidence_nats"),
        alarm_nats=words.number(shape, "alarm_nats"),
    )


def joined(own: NodeView, listed: NodeView) -> NodeView:
    """A node's own row, with what only its coordinator knows; standing and names of models are the
    coordinator's."""
    return replace(
        own,
        model=listed.model or own.model,
        standing=listed.standing or own.standing,
        evidence_nats=listed.evidence_nats,
        alarm_nats=listed.alarm_nats,
    )


_COUNTS: Final = (
    *("running", "slots", "queued", "jobs_done", "jobs_failed", "jobs_refused"),
    *("receipts_owed", "audits_passed", "audits_failed"),
)
_GPU: Final = ("memory_used", "memory", "busy_percent", "celsius", "watts")


def _paced(pace: Pace) -> dict[str, Any]:
    return {
        "tokens_in_per_second": pace.rate("tokens_in"),
        "tokens_out_per_second": pace.rate("tokens_out"),
        "jobs_per_minute": pace.a_minute("jobs"),
        "over_seconds": pace.seconds(),
        "ttft_p50": pace.quantile("first", 0.5),
        "ttft_p95": pace.quantile("first", 0.95),
        "tpot_p50": pace.quantile("each", 0.5),
        "tpot_p95": pace.quantile("each", 0.95),
        "history": pace.history(),
    }


def _machine(raw: words.Fields) -> dict[str, Any]:
    gpus = (
        {"name": words.text(one, "name")} | {name: words.count(one, name) for name in _GPU}
        for one in words.items(raw.get("gpus"))
    )
    return {
        "cpu_percent": words.number(raw, "cpu_percent"),
        "memory_used": words.count(raw, "memory_used"),
        "memory": words.count(raw, "memory"),
        "gpus": tuple(gpus),
    }


def _limits(raw: words.Fields) -> dict[str, Any]:
    """Settings as words and numbers, whatever else was sent."""
    told: dict[str, Any] = {}
    for name in list(raw)[: words.ITEMS_MAX]:
        value = words.count(raw, name)
        shown = words.texts(raw, name) if value is None else value
        told[words.text({"": name}, "")] = shown or words.text(raw, name)
    return told


def _models(shape: words.Fields) -> list[words.Fields]:
    return list(words.items(shape.get("models")))


def _process(status: words.Fields) -> str:
    pid = words.count(status, "pid")
    return "" if pid is None else f"{words.text(status, 'node')} {pid}"


def _jobs(read: Samples) -> float | None:
    return read.get('jobs_total{outcome="done"}')


def _phase(read: Samples) -> str:
    """Of a node that tells metrics only: one of another version."""
    found = [key for key, value in read.items() if key.startswith("node_phase{") and value]
    return found[0].partition('"')[2].partition('"')[0][: words.TEXT_MAX] if found else "unknown"
