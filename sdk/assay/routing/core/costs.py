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
    micro-credits; an upstream takes `price` in micro-units of its currency."""

    model: str
    upstream: str
    answers: int
    tokens_in: int
    tokens_out: int
    credit: int = 0
    price: int = 0


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
    """One for each model and answerer, the dearest first."""
    found: dict[tuple[str, str], Cost] = {}
    for one in costs:
        key = (one.upstream, one.model)
        found[key] = _sum(found.get(key, Cost(one.model, one.upstream, 0, 0, 0)), one)
    return tuple(sorted(found.values(), key=lambda c: (-c.price, -c.credit, c.upstream, c.model)))


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


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(
        one.model,
        one.upstream,
        one.answers + other.answers,
        one.tokens_in + other.tokens_in,
        one.tokens_out + other.tokens_out,
        one.credit + other.credit,
        one.price + other.price,
    )
