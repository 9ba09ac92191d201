"""What the pages are about: one running coordinator, as far as they may look.

Nothing here can change anything: the core is read in the loop that runs it, a few hundred records
at a time, and the tables by readers of their own, in threads, so neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import trio
from sqlalchemy import Engine

from assay_contracts.adapters.storage import storage_errors
from assay_coordinator.core.coordinator import Coordinator
from assay_protocol.cards import ModelCard, decode_card
from assay_protocol.errors import AssayError

READERS_MAX: Final = 2  # threads that read tables at once
WAITING_MAX: Final = 64  # who finds so many before it is told `busy`
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Where epochs are posted."""

    chain_id: int
    ledger: bytes  # the contract's address
    local: bool  # made by this coordinator itself


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """Of a model's card what people ask for; sizes in bytes."""

    license: str
    architecture: str
    quantization: str
    size_bytes: int
    source: str  # of the file, as repository and name; empty: not said


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`core`: now (a failed commit replaces it). `bundle`: an account's credit bundle, encoded;
    raises AssayError. `clock`: microseconds since the epoch."""

    core: Callable[[], Coordinator]
    engine: Engine
    clock: Callable[[], int]
    faults: Callable[[], Sequence[str]]
    bundle: Callable[[bytes], Awaitable[bytes]]
    key: bytes  # the coordinator's
    chain: Chain
    cards: Mapping[bytes, CardFacts] = field(default_factory=dict)
    readers: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(READERS_MAX))

    async def read(self, query: Callable[..., _T], *arguments: Any) -> _T:
        """What `query(connection, *arguments)` finds in the tables.

        Raises AssayError: "busy" if too many wait, "storage_failed".
        """
        if self.readers.statistics().tasks_waiting >= WAITING_MAX:
            raise AssayError("busy", retry_after_ms=1_000)
        return await trio.to_thread.run_sync(self._ask, query, arguments, limiter=self.readers)

    def _ask(self, query: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
        with storage_errors(), self.engine.connect() as connection:
            return query(connection, *arguments)


def card_facts(cards: Mapping[bytes, bytes]) -> dict[bytes, CardFacts]:
    """Of each model's encoded card, which was checked when the catalogue was read."""
    return {model: _facts(decode_card(raw)) for model, raw in cards.items()}


def _facts(card: ModelCard) -> CardFacts:
    source = "" if card.source is None else f"{card.source.hf_repo}/{card.source.filename}"
    return CardFacts(
        license=card.license,
        architecture=card.architecture,
        quantization=card.quantization,
        size_bytes=card.size_bytes,
        source=source,
    )
