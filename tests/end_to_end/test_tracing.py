"""One trace of one job through gateway, coordinator, node and auditor: a process each."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio

from assay_protocol.traces import PARENTS
from assay_simnet.drivers.real import real_network
from end_to_end.gateway_process import start_gateway
from end_to_end.places import write_card
from end_to_end.scripted_network import FAUCET, POLICY, start_paced
from free_ports import free_port
from otlp_receiver import Got, Receiver, otlp_receiver

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
SECRET = "what nobody but the node may read"
SERVICES = {
    "job": "assay-gateway",
    "booking": "assay-coordinator",
    "answer": "assay-node",
    "queue": "assay-node",
    "prefill": "assay-node",
    "decode": "assay-node",
    "audit": "assay-coordinator",
    "replay": "assay-node",
}


async def test_one_job_is_one_trace(tmp_path: Path) -> None:
    with otlp_receiver() as receiver:
        async with real_network(tmp_path) as network:
            network.address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/"
            more = ["--otlp", receiver.url]
            await network.start_coordinator(POLICY, write_card(tmp_path), FAUCET, more)
            for name in ("node-a", "node-b"):
                await start_paced(network, name, 0.002, otlp=receiver.url)
            url = await start_gateway(network, "--otlp", receiver.url)
            async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                tickets = [await ask(http) for _ in range(2)]
            with trio.fail_after(60):
                while len(receiver.spans) < 2 * len(SERVICES):
                    await trio.sleep(0.2)
    assert set(receiver.paths) == {"/v1/traces"}
    traces = {one.trace for one in receiver.spans}
    assert len(traces) == 2, "one for each job"
    for trace in traces:
        check([one for one in receiver.spans if one.trace == trace])
    check_private(receiver, tickets)


async def ask(http: httpx.AsyncClient) -> str:
    """An answer that is audited at once; its ticket."""
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": SECRET}],
        "max_tokens": 24,
        "verify": "now",
    }
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["assay"]["verdict"] == "passed"
    (receipt,) = answer.json()["assay"]["receipts"]
    return str(receipt).partition("-")[0]


def check(spans: list[Got]) -> None:
    """The right parties, parents, times and counts."""
    by_name = {one.name.removeprefix("assay."): one for one in spans}
    assert {name: one.service for name, one in by_name.items()} == SERVICES
    for name, one in by_name.items():
        above = PARENTS[name]
        assert one.parent == ("" if above is None else by_name[above].span), name
        assert 0 < one.began <= one.ended
        assert not one.failed
    job, answer, decode = by_name["job"], by_name["answer"], by_name["decode"]
    assert job.began <= answer.began <= decode.began <= decode.ended <= answer.ended
    assert by_name["booking"].ended <= by_name["audit"].ended
    for one in (job, answer, by_name["booking"]):
        assert one.attributes["gen_ai.usage.output_tokens"] == 24
    assert by_name["audit"].attributes["assay.outcome"] == "passed"


def check_private(receiver: Receiver, tickets: list[str]) -> None:
    """Nothing that was said, and no ticket, stands in what was sent."""
    sent = bytes(receiver.raw)
    assert SECRET.encode() not in sent
    for ticket in tickets:
        assert bytes.fromhex(ticket) not in sent
        assert ticket.encode() not in sent
