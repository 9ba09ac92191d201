"""Follows the contract ModelRegistry: tells the core what a final block says of models and shares.

Asked every RULES_SECONDS whether the version changed; only then is all of it read, at that one
block. A chain that does not answer changes nothing: the rules in force are in the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from assay_contracts.adapters.backend import Chain
from assay_contracts.govern.model_registry import read_registry, registry_version
from assay_coordinator.core.events import RulesRead, SplitsDecided
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

RULES_SECONDS: Final = 2.0
COMPLAINT_SECONDS: Final = 60.0  # between two lines about one thing that stays wrong

log = get_logger("coordinator")


class RulesFollower:
    """`tell` gets the events; `lacking` is the hash of a policy the operator has yet to give."""

    def __init__(
        self,
        chain: Chain,
        registry: bytes,
        tell: Callable[[RulesRead | SplitsDecided], None],
        lacking: Callable[[], bytes | None],
    ) -> None:
        self._chain, self._registry = chain, registry
        self._tell, self._lacking = tell, lacking
        self._known: int | None = None
        self._quiet_until = 0.0

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.look()
            except AssayError as error:
                self._complain("rules_not_read", code=error.code, reason=error.message)
            missing = self._lacking()
            if missing is not None:
                self._complain("moderation_missing", sha256=missing.hex())
            await trio.sleep(RULES_SECONDS)

    async def look(self) -> None:
        """Tell what changed since the last look. Raises AssayError if the chain cannot say."""
        block = (await self._chain.finalized()).number
        version = await registry_version(self._chain, self._registry, block)
        if version == self._known:
            return
        rules, splits = await read_registry(self._chain, self._registry, block)
        self._tell(RulesRead(rules))
        self._tell(SplitsDecided(splits))
        self._known = rules.version

    def _complain(self, event: str, **fields: str) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAINT_SECONDS
            log.error(event, **fields)
