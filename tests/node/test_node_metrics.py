"""What a node tells Prometheus: each number from what happened, none that names anybody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import trio

from assay_network.http_listener import listening_socket
from assay_node.app import run_node
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.engine.interface import Chunk, Finish, Generate, Replayed
from assay_node.engine.scripted import Script
from assay_node.metrics import NodeMetrics
from assay_protocol.errors import AssayError
from free_ports import free_port
from node.app_world import CLIENT, COORDINATOR, QUICK, SAMPLER, node_key, open_world
from prometheus_text import label_names, samples

SECOND = 1_000_000
LABELS = {"finished_reason", "le", "outcome", "phase", "purse", "state", "verdict"}


def drawn(stream: int, tokens: int, finish: Finish | None = None) -> on.Drawn:
    return on.Drawn(stream, Chunk(tuple(range(tokens)), b"", finish))


def started(stream: int, prompt: int) -> do.StartGenerate:
    generate = Generate(tuple(range(prompt)), 0, 100, SAMPLER, bytes(32))
    return do.StartGenerate(stream, generate, bytes(32))


def opened(stream: int) -> on.StreamOpened:
    return on.StreamOpened(stream, CLIENT.public_key, b"")


def finished(reason: str) -> do.Log:
    return do.Log("job_finished", (("finish", reason), ("n_out", 11)))


def test_an_answer_s_times_are_those_of_its_events() -> None:
    metrics = NodeMetrics()
    metrics.observe(0, opened(1), [])
    metrics.observe(2 * SECOND, on.Tick(), [started(1, prompt=7)])
    metrics.observe(3 * SECOND, drawn(1, 1), [do.NextChunk(1)])
    metrics.observe(4 * SECOND, drawn(1, 4), [do.NextChunk(1)])
    ended = [do.SendFrame(1, b"receipt", last=True), finished("stop")]
    metrics.observe(9 * SECOND, drawn(1, 6, "stop"), ended)
    metrics.observe(10 * SECOND, on.StreamLost(1), [])
    seen = samples(metrics.text())
    assert seen["assay_request_queue_time_seconds_sum"] == 2
    assert seen["assay_time_to_first_token_seconds_sum"] == 3
    assert seen["assay_inter_token_latency_seconds_count"] == 2
    assert seen["assay_inter_token_latency_seconds_sum"] == pytest.approx(1 / 4 + 5 / 6)
    assert seen["assay_request_time_per_output_token_seconds_sum"] == pytest.approx(6 / 10)
    assert seen["assay_e2e_request_latency_seconds_sum"] == 9
    assert seen["assay_prompt_tokens_total"] == 7
    assert seen['assay_request_success_total{finished_reason="stop"}'] == 1


def test_what_ends_early_has_no_time_of_a_whole_answer() -> None:
    metrics = NodeMetrics()
    metrics.observe(0, opened(1), [do.SendFrame(1, b"refused", last=True), do.CloseStream(1)])
    metrics.observe(0, opened(2), [started(2, prompt=1)])
    metrics.observe(SECOND, drawn(2, 1), [])
    metrics.observe(2 * SECOND, on.StreamLost(2), [finished("cancelled")])
    metrics.observe(3 * SECOND, on.StreamLost(2), [])  # told twice of one that was being read
    metrics.observe(3 * SECOND, drawn(2, 1), [])  # an engine that had not heard yet
    seen = samples(metrics.text())
    assert seen["assay_time_to_first_token_seconds_count"] == 1
    assert seen["assay_e2e_request_latency_seconds_count"] == 0
    assert seen["assay_inter_token_latency_seconds_count"] == 0
    assert seen['assay_request_success_total{finished_reason="cancelled"}'] == 1


def test_a_clock_that_is_set_back_gives_no_negative_time() -> None:
    metrics = NodeMetrics()
    metrics.observe(5 * SECOND, opened(1), [started(1, prompt=1)])
    metrics.observe(4 * SECOND, drawn(1, 1), [])
    assert samples(metrics.text())["assay_time_to_first_token_seconds_sum"] == 0


def test_replays_are_counted_by_how_they_ended() -> None:
    metrics = NodeMetrics()
    metrics.observe(0, on.ReplayDone(b"a", cast(Replayed, SimpleNamespace())), [])
    metrics.observe(0, on.ReplayFailed(b"b", "engine_failed"), [])
    seen = samples(metrics.text())
    assert seen['assay_replays_total{outcome="done"}'] == 1
    assert seen['assay_replays_total{outcome="engine_failed"}'] == 1


async def test_a_running_node_is_ready_counts_its_job_and_names_nobody(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with open_world(tmp_path) as world:
        settings = world.settings(metrics=address)
        script = Script(end_bias=-100.0)
        async with world.node(script, settings) as node, httpx.AsyncClient(trust_env=False) as web:
            await world.run_job(world.ticket(node.register, 1), node.register)
            ready = await web.get(f"http://{address}/readyz")
            text = (await web.get(f"http://{address}/metrics")).text
            status = (await web.get(f"http://{address}/status")).json()
    told = ("tokens", "jobs_done", "state", "metrics", "last_error", "limits")
    assert [status[name] for name in told] == [100, 1, "active", f"http://{address}", "", {}]
    assert status["machine"]["memory"] > status["machine"]["memory_used"] > 0
    assert (ready.status_code, ready.json()["reasons"]) == (200, [])
    seen = samples(text.encode())
    assert label_names(text.encode()) == LABELS
    assert seen["assay_generation_tokens_total"] == 100
    assert seen['assay_jobs_total{outcome="done"}'] == 1
    assert seen['assay_node_state{state="active"}'] == 1
    assert seen["assay_time_to_first_token_seconds_count"] == 1
    assert seen["assay_e2e_request_latency_seconds_count"] == 1
    for key in (CLIENT.public_key, COORDINATOR.public_key, node_key(tmp_path)):
        assert key.hex()[:8] not in text


async def test_a_node_without_a_coordinator_says_what_is_missing(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with open_world(tmp_path) as world:
        patient = replace(QUICK, retry_base_us=QUICK.retry_max_us)  # does not come back meanwhile
        settings = world.settings(metrics=address)
        async with world.node(settings=settings, parameters=patient):
            [session] = world.coordinator.sessions
            session.end(AssayError("peer_gone"))
            async with httpx.AsyncClient(trust_env=False) as web:
                with trio.fail_after(30):  # until it has seen the end
                    while (ready := await web.get(f"http://{address}/readyz")).is_success:
                        await trio.sleep(0.01)
                alive = await web.get(f"http://{address}/healthz")
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert "no_session" in ready.json()["reasons"]


async def test_a_taken_port_prevents_the_start(tmp_path: Path) -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        async with open_world(tmp_path) as world:
            settings: Any = world.settings(metrics=f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(AssayError) as caught:
                await run_node(settings, host_factory=world.host, parameters=QUICK)
    assert caught.value.code == "port_in_use"


def test_an_address_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from assay_node.cli import main

    assert main(["start", "--metrics", "9101", "--data-dir", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--metrics", "0.0.0.0:9101"],
        ["--metrics", "127.0.0.1:9101", "--metrics-name", "a name"],
        ["--metrics-open"],
    ],
)
def test_who_may_read_them_is_asked_before_anything_starts(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from assay_node.cli import main

    words = ["start", "--coordinator", f"{'00' * 32}@/ip4/127.0.0.1/tcp/1", *flags]
    assert main([*words, "--data-dir", str(tmp_path / "x")]) == 2
    assert "config_invalid" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.key"))
