"""What simnet's fast driver costs: a network that joins, sends heartbeats, churns and answers jobs.

Everything is on: regions, churn, all checks; each machine's heartbeat is a minute, as a hundred
thousand nodes would have it. Every run is a process of its own, so that its memory is its own.

    fast_cpu_s, fast_mb, fast_events_per_s   of `--nodes` nodes and about `--jobs` jobs
    job_ms           CPU a job, at each size: what was used from the first job on, less what the
                     same nodes used for heartbeats alone in the minute before (so churn counts)
    cost_growth      the largest size's job_ms over the smallest one's. A larger network has fewer
                     jobs for each node, so less is at stake and more of them are audited: that is
                     in it, and `audits_a_job` tells how much
    cost_growth_same_load   the same with `--per-node` jobs for each node at every size up to
                     `--per-node-most` nodes, so that about as many of them are audited
    simpy_ratio      messages a CPU-second of a smaller network's run over what SimPy (a process and
                     a Store for each party) needs to carry the very same messages at the same times
                     between parties that do nothing with them
    live_*           of the live driver: simnet_live.py
    epochs_cpu_s, epochs_mb   a year of `--owners` nodes at level "epochs" (economy.py)

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from typing import Any, Final

import simpy

from assay_simnet.drivers.fast import Fast
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source
from assay_simnet.seen import Driver
from assay_simnet.setting import START

SECOND_US: Final = 1_000_000
WARM_UP_S: Final = 75  # everybody has joined after ten; then a heartbeat each, and nothing else
JOINED_S, IDLE_UNTIL_S = 10, 70
WORK_S: Final = 120
SEED: Final = 1
DAYS: Final = 365
TEXT: Final = """# What does the fast driver cost?
schema = 1
name = "bench"
warm_up = "{warm_up} s"
duration = "{work} s"
[coordinator]
heartbeat = "60 s"
lease = "240 s"
nodes_max = 1_000_000
[population]
nodes = {nodes}
regions = {{ na = 2, eu = 1, asia = 1 }}
[churn]
model = "weibull"
session_mean = "2 h"
[workload]
rate = "{rate} / s"
clients = 400
"""


def scenario(nodes: int, jobs: int) -> Scenario:
    rate = jobs / WORK_S
    text = TEXT.format(nodes=nodes, rate=rate, warm_up=WARM_UP_S, work=WORK_S)
    return read(Source("bench.toml", text))


def fast(nodes: int, jobs: int) -> dict[str, Any]:
    """One run; CPU at the end of each virtual second tells heartbeats' part from jobs'."""
    began = time.process_time()
    world = Fast(scenario(nodes, jobs), SEED)
    spent: dict[int, float] = {}

    def watch(seen: Driver) -> None:
        spent[(seen.now - START) // SECOND_US] = time.process_time()

    world.run(watch)
    cpu_s = time.process_time() - began
    idle = (spent[IDLE_UNTIL_S] - spent[JOINED_S]) / (IDLE_UNTIL_S - JOINED_S)
    worked = spent[max(spent)] - spent[WARM_UP_S] - idle * (max(spent) - WARM_UP_S)
    return {
        "nodes": nodes,
        "jobs": world.record.begun,
        "audits": world.record.logs["verdict"],
        "audits_a_job": round(world.record.logs["verdict"] / world.record.begun, 2),
        "events": world.buckets.done,
        "cpu_s": round(cpu_s, 1),
        "events_per_s": round(world.buckets.done / cpu_s),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "job_ms": round(1e3 * worked / world.record.begun, 3),
        "digest": world.history.digest,
    }


def growth(runs: list[dict[str, Any]]) -> float:
    """What a job costs in the last run over what it does in the first."""
    ratio: float = runs[-1]["job_ms"] / runs[0]["job_ms"]
    return round(ratio, 2)


def against_simpy(nodes: int, jobs: int) -> dict[str, Any]:
    """Messages a CPU-second, ours and SimPy's."""
    sent: list[tuple[int, int, int]] = []
    recorded = Fast(scenario(nodes, jobs), SEED)
    recorded.history.listeners.append(
        lambda now, source, target, _what, _detail: sent.append((now, source, target))
    )
    recorded.run()
    began = time.process_time()
    world = Fast(scenario(nodes, jobs), SEED)
    world.run()
    ours = time.process_time() - began
    assert world.history.digest == recorded.history.digest
    began = time.process_time()
    assert carried(sent) == len(sent)
    theirs = time.process_time() - began
    return {
        "messages": len(sent),
        "ours_per_s": round(len(sent) / ours),
        "simpy_per_s": round(len(sent) / theirs),
        "ratio": round(theirs / ours, 3),
    }


