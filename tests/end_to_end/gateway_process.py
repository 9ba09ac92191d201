"""A gateway as a process beside a real network, and where it is reached."""

from __future__ import annotations

import sys

import trio

from assay_simnet.drivers.real import Lines, RealNetwork

START_SECONDS_MAX = 30.0


async def start_gateway(network: RealNetwork, *words: str) -> str:
    """`assay gateway` with `words`; its URL, once it serves."""
    command = [sys.executable, "-m", "assay", "gateway", "--coordinator", network.address]
    command += ["--listen", "127.0.0.1:0", "--data-dir", str(network.folder / "gateway")]
    command += ["--key", str(network.folder / "gateway.key"), *words]
    process = await network.spawn("gateway", command)
    assert process.stdout is not None
    with trio.fail_after(START_SECONDS_MAX):
        ready = await Lines(process.stdout).next()
    url: str = ready["ready"]
    return url
