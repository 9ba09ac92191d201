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

from assay.gateway.decisions import Decision
from assay.gateway.upstream import PATHS, Passage, Upstream, http_client
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
        cls, routes: Routes, environment: Mapping[str, str], usage: Usage | None
    ) -> AsyncIterator[Router]:
        """A router whose upstreams can be asked. Raises AssayError("config_invalid") if a secret
        is missing."""
        async with AsyncExitStack() as stack:
            upstreams = {}
            for name, terms in routes.upstreams.items():
                http = http_client(terms, secret_of(terms, environment))
                await stack.enter_async_context(http)
                spent = 0 if usage is None else usage.prices.get(name, 0)
                upstreams[name] = Upstream(name, terms, http, spent)
            yield cls(routes, upstreams, usage)

    def names(self) -> tuple[str, ...]:
        """The names with a plan of their own."""
        return tuple(name for name in self.routes.plans if name != ANY_NAME)

    def stands_for(self, name: str) -> str:
        """The network's model that is meant where no answer is drawn: the first of the plan."""
        plan = self.routes.plans.get(name)
        return plan.network[0] if plan is not None and plan.network else name

    def barred(self, plan: Plan, caller: str, passage: Passage, only_network: bool) -> str:
        """Why this request must not leave the network; "" if it may."""
        upstream = self.upstreams.get(plan.upstream)
        if upstream is None:
            return "no_upstream"
        if only_network:
            return "request_forbids"
        if not upstream.terms.admits(caller):
            return "key_not_admitted"
        if passage.path not in PATHS:
            return "api_not_passed_on"
        if _needs_network(passage.body):
            return "field_of_the_network"
        return "" if upstream.affordable(passage) else "budget_spent"

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
    named = any(body.get(name) for name in ("node", "license", "grammar"))
    return named or body.get("verify") in ("now", "quorum")
