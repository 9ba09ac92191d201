"""The network as its coordinator's dashboard tells it (docs/dashboard.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.top.core import words
from assay.top.core.node_view import GONE, NodeView, listed_view
from assay.top.core.pace import Pace, Totals

STATES: Final = ("active", "probation", "away", "inquiry", "suspended", "convicted")
AUDITS_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class NetworkLook:
    """One look at a coordinator: what three paths of its API gave, decoded; `fault` as of Look."""

    at: int
    network: object = None
    nodes: object = None
    verdicts: object = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """How one job's audit ended. `at`: microseconds since the epoch."""

    node: str
    outcome: str
    at: int | None
    ticket: str
    model: str


@dataclass(frozen=True, slots=True)
class NetworkView:
    """All nodes together. None: not told. `tokens_per_second` and `ttft_p50` are of the newest
    jobs, by their nodes' word, as the dashboard has them."""

    source: str
    state: str  # ready, faulty or gone
    fault: str = ""
    reasons: tuple[str, ...] = ()  # why it does not do its work
    nodes_by_state: tuple[tuple[str, int], ...] = ()
    present: int | None = None
    slots: int | None = None
    free_slots: int | None = None
    running: int | None = None
    waiting: int | None = None
    jobs: int | None = None
    jobs_per_minute: float | None = None
    audits: int | None = None
    audits_open: int | None = None
    epoch: int | None = None
    tokens_per_second: float | None = None
    ttft_p50: float | None = None
    against: int | None = None  # audits of the last six hours that took a node's pay
    latest_audits: tuple[Audit, ...] = ()


def network_totals(look: NetworkLook) -> Totals | None:
    """Jobs booked, to count them by the minute."""
    jobs = words.count(words.fields(look.network), "jobs")
    return None if look.fault or jobs is None else Totals(at=look.at, jobs=jobs)


def network_view(source: str, look: NetworkLook, pace: Pace) -> NetworkView:
    """What is shown of a look that `pace` was fed."""
    if look.fault:
        return NetworkView(source=source, state=GONE, fault=look.fault)
    raw = words.fields(look.network)
    nodes, epoch = words.fields(raw.get("nodes")), words.fields(raw.get("epoch"))
    rates, reasons = words.fields(raw.get("rates")), words.texts(raw, "faults")
    first_us = words.number(rates, "first_token_us")
    return NetworkView(
        source=source,
        state="faulty" if reasons else "ready",
        reasons=reasons,
        nodes_by_state=tuple((name, words.count(nodes, name) or 0) for name in STATES),
        present=words.count(nodes, "present"),
        slots=words.count(raw, "slots"),
        free_slots=words.count(raw, "free_slots"),
        running=words.count(raw, "running"),
        waiting=words.count(raw, "waiting"),
        jobs=words.count(raw, "jobs"),
        jobs_per_minute=pace.a_minute("jobs"),
        audits=words.count(raw, "audits"),
        audits_open=words.count(raw, "audits_open"),
        epoch=words.count(epoch, "running"),
        tokens_per_second=words.number(rates, "tokens_per_second"),
        ttft_p50=None if first_us is None else first_us / 1e6,
        against=_against(words.fields(raw.get("activity"))),
        latest_audits=_audits(look.verdicts),
    )


def listed_nodes(look: NetworkLook) -> list[NodeView]:
    """The nodes of its list, those that are here first."""
    return [listed_view(shape) for shape in words.items(words.fields(look.nodes).get("items"))]


def _audits(raw: object) -> tuple[Audit, ...]:
    found = words.items(words.fields(raw).get("items"))[:AUDITS_SHOWN]
    return tuple(
        Audit(
            node=words.text(one, "node"),
            outcome=words.text(one, "outcome"),
            at=words.count(one, "at"),
            ticket=words.text(one, "ticket"),
            model=words.text(words.fields(one.get("model")), "name"),
        )
        for one in found
    )


def _against(activity: words.Fields) -> int | None:
    spans = activity.get("against")
    if not isinstance(spans, list):
        return None
    return sum(one for one in spans[: words.ITEMS_MAX] if type(one) is int and one > 0)
