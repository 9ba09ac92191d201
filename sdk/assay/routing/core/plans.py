"""What the owner decided: which models stand behind a name, and when a prompt may leave.

A prompt goes to an upstream only if the name's plan has one, a case of its `upstream_when` has
occurred, and the caller and the request allow it. Nothing else leads there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

# Why a target does not answer, as a plan names it. "slow": no token by `first_token_ms`.
CASES: Final = ("unserved", "no_node", "failed", "too_long", "no_credit", "slow")
ANY_NAME: Final = "*"
TARGETS_MAX: Final = 8  # of one plan
_CASE_OF: Final[Mapping[str, str]] = {
    "model_not_found": "unserved",
    "model_denied": "unserved",
    "image_refused": "unserved",  # by this model, which reads none
    "no_capacity": "no_node",
    "busy": "no_node",
    "draining": "no_node",
    "peer_gone": "failed",
    "engine_failed": "failed",
    "timeout": "failed",
    "internal": "failed",
    "storage_failed": "failed",
    "context_length_exceeded": "too_long",
    "insufficient_credit": "no_credit",
}
# Another try at the same upstream may succeed. The network's jobs try other nodes by themselves.
TRY_AGAIN: Final = frozenset({"upstream_timeout", "upstream_failed", "upstream_rate_limited"})


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked: `model` of the network, or of the upstream of that name."""

    model: str
    upstream: str = ""

    def __str__(self) -> str:
        return f"{self.upstream}:{self.model}" if self.upstream else self.model


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done for one name. Models of the network come first, in order; times in ms, 0: never.

    An empty `network` counts as "unserved". `hedge_after_ms`: without a token by then, a second
    node draws the same, if the budget of hedges allows it.
    """

    network: tuple[str, ...] = ()
    upstream: str = ""
    upstream_model: str = ""  # empty: the name that was asked for
    upstream_when: tuple[str, ...] = ()
    first_token_ms: int = 0
    hedge_after_ms: int = 0

    def targets(self) -> tuple[Target, ...]:
        """Everybody who may be asked, in order."""
        found = tuple(Target(model) for model in self.network)
        if self.upstream:
            found += (Target(self.upstream_model, self.upstream),)
        return found


@dataclass(frozen=True, slots=True)
class Terms:
    """An upstream: an API of OpenAI's form at `url`, which ends in /v1 or its like.

    `keys` names the callers whose prompts may go there; "*": all. Prices are in micro-units of
    `currency` for 1000 tokens. `budget` is in micro-units over the life of the gateway's data, and
    `key_budget` the same for each key that has none of its own; 0: no bound. The secret is in the
    variable `key_env` or the private file `key_file`.
    """

    url: str = ""
    key_env: str = ""
    key_file: str = ""
    keys: tuple[str, ...] = ()
    currency: str = "USD"
    price_in: int = 0
    price_out: int = 0
    budget: int = 0
    key_budget: int = 0
    max_tokens: int = 4_096  # an answer's most
    retries: int = 1
    first_token_ms: int = 30_000
    stall_ms: int = 30_000

    def admits(self, caller: str) -> bool:
        return ANY_NAME in self.keys or (bool(caller) and caller in self.keys)

    def price(self, tokens_in: int, tokens_out: int) -> int:
        """Micro-units of the currency, rounded up."""
        return -(-(tokens_in * self.price_in + tokens_out * self.price_out) // 1_000)


@dataclass(frozen=True, slots=True)
class Routes:
    """All plans by name, all upstreams by name. Without any, a name is a model of the network.

    Of all requests, `retry_permille` may be tried again at an upstream and `hedge_permille`
    hedged. `credit_price` is what a credit (1,000,000 micro-credits) costs the owner in
    micro-units of the upstreams' currency; 0: not known.
    """

    plans: Mapping[str, Plan] = field(default_factory=dict)
    upstreams: Mapping[str, Terms] = field(default_factory=dict)
    seed: int = 0
    retry_permille: int = 100
    hedge_permille: int = 100
    credit_price: int = 0

    @property
    def names(self) -> frozenset[str]:
        """Every name and model that the owner wrote down."""
        found = {name for name in self.plans if name != ANY_NAME}
        for plan in self.plans.values():
            found |= {*plan.network, plan.upstream_model}
        return frozenset(found)

    def plan(self, name: str) -> Plan:
        """The plan of that name; else that of "*", for names no model may have; else the network.

        The network is asked for the name itself before the plan of "*" goes on to others.
        """
        found = self.plans.get(name)
        if found is None:
            found = self.plans.get(ANY_NAME, Plan())
            others = tuple(model for model in found.network if model != name)
            found = replace(found, network=(name, *others)[:TARGETS_MAX])
        if found.upstream and not found.upstream_model:
            found = replace(found, upstream_model=name)
        return found


def case_of(code: str) -> str | None:
    """Which case a failure is; None: another target would not help, or would be another matter."""
    return "failed" if code.startswith("upstream_") else _CASE_OF.get(code)
