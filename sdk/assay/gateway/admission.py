"""Who is let in, how often, how many at once and for how much: every bound on callers, kept here.

A request waits for nothing: it is admitted or told when to come again. A budget is reserved at the
most an answer can cost and settled at what its receipts say, so callers that ask at once cannot
spend it twice. What was spent is on disk before the next request of that key is admitted with it;
a crash forgets only what was under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from assay.gateway.api_keys import ApiKey, ApiKeys
from assay.gateway.purse import Purse
from assay.gateway.refusal import Refusal
from assay.gateway.spending import Spending
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

REFRESH_SECONDS: Final = 1.0
ANYBODY: Final = ApiKey(name="", sha256="")
_log = get_logger("gateway")


@dataclass(slots=True)
class _Account:
    """What one key is doing now."""

    purse: Purse
    running: int = 0
    tokens: float = 0.0  # requests it may make at once
    at: float = float("-inf")


class Admission:
    """The doorkeeper. Without `keys` everybody is ANYBODY."""

    def __init__(self, keys: ApiKeys | None, spending: Spending, requests_max: int) -> None:
        self._keys, self._spending, self._most = keys, spending, requests_max
        self._accounts: dict[str, _Account] = {}  # of known keys: no more than api_keys.KEYS_MAX
        self._fresh_at = float("-inf")
        self.running = 0

    def caller(self, given: str | None) -> ApiKey:
        """Whose key it is; Refusal 401."""
        if self._keys is None:
            return ANYBODY
        self._refresh(self._keys)
        found = None if given is None else self._keys.find(given)
        if found is None:
            said = "no API key was given" if given is None else "the API key is not valid"
            raise Refusal(401, "invalid_api_key", said)
        return found

    @contextmanager
    def admitted(self, caller: ApiKey) -> Iterator[dict[str, str]]:
        """Hold one request's place; gives the headers that tell how many are left."""
        if self.running >= self._most:
            raise Refusal(503, "busy", "the gateway answers as many requests as it may")
        account = self._account(caller)
        if caller.at_once and account.running >= caller.at_once:
            raise Refusal(429, "rate_limit_exceeded", f"at most {caller.at_once} at once")
        headers = self._take(caller, account)
        self.running += 1
        account.running += 1
        try:
            yield headers
        finally:
            self.running -= 1
            account.running -= 1

    def reserve(self, caller: ApiKey, micro: int) -> None:
        """Set the most an answer can cost aside; Refusal 402. `settle` must follow."""
        purse = self._account(caller).purse
        if not purse.covers(caller.budget, micro):
            left = purse.left(caller.budget)
            said = f"the key's budget has {left} micro-credits left; this can cost {micro}"
            raise Refusal(402, "insufficient_quota", said)
        purse.reserved += micro

    async def settle(self, caller: ApiKey, reserved: int, spent: int) -> None:
        """The answer cost `spent`; what was reserved is free again."""
        purse = self._account(caller).purse
        purse.reserved -= reserved
        if spent and caller.name:
            purse.spent += spent
            await self._spending.add(caller.name, spent)

    def _account(self, caller: ApiKey) -> _Account:
        known = self._accounts.get(caller.name)
        if known is None:
            purse = Purse(self._spending.by_name.get(caller.name, 0))
            known = self._accounts[caller.name] = _Account(purse)
        return known

    def _take(self, caller: ApiKey, account: _Account) -> dict[str, str]:
        """One request out of the key's bucket, which fills at its rate a minute."""
        rate = caller.requests_per_minute
        if not rate:
            return {}
        now = trio.current_time()
        account.tokens = min(rate, account.tokens + (now - account.at) * rate / 60)
        account.at = now
        headers = {
            "x-ratelimit-limit-requests": str(rate),
            "x-ratelimit-remaining-requests": str(max(0, int(account.tokens) - 1)),
            "x-ratelimit-reset-requests": f"{(rate - account.tokens) * 60 / rate:.3f}s",
        }
        if account.tokens < 1:
            wait = int((1 - account.tokens) * 60 / rate) + 1
            raise Refusal(429, "rate_limit_exceeded", f"at most {rate} a minute", retry=wait)
        account.tokens -= 1
        return headers

    def _refresh(self, keys: ApiKeys) -> None:
        now = trio.current_time()
        if now < self._fresh_at + REFRESH_SECONDS:
            return
        self._fresh_at = now
        try:
            keys.refresh()
        except AssayError as error:  # the owner is editing: those known stay valid
            _log.error("keys_not_read", code=error.code)
