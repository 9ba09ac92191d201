"""Who takes part in a scenario's network, drawn before anything happens.

Plain data: each node and client with what it is, and the names of the streams of chance and of the
keys that are its own. Drivers build their parties from it, so one scenario and seed has one
population at every level, down to who of them cheats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.standing import fresh_row, moved
from assay_simnet import scenario as given
from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.churn import Always, Churn, Random, Traced, read_trace
from assay_simnet.scenario import Adversary, Scenario, number_of
from assay_simnet.schema import read_file
from assay_simnet.seeds import Shares, Stream, Streams


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node. `verified`: audits it passed before anything happens; 0: nobody remembers it."""

    number: int  # among the parties
    region: str
    profile: str
    kind: str  # of its arithmetic
    owner: str  # names its operator's key
    verified: int
    reachable: bool = True  # for strangers: not behind a NAT
    behaviour: str = ""  # empty: honest
    cheat_share: float = 1.0  # of its answers
    cheat_after: int = 0  # honest answers first

    @property
    def key_name(self) -> str:
        return f"node {self.number}"

    @property
    def stream_name(self) -> str:
        return f"node:{self.number}"


@dataclass(frozen=True, slots=True)
class PlannedClient:
    """One client."""

    number: int
    region: str
    behaviour: str = ""
    buys_from: int = 0  # the number of its own owner's node; 0: it is anybody's client

    @property
    def key_name(self) -> str:
        return f"client {self.number}"

    @property
    def stream_name(self) -> str:
        return f"client:{self.number}"


@dataclass(frozen=True, slots=True)
class Roster:
    """Everybody but the coordinator, which is number 0: nodes from 1 on, then clients."""

    nodes: tuple[PlannedNode, ...]
    clients: tuple[PlannedClient, ...]

    @property
    def next_number(self) -> int:
        """The first that nobody has."""
        return 1 + len(self.nodes) + len(self.clients)


def entropy_name(node: int, start: int) -> str:
    """Names the secret of a node's process, which may be started more than once."""
    return f"node entropy {node} {start}"


def planned(scenario: Scenario, streams: Streams) -> Roster:
    """Draws everybody, from streams of their own."""
    nodes = tuple(_behind(scenario, streams, _nodes(scenario, streams.stream("population"))))
    clients = tuple(_clients(scenario, streams.stream("clients"), 1 + len(nodes)))
    buyers = tuple(_buyers(nodes, 1 + len(nodes) + len(clients)))
    return Roster(nodes, clients + buyers)


def _buyers(nodes: Sequence[PlannedNode], first: int) -> Iterator[PlannedClient]:
    """Clients of nodes' own owners."""
    selling = (node for node in nodes if node.behaviour and BEHAVIOURS[node.behaviour].buys)
    for number, node in enumerate(selling, first):
        yield PlannedClient(number, node.region, node.behaviour, node.number)


def remembered(
    key: bytes, operator: bytes, verified: int, policy: Policy, now: int, since: int | None = None
) -> NodeRow:
    """What the coordinator's tables hold of a node that was here before; `since` (else `now`): when
    it became active."""
    row = fresh_row(key, operator, now)
    if verified >= policy.probation_audits:
        row = moved(row, "active", now if since is None else since)
    return replace(row, verified=verified)


class Comings:
    """When each node comes and goes. Raises ScenarioError where the trace cannot be read."""

    def __init__(self, churn: given.Churn, streams: Streams) -> None:
        self._given, self._streams = churn, streams
        traced = churn.model == "trace"
        self._rows: Sequence[tuple[int, int]] = (
            read_trace(read_file(Path(churn.trace))) if traced else ()
        )

    def of(self, number: int, region: str) -> Churn:
        """One node's law, from its start."""
        churn = self._given
        stream = self._streams.stream(f"churn:{number}")
        if churn.model == "none":
            return Always()
        if churn.model == "trace":
            return Traced(self._rows, stream.below(len(self._rows)))
        session, away = churn.session_mean, churn.away_mean
        return Random(churn.model, stream, session, away, churn.shape, region)

    def drains(self, number: int, now: int) -> bool:
        """Whether it leaves in order this time."""
        return self._streams.stream(f"leaves:{number}:{now}").chance(self._given.clean)


def _nodes(scenario: Scenario, draw: Stream) -> list[PlannedNode]:
    population = scenario.population
    cheats = [
        one
        for one in scenario.adversaries
        for _ in range(number_of(one, population.nodes))
        if not BEHAVIOURS[one.behaviour].of_clients
    ]
    order = list(range(population.nodes))
    for place in range(len(cheats)):  # who of them cheats is drawn, too
        other = place + draw.below(len(order) - place)
        order[place], order[other] = order[other], order[place]
    by_place = dict(zip(order, cheats, strict=False))
    regions, profiles = Shares(population.regions), Shares(population.profiles)
    kinds = Shares(population.classes)
    nodes = []
    for place in range(population.nodes):
        honest = PlannedNode(
            number=1 + place,
            region=regions.draw(draw),
            profile=profiles.draw(draw),
            kind=kinds.draw(draw),
            owner=f"owner {place % population.operators if population.operators else place}",
            verified=population.verified if draw.chance(population.established) else 0,
        )
        adversary = by_place.get(place)
        nodes.append(_turned(honest, place, adversary) if adversary else honest)
    return nodes


def _behind(scenario: Scenario, streams: Streams, nodes: list[PlannedNode]) -> list[PlannedNode]:
    """Who of them is behind a NAT. Production neither relays nor punches holes: a node is dialled
    where it says it is, so one that has no port forwarded is not reached, whatever its NAT does."""
    draw, kinds = streams.stream("nat"), Shares(scenario.population.nat)
    return [replace(one, reachable=kinds.draw(draw) == "open") for one in nodes]


def _turned(node: PlannedNode, place: int, adversary: Adversary) -> PlannedNode:
    """The node as one of the adversary's."""
    owner = place % adversary.operators if adversary.operators else place
    return replace(
        node,
        owner=f"{adversary.behaviour} {owner}",
        verified=adversary.verified,
        behaviour=adversary.behaviour,
        cheat_share=adversary.cheat,
        cheat_after=adversary.after,
    )


def _clients(scenario: Scenario, draw: Stream, first: int) -> list[PlannedClient]:
    count = scenario.workload.clients
    riders = [
        one.behaviour
        for one in scenario.adversaries
        if BEHAVIOURS[one.behaviour].of_clients
        for _ in range(number_of(one, count))
    ]
    regions = Shares(scenario.population.regions)
    return [
        PlannedClient(
            first + place, regions.draw(draw), riders[place] if place < len(riders) else ""
        )
        for place in range(count)
    ]
