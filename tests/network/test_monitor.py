"""The three pages, called as a server calls them and over a real socket."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest
import trio

from asgi_caller import Caller
from assay_network.http_listener import listening_socket
from assay_network.monitor import Monitored, monitor_app, run_monitor
from assay_protocol.errors import AssayError


def monitored(*faults: str) -> Monitored:
    return Monitored(metrics=lambda: b"assay_x 1.0\n", faults=lambda: faults)


async def test_a_process_that_works_says_so_everywhere() -> None:
    caller = Caller(monitor_app(monitored()))
    metrics = await caller.get("/metrics")
    assert (metrics.status_code, metrics.text) == (200, "assay_x 1.0\n")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (await caller.get("/healthz")).status_code == 200
    ready = await caller.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})
    assert ready.headers["cache-control"] == "no-store"


async def test_a_process_that_does_not_lives_and_says_why() -> None:
    caller = Caller(monitor_app(monitored("draining", "not_registered")))
    ready = await caller.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"ready": False, "reasons": ["draining", "not_registered"]}
    assert (await caller.get("/healthz")).status_code == 200


async def test_metrics_are_made_once_a_second_however_many_ask(autojump_clock: Any) -> None:
    made = 0

    def metrics() -> bytes:
        nonlocal made
        made += 1
        return b"%d" % made

    caller = Caller(monitor_app(Monitored(metrics=metrics, faults=list)))
    assert [(await caller.get("/metrics")).text for _ in range(50)] == ["1"] * 50
    await trio.sleep(1)
    assert (await caller.get("/metrics")).text == "2"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("DELETE", "/readyz", 405), ("GET", "/", 404), ("GET", "/x", 404)],
)
async def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    answer = await Caller(monitor_app(monitored())).request(method, path)
    assert answer.status_code == status


async def test_it_is_served_until_it_is_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(run_monitor, monitored("starting"), ("127.0.0.1", 0)))
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{url}/readyz")).status_code == 503
            assert (await client.get(f"{url}/metrics")).text == "assay_x 1.0\n"
        nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken_is_an_operating_error() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        with pytest.raises(AssayError) as caught:
            await run_monitor(monitored(), ("127.0.0.1", taken.getsockname()[1]))
    assert caught.value.code == "port_in_use"
