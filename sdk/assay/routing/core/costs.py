"""What was spent, added up by model, and what the same tokens would have cost at an upstream.

All in integers: micro-credits for the network, micro-units of its currency for an upstream. The two
are only comparable where the owner says what a credit costs (`credit_price`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from assay.routing.core.plans import Terms

CREDIT: Final = 1_000_000  # micro-credits


@dataclass(frozen=True, slots=True)
class Cost:
    """Answers of one model. `upstream` is "" for the network, which takes `credit` in
    micro-credits; an upstream takes `price` in micro-units of its currency. `caller` is the key's
    name, "" where keys are not told apart."""

    model: str
    upstream: str
    answers: int
    tokens_in: int
    tokens_out: int
    credit: int = 0
    price: int = 0
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one key has spent at one upstream, and what it may (`budget`; 0: no bound), in
    micro-units of the upstream's currency."""

    caller: str
    upstream: str
    spent: int
    budget: int

    @property
    def left(self) -> int | None:
        """None without a bound."""
        return max(0, self.budget - self.spent) if self.budget else None

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"left": self.left}


@dataclass(frozen=True, slots=True)
class Line:
    """One model's costs. `per_1000` is the price of 1000 tokens on average, rounded down, in the
    unit that was paid; None without tokens. `money` is the credit in micro-units of money, None if
    nobody said what a credit costs; `elsewhere` is what each upstream takes for the same tokens."""

    cost: Cost
    per_1000: int | None
    money: int | None
    elsewhere: Mapping[str, int] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """For JSON."""
        rest = {"per_1000": self.per_1000, "money": self.money, "elsewhere": dict(self.elsewhere)}
        return asdict(self.cost) | rest


def added_up(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """One for each model, answerer and caller, the dearest first."""
    found: dict[tuple[str, str, str], Cost] = {}
    for one in costs:
        key = (one.upstream, one.model, one.caller)
        nothing = Cost(one.model, one.upstream, 0, 0, 0, caller=one.caller)
        found[key] = _sum(found.get(key, nothing), one)
    return tuple(sorted(found.values(), key=_dearest_first))


def allowances(
    spent: Mapping[tuple[str, str], int],
    budgets: Mapping[str, Mapping[str, int]],
    upstreams: Mapping[str, Terms],
) -> tuple[Allowance, ...]:
    """For each key (by name) that spent something at an upstream, or has a budget there: `spent` by
    both names, `budgets` of keys that have their own, by key and upstream."""
    pairs = {*spent, *((key, name) for key, own in budgets.items() for name in {*own, *upstreams})}
    found = []
    for key, name in sorted(pairs):
        default = upstreams[name].key_budget if name in upstreams else 0
        budget = budgets.get(key, {}).get(name, default)
        used = spent.get((key, name), 0)
        if used or budget:
            found.append(Allowance(key, name, used, budget))
    return tuple(found)


def beside(cost: Cost, upstreams: Mapping[str, Terms], credit_price: int) -> Line:
    """`cost` with what to hold it against. Upstreams without prices are left out."""
    tokens = cost.tokens_in + cost.tokens_out
    paid = cost.price if cost.upstream else cost.credit
    elsewhere = {
        name: terms.price(cost.tokens_in, cost.tokens_out)
        for name, terms in upstreams.items()
        if name != cost.upstream and (terms.price_in or terms.price_out)
    }
    money = -(-cost.credit * credit_price // CREDIT) if credit_price else None
    return Line(cost, paid * 1_000 // tokens if tokens else None, money, elsewhere)


def _dearest_first(cost: Cost) -> tuple[int, int, str, str, str]:
    return -cost.price, -cost.credit, cost.upstream, cost.model, cost.caller


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(
        one.model,
        one.upstream,
        one.answers + other.answers,
        one.tokens_in + other.tokens_in,
        one.tokens_out + other.tokens_out,
        one.credit + other.credit,
        one.price + other.price,
        one.caller,
    )
