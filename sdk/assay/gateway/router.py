"""What all requests share for routing: the owner's plans, the upstreams, the budgets, the log.

Every decision is logged and kept for a while, without a word of a prompt: who was asked, in which
order, why, what came of it, for how much. What an upstream is paid is bounded by its budget, which
a restart does not begin anew.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

from assay.gateway.api_keys import ApiKey
from assay.gateway.decisions import Decision
from assay.gateway.refusal import Refusal
from assay.gateway.spending import Spending
from assay.gateway.upstream import PATHS, Passage, Upstream
from assay.gateway.upstream_budget import KEY_BUDGET_SPENT, UpstreamBudget
from assay.gateway.usage import DAY_SECONDS, Usage, Used
from assay.routing.core.machine import Shares
from assay.routing.core.plans import ANY_NAME, Plan, Routes
from assay.routing.file import secret_of
from assay_network.logs import get_logger

DECISIONS_MAX: Final = 1_024  # kept for GET /v1/routes, the newest
_log = get_logger("gateway")


class Router:
    """Made by `opened`, or without plans: then every name is a model of the network."""

    def __init__(
        self,
        routes: Routes = Routes(),
        upstreams: Mapping[str, Upstream] | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.routes, self.upstreams, self.usage = routes, upstreams or {}, usage
        self.shares = Shares.of(routes)
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_MAX)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        routes: Routes,
        environment: Mapping[str, str],
        usage: Usage | None,
        spending: Spending,
    ) -> AsyncIterator[Router]:
        """A router whose upstreams can be asked. Raises AssayError("config_invalid") if a secret
        is missing."""
        async with AsyncExitStack() as stack:
            upstreams = {}
            for name, terms in routes.upstreams.items():
                spent = 0 if usage is None else usage.prices.get(name, 0)
                budget = UpstreamBudget(name, terms, spending, spent)
                upstream = Upstream(terms, secret_of(terms, environment), budget)
                upstreams[name] = await stack.enter_async_context(upstream)
            yield cls(routes, upstreams, usage)

    def names(self) -> tuple[str, ...]:
        """The names with a plan of their own."""
        return tuple(name for name in self.routes.plans if name != ANY_NAME)

    def stands_for(self, name: str) -> str:
        """The network's model that is meant where no answer is drawn: the first of the plan."""
        plan = self.routes.plans.get(name)
        return plan.network[0] if plan is not None and plan.network else name

    def barred(self, plan: Plan, caller: ApiKey, passage: Passage, only_network: bool) -> str:
        """Why this request must not leave the network; "" if it may."""
        upstream = self.upstreams.get(plan.upstream)
        if upstream is None:
            return "no_upstream"
        if only_network:
            return "request_forbids"
        if not upstream.terms.admits(caller.name):
            return "key_not_admitted"
        if passage.path not in PATHS:
            return "api_not_passed_on"
        if _needs_network(passage.body):
            return "field_of_the_network"
        return upstream.budget.barred(caller, upstream.most(passage))

    def nobody(self, plan: Plan, caller: ApiKey, passage: Passage, barred: str) -> Refusal:
        """What is told where only the plan's upstream has the model, and that is `barred`."""
        if barred == KEY_BUDGET_SPENT:
            upstream = self.upstreams[plan.upstream]
            return upstream.budget.refusal(caller, upstream.most(passage), barred)
        said = f"only an upstream has this model, and this request may not go there: {barred}"
        return Refusal(403, "upstream_barred", said, param="model")

    def note(self, decision: Decision) -> None:
        """Keep and log it, and count what it cost."""
        self.decisions.append(decision)
        _log.info("routed", **asdict(decision))
        if self.usage is not None and (decision.credit or decision.price or not decision.code):
            self.usage.add(
                Used(
                    day=int(time.time()) // DAY_SECONDS,
                    caller=decision.caller,
                    upstream=decision.upstream,
                    model=decision.model,
                    requests=1,
                    tokens_in=decision.tokens_in,
                    tokens_out=decision.tokens_out,
                    credit=decision.credit,
                    price=decision.price,
                )
            )


def _needs_network(body: Mapping[str, Any]) -> bool:
    """Whether it asks for what only the network gives."""
    named = any(body.get(name) for name in ("node", "region", "license", "grammar"))
    return named or body.get("verify") in ("now", "quorum")
