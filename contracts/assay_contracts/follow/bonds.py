"""Who is bonded at a block, and with how much, as NodeRegistry has it.

Read by calls, and only where the registry spoke: a block without an event of it changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from assay_contracts import calls
from assay_contracts.local.chain import LocalChain

REGISTRY_NONCE: Final = 2  # of the poster's transaction that creates NodeRegistry
ACTIVES_MAX: Final = 4_096
_KEPT: Final = 8
_BACK_BLOCKS_MAX: Final = 256
_SCAN_BLOCKS_MAX: Final = 100_000
_CONTRACT: Final = "NodeRegistry"


class Bonds:
    """Of one chain; one thread at a time."""

    def __init__(self, chain: LocalChain) -> None:
        self._chain = chain
        self._registry = chain.genesis.contracts()[REGISTRY_NONCE]
        self._known: OrderedDict[int, dict[bytes, int]] = OrderedDict()

    def at(self, number: int) -> dict[bytes, int]:
        """Bonds by key of the nodes that are active after block `number`; those of 0 left out.

        Raises AssayError("chain_mismatch") if the contract answers what none of ours would.
        """
        found = self._unchanged(number)
        if found is None:
            found = self._read(number)
        self._known[number] = found
        self._known.move_to_end(number)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found

    def last_without(self, head: int, least: int) -> int:
        """The newest block up to `head` at which nobody had a bond, found by the registry's events;
        `least` if it is not above that."""
        for number in range(head, max(least, head - _SCAN_BLOCKS_MAX), -1):
            changed = number == head or self._spoke(number + 1)
            if changed and not self.at(number):
                return number
        return least

    def _unchanged(self, number: int) -> dict[bytes, int] | None:
        """What is known of a block not far before, if the registry was silent since."""
        for earlier in range(number, max(number - _BACK_BLOCKS_MAX, -1), -1):
            if earlier in self._known:
                return self._known[earlier]
            if self._spoke(earlier):
                return None
        return None

    def _spoke(self, number: int) -> bool:
        header = self._chain.header(number)
        assert header is not None
        return bool(self._chain.logs(bytes(header.hash), (self._registry,)))

    def _read(self, number: int) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for index in range(self._count(number)):
            key = self._ask(number, "activeAt", index)
            bond = self._ask(number, "bondOf", key)
            if bond:
                found[key] = bond
        return found

    def _count(self, number: int) -> int:
        if not self._chain.code(self._registry, at=number):
            return 0
        return min(int(self._ask(number, "activeCount")), ACTIVES_MAX)

    def _ask(self, number: int, function: str, *arguments: object) -> Any:
        data = calls.encode(_CONTRACT, function, *arguments)
        (answer,) = calls.decode(
            _CONTRACT, function, self._chain.call(self._registry, data, at=number)
        )
        return answer
