"""What simnet's live driver costs: production's runtimes joined over libp2p hosts, in virtual time.

    live_hosts         hosts that are registered, of `hosts` that joined and sent heartbeats
    live_mb            the most memory of that run
    live_idle_speedup  virtual seconds a CPU-second, of `idle` hosts that only send heartbeats, each
                       a minute apart, as in the fast driver's runs here
    live_busy_speedup  the same with production's default heartbeat, every five seconds
    live_idle_us, live_busy_us   CPU that one of those hosts costs in a virtual second, microseconds
    live_join_ms       CPU that one of `hosts` costs until all are registered

Called by bench/simnet.py, each part in a process of its own.
"""

from __future__ import annotations

import resource
import time
from typing import Any, Final

from assay_simnet.drivers.live import Live
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source
from assay_simnet.seen import Driver
from assay_simnet.setting import START

SECOND_US: Final = 1_000_000
SEED: Final = 1
JOINED_S: Final = 30  # everybody has, after ten
IDLE_S: Final = 60
TEXT: Final = """# What do idle hosts cost?
schema = 1
level = "live"
name = "idle"
warm_up = "{joined} s"
duration = "{idle} s"
heal = "1 s"
{beat}[population]
nodes = {hosts}
[workload]
arrivals = "none"
clients = 1
"""


SLOW_BEAT: Final = """[coordinator]
heartbeat = "60 s"
lease = "240 s"
"""


def scenario(hosts: int, idle_s: int, beat: str) -> Scenario:
    text = TEXT.format(hosts=hosts, joined=JOINED_S, idle=idle_s, beat=beat)
    return read(Source("idle.toml", text))


def idle(hosts: int, beat: str = SLOW_BEAT, idle_s: int = IDLE_S) -> dict[str, Any]:
    """One run; CPU at the end of each virtual second tells joining from idling."""
    began = time.process_time()
    world = Live(scenario(hosts, idle_s, beat), SEED)
    spent: dict[int, float] = {}
    registered = 0

    def watch(seen: Driver) -> None:
        nonlocal registered
        spent[(seen.now - START) // SECOND_US] = time.process_time()
        registered = sum(node.core is not None and node.core.registered for node in world.nodes)

    world.run(watch)
    idled = spent[JOINED_S + idle_s] - spent[JOINED_S]
    return {
        "hosts": hosts,
        "registered": registered,
        "cpu_s": round(time.process_time() - began, 1),
        "join_ms": round(1e3 * (spent[JOINED_S] - began) / hosts, 2),
        "idle_us": round(1e6 * idled / idle_s / hosts, 1),
        "speedup": round(idle_s / idled, 2),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "digest": world.history.digest,
    }


def named(hosts: dict[str, Any], idling: dict[str, Any], beating: dict[str, Any]) -> dict[str, Any]:
    """The figures of three runs: many hosts, those whose idling is timed, and by default beats."""
    return {
        "live_hosts": hosts["registered"],
        "live_mb": hosts["mb"],
        "live_join_ms": hosts["join_ms"],
        "live_idle_speedup": idling["speedup"],
        "live_idle_us": idling["idle_us"],
        "live_busy_speedup": beating["speedup"],
        "live_busy_us": beating["idle_us"],
    }
