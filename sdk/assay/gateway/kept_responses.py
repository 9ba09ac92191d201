"""Responses a gateway keeps for their callers: in memory, the newest, never more than is allowed.

They hold prompts and answers, so they are not written to a disk and are given to nobody but the key
that asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from assay.gateway.refusal import Refusal

KEPT_BYTES_MAX: Final = 256 << 20


@dataclass(slots=True)
class Kept:
    """One response: `chat` is all the model saw and said, `scope` draws it in the background."""

    caller: str
    body: dict[str, Any]
    items: list[dict[str, Any]]
    chat: list[dict[str, Any]]
    size: int
    scope: trio.CancelScope | None = None


@dataclass(slots=True)
class KeptResponses:
    """The newest `most`, within KEPT_BYTES_MAX."""

    most: int
    by_id: OrderedDict[str, Kept] = field(default_factory=OrderedDict)
    bytes: int = 0

    def add(self, kept: Kept) -> None:
        self.by_id[kept.body["id"]] = kept
        self.bytes += kept.size
        while self.by_id and (len(self.by_id) > self.most or self.bytes > KEPT_BYTES_MAX):
            _, oldest = self.by_id.popitem(last=False)
            self._forget(oldest)

    def find(self, caller: str, name: str) -> Kept:
        """Refusal 404 unless it is there and the caller's own."""
        kept = self.by_id.get(name)
        if kept is None or kept.caller != caller:
            raise Refusal(404, "response_not_found", "no such response of yours is kept here")
        return kept

    def remove(self, name: str) -> None:
        self._forget(self.by_id.pop(name))

    def running(self, caller: str | None = None) -> int:
        """How many are drawn in the background, of all callers or of one."""
        drawn = (kept for kept in self.by_id.values() if kept.scope is not None)
        return sum(caller is None or kept.caller == caller for kept in drawn)

    def _forget(self, kept: Kept) -> None:
        self.bytes -= kept.size
        if kept.scope is not None:
            kept.scope.cancel()
