"""The network of the live driver: real hosts over pipes in memory, between the scenario's regions.

Connections keep order and send again what was lost, as TCP does, so nothing is ever doubled or
re-ordered, and a fault of kind "loss" is a delay. A partition holds back what was sent; who hears
nothing for long gives the connection up, by production's own pings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from assay_network.host import Host, open_host
from assay_network.identity import peer_text
from assay_network.memory import MemoryNetwork, named_keys
from assay_simnet.links import Links


class Wires:
    """Where every key is, and what lies between."""

    def __init__(self, links: Links, seed: int) -> None:
        self._links, self._regions = links, dict[bytes, str]()
        self._network = MemoryNetwork(
            latency=self._seconds,
            loss=lambda source, target: links.weather.loss,
            reaches=self._reaches,
            seed=seed,
        )

    def place(self, key: bytes, region: str) -> str:
        """A peer's address, its own for the whole run."""
        self._regions[key] = region
        return self._network.address()

    def known_as(self, key: bytes, address: str) -> str:
        """The address as others are told it."""
        return f"{address}/p2p/{peer_text(key)}"

    @asynccontextmanager
    async def host(self, key: bytes, *listen: str) -> AsyncIterator[Host]:
        """A host of that key, which need not be one of Ed25519."""
        transports = [self._network.transport(key)]
        keys = named_keys(key)
        try:
            async with open_host(key, listen, transports=transports, keys=keys) as host:
                yield host
        finally:
            self._network.gone(key)

    def kill(self, key: bytes) -> None:
        """Its process is gone: every connection ends, at both ends."""
        self._network.gone(key)

    def freeze(self, key: bytes) -> None:
        self._network.freeze(key)

    def thaw(self, key: bytes) -> None:
        self._network.thaw(key)

    def changed(self) -> None:
        """A partition began or ended."""
        self._network.changed()

    def _seconds(self, source: bytes, target: bytes) -> float:
        return self._links.delay_us(self._regions[source], self._regions[target]) / 1e6

    def _reaches(self, source: bytes, target: bytes) -> bool:
        return self._links.reaches(self._regions[source], self._regions[target])
