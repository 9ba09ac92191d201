"""Builds a py-libp2p swarm with the safe parts only. The one place that names stock defaults."""

from __future__ import annotations

from typing import Any, Final, Literal

from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.upgrader import TransportUpgrader

from assay_network.fastyamux import FastMuxer, FastYamux, StockMuxer

CONNECTIONS_PER_PEER_MAX: Final = 4


def build_swarm(
    keys: KeyPair,
    *,
    muxer: Literal["fast", "stock"],
    transports: list[Any],
    connections_max: int,
) -> Any:
    """A swarm that dials only when told to, holds `connections_max` connections, trusts Noise."""
    # Never the default security options: they offer plaintext, where anybody can claim any key.
    noise = Noise(keys, noise_privkey=new_x25519().private_key)
    upgrader = TransportUpgrader({NOISE: noise}, {YAMUX: Yamux})
    upgrader.muxer_multistream = (
        FastMuxer({YAMUX: FastYamux}) if muxer == "fast" else StockMuxer({YAMUX: Yamux})
    )
    peer = ID.from_pubkey(keys.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer, keys)
    swarm = Swarm(
        peer,
        peerstore,
        upgrader,
        transports=transports,
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            min_connections=0,
            low_watermark=0,
            high_watermark=connections_max,
            max_connections=connections_max,
            max_connections_per_peer=CONNECTIONS_PER_PEER_MAX,
        ),
    )
    # Its watermarks cannot switch it off: it dials known peers until half of the maximum is
    # reached.
    swarm.auto_connector = _NeverConnects()
    return swarm


class _NeverConnects:
    """Stands where the swarm expects its auto-connector: we dial when we are told to, only."""

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def run_background_task(self, nursery: Any) -> None:
        """No task: an idle host stays idle, also on a virtual clock."""

    async def maybe_connect(self) -> None:
        """Never connects."""

    def record_disconnect(self, peer_id: Any) -> None:
        """Keeps no back-off; whoever dials decides when."""