def carried(sent: list[tuple[int, int, int]]) -> int:
    """Let SimPy carry messages (microseconds, from, to); how many arrived."""
    environment = simpy.Environment(initial_time=START)
    by_source: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for at, source, target in sent:
        by_source[source].append((at, target))
    inboxes = {party: simpy.Store(environment) for one in sent for party in one[1:]}
    arrived = 0

    def sends(messages: list[tuple[int, int]]) -> Generator[Any, Any, None]:
        for at, target in messages:
            yield environment.timeout(max(0, at - environment.now))
            yield inboxes[target].put(at)

    def takes(inbox: simpy.Store) -> Generator[Any, Any, None]:
        nonlocal arrived
        while True:
            yield inbox.get()
            arrived += 1

    for inbox in inboxes.values():
        environment.process(takes(inbox))
    for messages in by_source.values():
        environment.process(sends(messages))
    environment.run()
    return arrived


def apart(part: str, nodes: int, jobs: int) -> dict[str, Any]:
    """One part in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--nodes", str(nodes), "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sys.stderr.write(f"{part} {nodes}: {done.stdout}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _by_size(runs: list[dict[str, Any]], figure: str) -> dict[str, Any]:
    return {str(run["nodes"]): run[figure] for run in runs}


def figures(args: argparse.Namespace) -> dict[str, Any]:
    import simnet_live

    sizes = [n for n in (100, 1_000, 10_000) if n < args.nodes]
    runs = [apart("fast", n, args.small_jobs) for n in sizes]
    runs.append(apart("fast", args.nodes, args.jobs))
    loaded = [
        apart("fast", n, args.per_node * n)
        for n in (100, 1_000, 10_000, 100_000)
        if n <= args.per_node_most
    ]
    simpy_run = apart("simpy", args.simpy_nodes, args.small_jobs)
    year = apart("epochs", args.owners, 0)
    last = runs[-1]
    return {
        "nodes": last["nodes"],
        "jobs": last["jobs"],
        "fast_cpu_s": last["cpu_s"],
        "fast_mb": last["mb"],
        "fast_events_per_s": last["events_per_s"],
        "job_ms": _by_size(runs, "job_ms"),
        "audits_a_job": _by_size(runs, "audits_a_job"),
        "cost_growth": growth(runs),
        "job_ms_same_load": _by_size(loaded, "job_ms"),
        "audits_a_job_same_load": _by_size(loaded, "audits_a_job"),
        "cost_growth_same_load": growth(loaded),
        "simpy_ratio": simpy_run["ratio"],
        "messages_per_s": simpy_run["ours_per_s"],
        "simpy_messages_per_s": simpy_run["simpy_per_s"],
        **simnet_live.named(
            apart("live", args.live_hosts, 0),
            apart("live", args.live_idle_hosts, 0),
            apart("live-beats", args.live_idle_hosts, 0),
        ),
        "epochs_cpu_s": year["epochs_cpu_s"],
        "epochs_mb": year["epochs_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=12_000)
    parser.add_argument("--small-jobs", type=int, default=3_000, help="in the smaller networks")
    parser.add_argument("--per-node", type=int, default=3, help="jobs, where load is the same")
    parser.add_argument("--per-node-most", type=int, default=10_000, help="nodes, then")
    parser.add_argument("--owners", type=int, default=1_000_000, help="of the year of epochs")
    parser.add_argument("--simpy-nodes", type=int, default=3_000)
    parser.add_argument(
        "--part",
        choices=("fast", "simpy", "live", "live-beats", "epochs"),
        help="one measurement, in this process",
    )
    parser.add_argument("--live-hosts", type=int, default=2_000)
    parser.add_argument("--live-idle-hosts", type=int, default=1_000)
    args = parser.parse_args()
    if args.part == "fast":
        found = fast(args.nodes, args.jobs)
    elif args.part == "simpy":
        found = against_simpy(args.nodes, args.jobs)
    elif args.part in ("live", "live-beats"):
        import simnet_live  # here: what another level loads is not to count as this one's memory

        live = args.part == "live"
        found = simnet_live.idle(args.nodes) if live else simnet_live.idle(args.nodes, beat="")
    elif args.part == "epochs":
        from economy import economy

        found = economy(args.nodes, DAYS)
    else:
        found = figures(args)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
