"""What a year of a network costs and brings: the tables of scenarios at level "epochs".

Money is micro-credits. A credit is taken to buy one US dollar's worth of power and hardware; who
thinks otherwise scales `[model]` prices. Defaults with a source name it; the others are neutral
(nothing moves) or round figures of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from assay_simnet.population import REGIONS
from assay_simnet.quantities import QuantityError, micro_credits, share, time_us
from assay_simnet.schema import number, one_of, value, whole

DAY_US: Final = 86_400_000_000
NETWORKS: Final = ("local", "public")  # epochs/votes.py has their parameters
_POWER: Final = {
    "na": "0.17 credits",
    "eu": "0.29 credits",
    "asia": "0.15 credits",
    "sa": "0.18 credits",
    "oceania": "0.25 credits",
}


def power_prices(given: Any) -> dict[str, int]:
    """Micro-credits by region; a region left out has the usual price."""
    if not isinstance(given, dict):
        raise QuantityError(f'{given!r}: a table like {{ na = "0.17 credits" }} wanted')
    one = one_of(REGIONS, "region")
    found = {name: micro_credits(amount) for name, amount in {**_POWER, **given}.items()}
    return {one(name): amount for name, amount in found.items()}


@dataclass(frozen=True, kw_only=True)
class Economy:
    """`[economy]`: prices, costs, demand, subsidies, who comes and goes."""

    epoch: int = value(time_us, "1 d", "one step; the policy's own epochs may be shorter")
    active: float = value(share, 1.0, "of nodes that serve when it begins; the others may enter")
    # demand
    growth: float = value(
        number(-0.99, 100.0), 0.0, "of demand in a year: 0.5 is half as much more"
    )
    season: float = value(share, 0, "swing of demand around its mean")
    season_period: int = value(time_us, "7 d")
    noise: float = value(
        number(0.0, 2.0), 0.0, "of an epoch's demand: standard deviation of its ln"
    )
    elasticity: float = value(number(0.0, 10.0), 0.0, "demand falls as the price to this power")
    # the price
    price_step: float = value(share, 0, "most the operator moves the price in an epoch; 0: fixed")
    utilisation: float = value(share, 0.6, "of slots, where the operator moves the price to")
    price_least: float = value(number(0.01, 1.0), 0.2, "times what it began with")
    price_most: float = value(number(1.0, 100.0), 5.0, "times what it began with")
    publisher_bps: int = value(whole(0, 4_000), 0, "the model's publisher's share (splits)")
    # owners
    power: dict[str, int] = value(  # noqa: RUF009
        power_prices,
        _POWER,
        "a kWh; of the size of households' prices in 2024 (EIA, Eurostat), rounded",
    )
    power_spread: float = value(
        number(0.0, 1.0), 0.2, "between owners: standard deviation of its ln"
    )
    machine_life: int = value(time_us, "1460 d", "over which a machine loses its price")
    hardware: float = value(share, 0.25, "of that loss which owners charge to the network")
    upkeep: int = value(micro_credits, 0, "a day of being there: connection, work")
    wanted: int = value(micro_credits, "0.05 credits", "mean profit a day owners enter for")
    patience: int = value(time_us, "14 d", "over which owners average their profit")
    leave: float = value(share, 0.05, "of owners with a loss who leave, an epoch")
    enter: float = value(share, 0.02, "of those who would gain what they want, an epoch")
    # bonds
    bond: int = value(micro_credits, 0, "of each node; contracts ask for 100 credits by default")
    capital: float = value(share, 0.05, "a year, what a bond would earn elsewhere")
    slashed: float = value(share, 0, "of the bond a conviction costs; the coordinator takes none")
    rejoin: int = value(time_us, 0, "after which the convicted come back as fresh keys; 0: never")
    # subsidies
    subsidy: int = value(micro_credits, 0, "an epoch, granted from the mint to nodes")
    subsidy_by: str = value(one_of(("work", "presence"), "way"), "work", "who gets how much")
    subsidy_ends: int = value(time_us, 0, "after this; 0: never")
    subsidy_fade: int = value(time_us, 0, "before its end it falls evenly over so long")
    # checks
    tree_every: int = value(whole(0, 100_000), 0, "epochs between two roots of credit; 0: none")


@dataclass(frozen=True, kw_only=True)
class Vote:
    """`[governance]`: what a cartel must hold to pass a rule change, at the end of the run."""

    trials: int = value(whole(0, 10_000), 0, "votes by chance; 0: none is held")
    network: str = value(one_of(NETWORKS, "network"), "local", "whose parameters (governance.md)")
    turnout: float = value(share, 0.2, "of honest leaves that vote")
    against: float = value(share, 1.0, "of those, who vote against; the others abstain")
    cartel: str = value(one_of(("random", "richest"), "way"), "random", "who is won over first")
