"""Lets a scenario's sessions begin and its nodes come and go, at the times that its laws draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from assay_simnet import traces
from assay_simnet.arrivals import Turns, sessions
from assay_simnet.churn import Churn
from assay_simnet.roster import Comings
from assay_simnet.scenario import Scenario
from assay_simnet.seeds import Streams
from assay_simnet.setting import START


class Timetable(Protocol):
    """A clock that calls back. Microseconds since the epoch."""

    @property
    def now(self) -> int: ...

    def at(self, at_us: int, call: Callable[..., None], *args: Any) -> None: ...

    def after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None: ...


class Comer(Protocol):
    """A node that comes and goes."""

    number: int
    region: str

    @property
    def up(self) -> bool: ...  # it has a process
    @property
    def draining(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def drain(self) -> None: ...


class Asker(Protocol):
    """A client."""

    def begin(self, turns: Turns) -> None: ...


class Traffic:
    """One run's. Raises ScenarioError where a trace cannot be read."""

    def __init__(
        self,
        scenario: Scenario,
        streams: Streams,
        times: Timetable,
        nodes: Sequence[Comer],
        clients: Sequence[Asker],
    ) -> None:
        self._scenario, self._streams, self._times = scenario, streams, times
        self._nodes, self._clients = nodes, clients
        self._comings = Comings(scenario.churn, streams)
        self._laws: dict[int, Churn] = {}
        self._whose = streams.stream("whose")
        self._begins = START + scenario.warm_up
        self.ends = self._begins + scenario.duration  # after it nobody leaves or asks anew

    def come_and_go(self) -> None:
        """Everybody is about to start; the first leaves when the warm-up is over."""
        for node in self._nodes:
            law = self._laws[node.number] = self._comings.of(node.number, node.region)
            stays = law.stays_us(self._times.now)
            if stays is not None:
                self._times.at(self._begins + stays, self._leave, node)

    def ask(self) -> None:
        """Sessions from now on."""
        work = self._scenario.workload
        trace: list[traces.Ask] = []
        if work.arrivals == "trace":
            file = None if work.trace_file == "-" else Path(work.trace_file)
            trace = traces.load(work.trace, file)
        self._next(sessions(work, self._streams.stream("workload"), trace))

    def _next(self, coming: Iterator[Turns]) -> None:
        turns = next(coming, None)
        if turns is not None and self._begins + turns.at_us < self.ends:
            self._times.at(self._begins + turns.at_us, self._session, turns, coming)

    def _session(self, turns: Turns, coming: Iterator[Turns]) -> None:
        if turns.asks[0].session:  # a trace's own: one client each
            place = sum(turns.asks[0].session.encode()) % len(self._clients)
        else:
            place = self._whose.below(len(self._clients))
        self._clients[place].begin(turns)
        self._next(coming)

    def _leave(self, node: Comer) -> None:
        """One node's stay is over; it comes back, until the heal phase."""
        now = self._times.now
        if now >= self.ends:
            return
        if node.up:
            if self._comings.drains(node.number, now):
                node.drain()
            else:
                node.stop()
        self._times.after(self._laws[node.number].away_us(now), self._return, node)

    def _return(self, node: Comer) -> None:
        if node.draining:
            node.stop()
        if not node.up:
            node.start()
        stays = self._laws[node.number].stays_us(self._times.now)
        if stays is not None:
            self._times.after(stays, self._leave, node)
