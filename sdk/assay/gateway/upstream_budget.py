"""What may be spent at one upstream: by all callers together, and by each of their keys.

The most an answer can cost is set aside before its prompt leaves, and settled at what it cost; so
requests that come at once cannot spend a budget twice. What a key spent is on disk before its
place is free again. Amounts are whole micro-units of the upstream's currency.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from assay.gateway.api_keys import ApiKey
from assay.gateway.purse import Purse
from assay.gateway.refusal import Refusal
from assay.gateway.spending import Spending
from assay.gateway.upstream_answers import Most, UpstreamAnswer
from assay.routing.core.plans import Terms

BUDGET_SPENT: Final = "budget_spent"  # the upstream's, over all keys
KEY_BUDGET_SPENT: Final = "key_budget_spent"


class UpstreamBudget:
    """The purses at the upstream `name`. `spent` is what all have spent by the gateway's usage,
    which is older than `spending` tells it by key."""

    def __init__(self, name: str, terms: Terms, spending: Spending, spent: int = 0) -> None:
        self._name, self._terms, self._spending = name, terms, spending
        kept = spending.at_upstream(name)
        self._all = Purse(max(spent, sum(kept.values())))
        self._keys = {caller: Purse(micro) for caller, micro in kept.items()}

    @property
    def spent(self) -> int:
        """By all callers."""
        return self._all.spent

    def barred(self, caller: ApiKey, most: Most) -> str:
        """Which budget does not cover `most` beside what is under way; "" if all do."""
        if not self._of(caller).covers(self._budget_of(caller), most.price):
            return KEY_BUDGET_SPENT
        return "" if self._all.covers(self._terms.budget, most.price) else BUDGET_SPENT

    def refusal(self, caller: ApiKey, most: Most, barred: str) -> Refusal:
        """What a caller is told of it. Of the budget of all, no more than that it is spent."""
        if barred == BUDGET_SPENT:
            said = f"the budget of the upstream {self._name!r} does not cover this"
            return Refusal(403, "upstream_barred", said, param="model")
        left = self._of(caller).left(self._budget_of(caller))
        said = (
            f"the key's budget at the upstream {self._name!r} has {left} micro-units of "
            f"{self._terms.currency} left; this can cost {most.price}"
        )
        return Refusal(402, "insufficient_quota", said)

    @asynccontextmanager
    async def reserved(
        self, caller: ApiKey, most: Most, answer: UpstreamAnswer
    ) -> AsyncIterator[None]:
        """`most` set aside while this lasts, then the price of `answer` spent. Raises Refusal if a
        budget does not cover it: others may have come since `barred` was asked."""
        if barred := self.barred(caller, most):
            raise self.refusal(caller, most, barred)
        own = self._of(caller)
        for purse in (self._all, own):
            purse.reserved += most.price
        try:
            yield
        finally:
            assert 0 <= answer.price <= most.price, "an answer costs no more than its most"
            try:
                if answer.price:
                    with trio.CancelScope(shield=True):  # the store's own patience bounds it
                        await self._spending.add(caller.name, answer.price, self._name)
            finally:
                for purse in (self._all, own):
                    purse.reserved -= most.price
                    purse.spent += answer.price

    def _of(self, caller: ApiKey) -> Purse:
        return self._keys.setdefault(caller.name, Purse())  # of known keys: KEYS_MAX

    def _budget_of(self, caller: ApiKey) -> int:
        return caller.upstream_budgets.get(self._name, self._terms.key_budget)
