"""Ids that everybody derives alike, bounds, and an exporter that is not asked for."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_network import tracing
from assay_network.tracing import Followed, Span, check_endpoint, exporter
from assay_protocol.errors import AssayError
from assay_protocol.traces import PARENTS, span_id, trace_id
from otlp_receiver import otlp_receiver
from tidy_rules import sources

TICKET, OTHER = bytes(range(16)), bytes(range(1, 17))


def test_ids_are_what_they_always_were() -> None:
    """A changed derivation would cut the traces of two versions apart."""
    assert f"{trace_id(TICKET):032x}" == "0a686be576fe6f1e73b9da8820b3acfc"
    assert f"{span_id('job', TICKET):016x}" == "105421d8c9c96e07"


@given(st.binary(min_size=16, max_size=16), st.sampled_from(sorted(PARENTS)))
def test_ids_fit_and_differ(ticket: bytes, name: str) -> None:
    assert 0 < trace_id(ticket) < 1 << 128
    assert 0 < span_id(name, ticket) < 1 << 64
    assert len({span_id(one, ticket) for one in PARENTS}) == len(PARENTS)
    assert (trace_id(ticket) == trace_id(TICKET)) == (ticket == TICKET)


def test_a_resumed_job_hangs_on_its_first_tickets_span() -> None:
    whole = Span("job", TICKET, TICKET, 1, 9)
    resumed = Span("answer", TICKET, OTHER, 2, 3, under=TICKET)
    assert resumed.trace == whole.trace
    assert resumed.parent == whole.id
    assert Span("decode", TICKET, OTHER, 2, 3).parent == resumed.id


def test_what_nobody_ends_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FOLLOWED_MAX", 3)
    followed: Followed[int, int] = Followed()
    for n in range(9):
        followed[n] = n
    assert list(followed) == [6, 7, 8]


@pytest.mark.parametrize("url", ["", "ftp://a", "localhost:4318", "http://", "http://a/?b"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(AssayError, match="otlp must be"):
        check_endpoint("otlp", url)


def test_spans_arrive_with_their_ids_and_errors() -> None:
    with otlp_receiver() as receiver:
        with exporter(receiver.url + "/", "assay-test") as emit:
            emit(Span("job", TICKET, TICKET, 5, 9, attributes={"assay.finish": "stop"}))
            emit(Span("answer", TICKET, TICKET, 7, 6, under=TICKET, error="engine_failed"))
    job, answer = receiver.spans
    assert (job.trace, job.span) == (f"{trace_id(TICKET):032x}", f"{span_id('job', TICKET):016x}")
    assert (job.parent, answer.parent) == ("", job.span)
    assert (job.began, job.ended) == (5_000, 9_000)
    assert (answer.began, answer.ended) == (7_000, 7_000), "a clock that was set back"
    assert job.attributes == {"assay.finish": "stop"}
    assert (answer.failed, answer.attributes["error.type"]) == (True, "engine_failed")


def test_a_collector_that_is_not_there_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay_network.otlp.SEND_SECONDS", 0.1)
    with exporter("http://127.0.0.1:1", "assay-test") as emit:
        emit(Span("job", TICKET, TICKET, 5, 9))


def test_nothing_of_it_is_imported_before_it_is_asked_for() -> None:
    named = [path for path, text in sources() if re.search(r"(import|from) opentelemetry", text)]
    assert named == ["network/assay_network/otlp.py"]
    askers = {path: text for path, text in sources() if "assay_network.otlp" in text}
    assert list(askers) == ["network/assay_network/tracing.py"]
    assert "\n        from assay_network.otlp import" in askers.popitem()[1], "in a function"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "assay_network.otlp", None)
    with pytest.raises(AssayError, match="config_invalid"), exporter("http://a", "s"):
        pass
