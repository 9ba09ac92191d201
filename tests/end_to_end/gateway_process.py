"""A gateway as a process beside a real network, and where it is reached."""

from __future__ import annotations

from assay_simnet.drivers.real import RealNetwork


async def start_gateway(network: RealNetwork, *words: str) -> str:
    """`assay gateway` with `words`; its URL, once it serves."""
    return await network.start_gateway(*words)
