"""A client's spans: one a job, the trace's root, also of one that was resumed or failed."""

from __future__ import annotations

import pytest
import trio

from assay import JobFailed
from assay.tracing import JobTraces
from assay_network.tracing import Span
from assay_protocol.errors import AssayError
from assay_protocol.messages import SubmitJob
from sdk.client_network import FakeNetwork
from sdk.test_async_client import connected

FIRST = (1).to_bytes(16, "big")


def traced() -> tuple[list[Span], JobTraces]:
    spans: list[Span] = []
    return spans, JobTraces(spans.append, lambda: int(trio.current_time() * 1e6))


async def test_a_resumed_job_is_one_span_of_its_first_ticket(autojump_clock: object) -> None:
    spans, traces = traced()
    async with connected(FakeNetwork(lose_after={0: 40}), follow=traces.follow) as client:
        await client.complete((11, 12, 13), max_tokens=100)
    (job,) = spans
    assert (job.seed_ticket, job.parent, job.error) == (FIRST, None, "")
    assert job.attributes["gen_ai.usage.output_tokens"] == 100
    assert job.attributes["assay.resumed"] == 1
    assert 0 < job.attributes["assay.first_token_us"] < job.ended_us - job.began_us


async def test_the_two_drawings_of_a_quorum_are_one_trace(autojump_clock: object) -> None:
    spans, traces = traced()
    async with connected(FakeNetwork(end_at=9), follow=traces.follow) as client:
        result = await client.complete((11, 12, 13), max_tokens=20, verify="quorum")
    assert len(result.twins) == 1
    (job,) = spans
    assert job.seed_ticket == FIRST


class Empty(FakeNetwork):
    """It has no credit for anybody: no ticket, and no trace."""

    def answer(self, peer: bytes, message: object) -> object:
        if isinstance(message, SubmitJob):
            raise AssayError("insufficient_credit")
        return super().answer(peer, message)


async def test_a_job_without_a_ticket_has_no_trace(autojump_clock: object) -> None:
    spans, traces = traced()
    async with connected(Empty(), follow=traces.follow) as client:
        with pytest.raises(JobFailed):
            await client.complete((11, 12, 13), max_tokens=100)
    assert spans == []
