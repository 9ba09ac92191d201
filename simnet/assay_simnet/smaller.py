"""What is smaller than a scenario: fewer faults, cheats, parties and jobs, calmer, and shorter.

A step is a generator. It yields smaller scenarios, each smaller than one that still fails, is sent
whether that one still fails, and returns the smallest that did. Nothing here can make a failure
appear that the scenario had not: the warm-up, the heal phase, the policy's deadlines and what is
checked stay as they are, as a heal phase too short would leave jobs open in a network that is
sound. One may be in reach only through others, so steps are gone through until none helps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Final

from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.scenario import (
    Adversary,
    Churn,
    Network,
    Scenario,
    number_of,
)

Search = Generator[Scenario, bool, Scenario]
Step = Callable[[Scenario], Search]
SECOND: Final = 1_000_000
RATE_LEAST: Final = 0.02  # a second


def ends_at(scenario: Scenario, us: int) -> Scenario:
    """The same with a safety phase that ends `us` after it began: what would last longer lasts
    until then, what begins later does not."""
    kept = []
    for fault in scenario.faults:
        if fault.at >= us:
            continue
        if fault.at + fault.for_ > us:
            fault = replace(fault, for_=0, every=0)  # until the safety phase ends
        kept.append(fault)
    return replace(scenario, duration=us, faults=tuple(kept))


# ---- the kinds of steps ------------------------------------------------------------------------


def _once(change: Callable[[Scenario], Scenario]) -> Step:
    """One change, as a whole."""

    def step(scenario: Scenario) -> Search:
        changed = change(scenario)
        return changed if changed != scenario and (yield changed) else scenario

    return step


def _fewer(name: str) -> Step:
    """Items of a list: large parts are left out first, at last single ones."""

    def step(scenario: Scenario) -> Search:
        best, items = scenario, getattr(scenario, name)
        size = len(items)
        while size:
            at = 0
            while at < len(items):
                left = items[:at] + items[at + size :]
                smaller = replace(best, **{name: left})
                if (yield smaller):
                    best, items = smaller, left
                else:
                    at += size
            size //= 2
        return best

    return step


def _less(
    value: Callable[[Scenario], int], put: Callable[[Scenario, int], Scenario], least: int
) -> Step:
    """A whole number: the least one, else the least that halving the distance finds."""

    def step(scenario: Scenario) -> Search:
        best, low, high = scenario, least, value(scenario)
        middle = low
        while low < high:
            smaller = put(best, middle)
            if (yield smaller):
                best, high = smaller, middle
            else:
                low = middle + 1
            middle = (low + high) // 2
        return best

    return step


def _each(name: str, step: Callable[[int], Step]) -> Step:
    """A step for each item of a list, by its place."""

    def steps(scenario: Scenario) -> Search:
        best = scenario
        for place in range(len(getattr(scenario, name))):
            best = yield from step(place)(best)
        return best

    return steps


# ---- the steps ---------------------------------------------------------------------------------


def _part(table: str, **changes: Any) -> Callable[[Scenario], Scenario]:
    def change(scenario: Scenario) -> Scenario:
        return replace(scenario, **{table: replace(getattr(scenario, table), **changes)})

    return change


def _number(table: str, key: str, least: int) -> Step:
    return _less(
        lambda scenario: int(getattr(getattr(scenario, table), key)),
        lambda scenario, number: _part(table, **{key: number})(scenario),
        least,
    )


def _with(scenario: Scenario, name: str, place: int, **changes: Any) -> Scenario:
    """One item of a list changed."""
    items = list(getattr(scenario, name))
    items[place] = replace(items[place], **changes)
    changed: dict[str, Any] = {name: tuple(items)}
    return replace(scenario, **changed)


def _fault(place: int) -> Step:
    """Once, not again and again."""
    return _once(lambda scenario: _with(scenario, "faults", place, every=0))


def _adversary(place: int) -> Step:
    """Fewer of them; a share becomes a count."""

    def count(scenario: Scenario) -> int:
        one: Adversary = scenario.adversaries[place]
        clients = BEHAVIOURS[one.behaviour].of_clients
        work, population = scenario.workload, scenario.population
        return number_of(one, work.clients if clients else population.nodes)

    def put(scenario: Scenario, number: int) -> Scenario:
        return _with(scenario, "adversaries", place, count=number, fraction=0.0)

    return _less(count, put, 1)


def _one_kind(table: str, key: str, name: Callable[[Scenario], str]) -> Step:
    """One of the names among which shares are drawn."""

    def change(scenario: Scenario) -> Scenario:
        shares: dict[str, float] = getattr(getattr(scenario, table), key)
        return (
            _part(table, **{key: {name(scenario): 1.0}})(scenario) if len(shares) > 1 else scenario
        )

    return _once(change)


def _rarer(scenario: Scenario) -> Search:
    """Half as many sessions, again and again."""
    best, key = scenario, "rate_scale" if scenario.workload.arrivals == "trace" else "rate"
    while (rate := getattr(best.workload, key)) > 2 * RATE_LEAST:
        smaller = _part("workload", **{key: rate / 2})(best)
        if not (yield smaller):
            break
        best = smaller
    return best


def _first(key: str) -> Callable[[Scenario], str]:
    return lambda scenario: next(iter(getattr(scenario.population, key)))


def _still(scenario: Scenario) -> Scenario:
    """Wide lines, and nothing lost on the way."""
    return replace(scenario, network=Network(jitter=0, coordinator=scenario.network.coordinator))


STEPS: Final[tuple[Step, ...]] = (
    _less(lambda scenario: -(-scenario.duration // SECOND), lambda s, n: ends_at(s, n * SECOND), 1),
    _fewer("faults"),
    _fewer("adversaries"),
    _once(lambda scenario: replace(scenario, churn=Churn())),
    _once(_still),
    _once(_part("network", loss=0.0)),
    _once(_part("network", jitter=0)),
    _once(_part("workload", surge_for=0)),
    _once(_part("workload", turns=1.0)),
    _once(_part("population", nat={"open": 1.0})),
    _one_kind("population", "regions", lambda scenario: scenario.network.coordinator),
    _one_kind("population", "profiles", _first("profiles")),
    _one_kind("population", "classes", _first("classes")),
    _number("population", "nodes", 1),
    _number("workload", "clients", 1),
    _each("adversaries", _adversary),
    _each("faults", _fault),
    _rarer,
    _number("workload", "answer_tokens", 1),
)
