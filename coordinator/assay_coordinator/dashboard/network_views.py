"""The network as a whole: how it does, what it serves, what needs a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Final

from sqlalchemy import Connection

from assay_coordinator.core.coordinator import Listed
from assay_coordinator.dashboard.asked import Asked
from assay_coordinator.dashboard.census import Supply, look
from assay_coordinator.dashboard.shapes import Shape, credit, job_shape, node_shape, verdict_shape
from assay_coordinator.dashboard.subject import CardFacts
from assay_coordinator.dashboard.tallies import (
    AGAINST,
    newest_jobs,
    newest_verdicts,
    receipts_by_span,
    verdicts_by_span,
)
from assay_coordinator.dashboard.views import Views

SPAN_US: Final = 300_000_000  # of one bar of the activity
SPANS: Final = 72  # six hours
SAMPLE_JOBS: Final = 200  # the newest, from which rates are told
ATTENTION_MAX: Final = 8
LATEST: Final = 6
_NOTHING: Final = Supply()


async def network(views: Views, asked: Asked) -> Shape:
    """All of the first page in one answer."""
    subject, census = views.subject, await views.census()
    core, now = subject.core(), subject.clock()
    first = (now // SPAN_US - SPANS + 1) * SPAN_US
    lately = await subject.read(_lately, core.catalogue, first)
    last = core.epochs.last
    return {
        "coordinator": subject.key.hex(),
        "faults": list(subject.faults()),
        "chain": _chain(views),
        "nodes": {"registered": len(census.ranks), "present": census.present, **census.states},
        "slots": census.slots,
        "free_slots": census.free_slots,
        "running": census.running,
        "waiting": census.waiting,
        "jobs": core.jobs.booked,
        "audits": core.audits.finished,
        "audits_open": len(core.audits.cases),
        "treasury": credit(core.ledger.balance("treasury")),
        "round": core.lottery.running,
        "epoch": {
            "running": core.epochs.running,
            "opened_at": core.epochs.opened_at,
            "closes_at": core.epochs.opened_at + core.policy.epoch_us,
            "last": last.epoch if last else None,
            "last_state": last.state if last else None,
        },
        "attention": [
            node_shape(look(node, core.ledger, now), core)
            for key in census.closed
            if (node := core.registry.get(key)) is not None
        ],
        **lately,
        "models": [
            _model(listed, census.supply.get(model, _NOTHING), core.rules.allows(model), None)
            for model, listed in core.catalogue.items()
        ][:ATTENTION_MAX],
    }


async def models(views: Views, asked: Asked) -> Shape:
    """The catalogue, with what is offered of each model now."""
    census, core = await views.census(), views.subject.core()
    return {
        "items": [
            _model(
                listed,
                census.supply.get(model, _NOTHING),
                core.rules.allows(model),
                views.subject.cards.get(model),
            )
            for model, listed in core.catalogue.items()
        ]
    }


def _chain(views: Views) -> Shape:
    chain = views.subject.chain
    return {"id": chain.chain_id, "ledger": f"0x{chain.ledger.hex()}", "local": chain.local}


def _lately(connection: Connection, catalogue: Mapping[bytes, Listed], since: int) -> Shape:
    """What the tables say of the last hours."""
    receipts = receipts_by_span(connection, since, SPAN_US)
    verdicts = verdicts_by_span(connection, since, SPAN_US)
    found = newest_jobs(connection, b"", None, SAMPLE_JOBS)
    shapes = [job_shape(job, found.drawn(job), catalogue) for job in found.jobs]
    spans = range(since // SPAN_US, since // SPAN_US + SPANS)
    against = newest_verdicts(connection, AGAINST, None, ATTENTION_MAX)
    return {
        "rates": _rates(shapes),
        "latest": shapes[:LATEST],
        "against": [verdict_shape(verdict, job, catalogue) for verdict, job in against],
        "activity": {
            "first_at": since,
            "span_us": SPAN_US,
            "jobs": [receipts.get(span, 0) for span in spans],
            "against": [
                sum(verdicts.get(span, Counter())[one] for one in AGAINST) for span in spans
            ],
        },
    }


def _rates(jobs: Sequence[Shape]) -> Shape:
    """Of the newest jobs, so of now if there are many: tokens a second over the time they took
    together, and their median time to a first token. Times are the nodes' word."""
    if not jobs:
        return {"jobs": 0, "tokens_per_second": None, "first_token_us": None, "newest_at": None}
    begun = min(job["started_at"] for job in jobs)
    ended = max(job["ended_at"] for job in jobs)
    tokens = sum(job["tokens_out"] for job in jobs)
    return {
        "jobs": len(jobs),
        "tokens_per_second": round(tokens * 1_000_000 / max(1, ended - begun), 2),
        "first_token_us": median_low([job["first_at"] - job["started_at"] for job in jobs]),
        "newest_at": max(job["booked_at"] for job in jobs),
    }


def _model(listed: Listed, supply: Supply, allowed: bool, card: CardFacts | None) -> Shape:
    facts = {}
    if card is not None:
        facts = {
            "license": card.license,
            "architecture": card.architecture,
            "quantization": card.quantization,
            "size_bytes": card.size_bytes,
            "source": card.source,
        }
    return {
        "model": listed.model.hex(),
        "name": listed.name,
        "card": listed.card.hex(),
        "context": listed.context,
        "price_in": credit(listed.price_in),
        "price_out": credit(listed.price_out),
        "allowed": allowed,
        "nodes": supply.nodes,
        "slots": supply.slots,
        "free_slots": supply.free_slots,
        "decode_tokens_per_second": _decode_rates(supply),
        **facts,
    }


def _decode_rates(supply: Supply) -> Shape | None:
    if not supply.nodes:
        return None
    return {
        "mean": round(supply.decode_rate_sum / supply.nodes / 1000, 3),
        "least": supply.decode_rate_min / 1000,
        "most": supply.decode_rate_max / 1000,
    }
