"""How often an address may tell a wrong password, and who has told the right one.

An address (of IPv6 its /64, which is one customer's) may guess GUESSES_AT_ONCE times, and once more
each GUESS_SECONDS; beyond that it is refused unheard. So a stranger keeps nobody out but his own
address, and not there who told the right password before: such an address is always heard. Nor is
loopback counted: who guesses there is on this machine already, or comes through a proxy that hides
whom it speaks for, and must count itself.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

GUESSES_AT_ONCE: Final = 10
GUESS_SECONDS: Final = 6.0
ADDRESSES_MAX: Final = (
    4_096  # that guessed wrong, the newest; who has more may guess anew with each
)
KNOWN_MAX: Final = 256  # that told it right, those heard of last


class PasswordGuesses:
    """Of one password. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all guesses are there again
        self._known: OrderedDict[str, None] = OrderedDict()

    def wait(self, host: str, now: float) -> int:
        """Seconds until `host` is heard; 0: now."""
        place = _place(host)
        free_at = self._free_at.get(place, now)
        if place in self._known:
            return 0
        allowed_from = free_at - (GUESSES_AT_ONCE - 1) * GUESS_SECONDS
        return max(0, math.ceil(allowed_from - now))

    def wrong(self, host: str, now: float) -> None:
        """`host` was heard, and told a wrong one."""
        place = _place(host)
        if not place:
            return
        self._free_at[place] = max(self._free_at.get(place, now), now) + GUESS_SECONDS
        self._free_at.move_to_end(place)
        if len(self._free_at) > ADDRESSES_MAX:
            self._free_at.popitem(last=False)

    def right(self, host: str) -> None:
        """`host` told it."""
        place = _place(host)
        self._free_at.pop(place, None)
        self._known[place] = None
        self._known.move_to_end(place)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


def _place(host: str) -> str:
    """What is counted as one; "": nothing is."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            inside = address.is_loopback
            return "" if inside else str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)
