"""Real processes are asked over HTTP how they do, while they serve a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from assay_coordinator.cli import main
from assay_simnet.drivers.real import real_network
from end_to_end.places import write_card
from end_to_end.scripted_network import (
    CLIENT,
    FAUCET,
    POLICY,
    RawJob,
    granted,
    start_paced,
    wait_booked,
)
from free_ports import free_port
from prometheus_text import samples

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


async def test_a_network_is_watched_while_it_serves(tmp_path: Path) -> None:
    ours, theirs = (f"127.0.0.1:{free_port()}" for _ in range(2))
    async with real_network(tmp_path) as network, httpx.AsyncClient(trust_env=False) as web:
        await network.start_coordinator(POLICY, write_card(tmp_path), FAUCET, ("--http", ours))
        await start_paced(network, "node-a", 0.0, metrics=theirs)
        assert (await RawJob(await granted(network, 5)).whole()).n_out == 5
        await wait_booked(network, 1)
        for address in (ours, theirs):
            ready = await web.get(f"http://{address}/readyz")
            assert (ready.status_code, ready.json()["reasons"]) == (200, [])
        coordinator = (await web.get(f"http://{ours}/metrics")).content
        await looks_right(web, f"http://{ours}", network.key_of("node-a").hex())
        node = (await web.get(f"http://{theirs}/metrics")).content
        await shown_by_top(ours, theirs, network.key_of("node-a").hex())
        await network.kill_and_reap("coordinator")
        shown = await top_told("--coordinator", ours, "--count", "1")
        assert (shown["network"]["state"], shown["network"]["fault"]) == ("gone", "unreachable")
        with trio.fail_after(60):
            while (lost := await web.get(f"http://{theirs}/readyz")).status_code == 200:
                await trio.sleep(0.05)
        assert "no_session" in lost.json()["reasons"]
    seen = samples(coordinator)
    assert seen['assay_replies_total{code="",message="TicketGrant"}'] == 1
    assert seen['assay_credit_total{reason="reserve"}'] > 0
    assert seen["assay_nodes_present"] == 1
    assert seen["assay_db_commit_batch_size_count"] > 0
    seen = samples(node)
    assert seen["assay_generation_tokens_total"] == 5
    assert seen["assay_e2e_request_latency_seconds_count"] == 1
    keys = (CLIENT.public_key.hex(), network.key_of("node-a").hex())
    assert [key for key in keys if key[:8].encode() in coordinator + node] == []


async def looks_right(web: httpx.AsyncClient, url: str, node: str) -> None:
    """The dashboard of the same door shows the job and the node that did it."""
    assert "Assay network" in (await web.get(url)).text
    seen = (await web.get(f"{url}/api/network")).json()
    assert (seen["jobs"], seen["nodes"]["present"], seen["faults"]) == (1, 1, [])
    (job,) = (await web.get(f"{url}/api/jobs")).json()["items"]
    assert (job["node"], job["tokens_out"], job["model"]["name"]) == (node, 5, "scripted")
    assert (await web.get(f"{url}/api/models")).json()["items"][0]["license"]
    one = (await web.get(f"{url}/api/nodes/{node}")).json()
    assert one["state"] == "probation"
    assert one["device"]
    assert CLIENT.public_key.hex() not in (await web.get(f"{url}/api/jobs/{job['ticket']}")).text


async def shown_by_top(coordinator: str, node: str, key: str) -> None:
    """The node and the network it is of."""
    given = ["--node", node, "--coordinator", coordinator, "--interval", "0.2", "--count", "2"]
    shown = await top_told(*given)
    (row,) = shown["nodes"]
    told = [row[name] for name in ("source", "node", "state", "standing", "jobs_done", "model")]
    assert told == [node, key, "serving", "probation", 1, "scripted"]
    assert (row["tokens_out_per_second"], row["memory"] > 0) == (0, True)
    assert row["history"] == [0]
    assert (shown["network"]["state"], shown["network"]["jobs"]) == ("ready", 1)


async def top_told(*given: str) -> dict[str, Any]:
    """The last that `assay top`, a program of its own, says."""
    program = [str(Path(sys.executable).with_name("assay")), "top", "--json", *given]
    done = await trio.run_process(program, capture_stdout=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_an_address_that_is_none_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["start", "--data-dir", str(tmp_path / "c"), "--http", "9100"])
    assert stopped.value.code == 2
    assert "--http must be HOST:PORT, not '9100'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
