"""A scenario as a file that reads back as the same scenario: only what differs from the defaults.

    read(Source(name, text_of(scenario))) == scenario

Where a default is written or not makes no difference to a run; the order of a table's names does,
as shares are drawn in it, and is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final

from assay_coordinator.core.policy import Policy
from assay_simnet.economy import power_prices
from assay_simnet.machine_costs import MACHINES
from assay_simnet.population import PROFILES
from assay_simnet.quantities import (
    TIME_MAX_US,
    bits_per_s,
    bits_text,
    latency,
    latency_text,
    micro_credits,
    money_text,
    rate_per_s,
    rate_text,
    size_bytes,
    size_text,
    time_text,
    time_us,
)
from assay_simnet.scenario import LISTS, SCHEMA, Scenario
from assay_simnet.toml_text import key_text, value_text

# How a value is written whose reader wants a text with a unit; all others are written as they are.
_WRITTEN: Final[dict[Callable[[Any], Any], Callable[[Any], Any]]] = {
    time_us: time_text,
    size_bytes: size_text,
    rate_per_s: rate_text,
    bits_per_s: bits_text,
    latency: latency_text,
    micro_credits: money_text,
    power_prices: lambda given: {region: money_text(amount) for region, amount in given.items()},
}


def text_of(scenario: Scenario, said: str = "") -> str:
    """`said`: a line for whoever reads the file, below its question."""
    comments = [one for one in (scenario.question, said) if one]
    lines = [*(f"# {one}" for one in comments), f"schema = {SCHEMA}"]
    lines += _entries(scenario)
    listed = {name: key for key, (name, _) in LISTS.items()}
    for item in fields(scenario):
        given = getattr(scenario, item.name)
        if item.name in listed:
            for one in given:
                lines += ["", f"[[{listed[item.name]}]]", *_entries(one)]
        elif item.name == "profiles":
            lines += _changed("profile", PROFILES, given)
        elif item.name == "machines":
            lines += _changed("machine", MACHINES, given)
        elif item.name == "policy":
            lines += _table("coordinator", list(_policy(given)))
        elif is_dataclass(given):
            lines += _table(item.name, list(_entries(given)))
    return "\n".join(lines) + "\n"


# ---- inside ------------------------------------------------------------------------------------


def _table(name: str, lines: list[str]) -> list[str]:
    return ["", f"[{name}]", *lines] if lines else []


def _entries(part: Any) -> Iterator[str]:
    """A line for each key whose value is not the default's."""
    for item in fields(part):
        if "read" not in item.metadata:
            continue
        read, default = item.metadata["read"], item.metadata["written"]
        text = _text(read, getattr(part, item.name))
        if default is MISSING or text != _text(read, read(default)):
            yield f"{'for' if item.name == 'for_' else item.name} = {text}"


def _text(read: Callable[[Any], Any], given: Any) -> str:
    write = _WRITTEN.get(read)
    return value_text(write(given) if write is not None else given)


def _policy(policy: Policy) -> Iterator[str]:
    usual = Policy()
    for item in fields(policy):
        given = getattr(policy, item.name)
        if given == getattr(usual, item.name):
            continue
        assert isinstance(given, int), f"{item.name} is in no scenario file"
        name = item.name.removesuffix("_us")
        if name != item.name and given <= TIME_MAX_US and time_us(time_text(given)) == given:
            yield f"{name} = {value_text(time_text(given))}"
        else:
            yield f"{item.name} = {given}"


def _changed(what: str, usual_ones: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """A table for each that is not as usual."""
    lines: list[str] = []
    for name, one in given.items():
        usual = usual_ones[name]
        changed = [
            f"{item.name} = {getattr(one, item.name)}"
            for item in fields(one)
            if getattr(one, item.name) != getattr(usual, item.name)
        ]
        lines += _table(f"{what}.{key_text(name)}", changed)
    return lines
