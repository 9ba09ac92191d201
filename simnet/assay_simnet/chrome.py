"""A run as trace.json in Chrome's trace format: chrome://tracing and Perfetto show it.

Each client has a row of its jobs, from the question to the first token and on to the end; each node
a row of the answers it finished; the coordinator one of what its operator would see. Lines are
written as jobs end, so an interrupted run has all that ended.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from assay_coordinator.core.events import Log
from assay_simnet.record import JobLine
from assay_simnet.seen import Driver
from assay_simnet.setting import START

FILE: Final = "trace.json"
COORDINATOR, CLIENTS, NODES = 0, 1, 2  # as processes
_NAMES: Final = {COORDINATOR: "coordinator", CLIENTS: "clients", NODES: "nodes"}


class ChromeTrace:
    """Listens to a world's record until it is closed."""

    def __init__(self, folder: Path, world: Driver) -> None:
        self._world = world
        self._file = (folder / FILE).open("w", encoding="utf-8")
        self._file.write("[")
        self._between = "\n"
        self._count = 0
        for pid, name in _NAMES.items():
            self._put("M", pid, 0, "process_name", None, args={"name": name})
        for node in world.nodes:
            label = f"#{node.number} {node.behaviour or 'honest'} {node.region} {node.profile}"
            self._put("M", NODES, node.number, "thread_name", None, args={"name": label})
        world.record.listeners.append(self)

    def __enter__(self) -> ChromeTrace:
        return self

    def __exit__(self, *error: object) -> None:
        self._phases()
        self._file.write("\n]\n")
        self._file.close()

    def ended(self, line: JobLine) -> None:
        self._count += 1
        about = {
            "finish": line.finish or "-",
            "n_in": line.n_in,
            "tokens": line.tokens,
            "attempts": line.attempts,
            "nodes": list(line.nodes),
        }
        end = max(line.ended_us, line.begun_us)
        self._span(CLIENTS, line.client, "job", line.begun_us, end, about)
        if line.first_us:
            self._span(CLIENTS, line.client, "to first token", line.begun_us, line.first_us, {})
            if line.nodes:
                self._span(NODES, line.nodes[-1], "answer", line.first_us, end, about)

    def logged(self, now: int, log: Log) -> None:
        about = {key: str(value) for key, value in log.fields}
        self._put("i", COORDINATOR, 0, log.event, now, s="t", args=about)

    def _phases(self) -> None:
        scenario, now = self._world.scenario, self._world.now
        at = START
        for name, length in (("warm-up", scenario.warm_up), ("safety", scenario.duration)):
            self._span(COORDINATOR, 0, name, at, min(at + length, now), {})
            at = min(at + length, now)
        self._span(COORDINATOR, 0, "heal", at, now, {})

    def _span(self, pid: int, tid: int, name: str, begin: int, end: int, args: Any) -> None:
        """Spans of one row may overlap, so both ends are written."""
        ident = f"{self._count}.{name}"
        self._put("b", pid, tid, name, begin, cat="run", id=ident, args=args)
        self._put("e", pid, tid, name, end, cat="run", id=ident)

    def _put(self, kind: str, pid: int, tid: int, name: str, at: int | None, **more: Any) -> None:
        event = {"ph": kind, "pid": pid, "tid": tid, "name": name, **more}
        if at is not None:
            event["ts"] = at - START  # microseconds
        self._file.write(self._between + json.dumps(event))
        self._between = ",\n"
