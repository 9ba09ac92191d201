"""When and for whom the owner lets the node work: the hours and the gate, and the terms of a job.

    open --hours over | owner there | hot | enough sent | not seen--> closed, for that --> open

A closed gate takes no new jobs and no audits to do; what runs finishes, since a cut answer costs
its client more than it gives the owner. What cannot be seen while it is limited closes the gate: a
limit is never ignored. A hot device is let cool by COOLING_C before it works again, so that the
gate does not flap. Times of day are the owner's wall clock, whatever that does in spring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from assay_protocol.errors import AssayError
from assay_protocol.messages import Ticket

COOLING_C: Final = 5
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY: Final = 24 * 60
WINDOWS_MAX: Final = 32
_WINDOW: Final = re.compile(r"(?:([a-z,-]+) )?(\d\d):(\d\d)-(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """On these days (Monday is 0) from minute `begin` for `length` minutes, over midnight too."""

    days: tuple[int, ...]
    begin: int
    length: int

    def holds(self, weekday: int, minute: int) -> bool:
        """Whether that minute of that day is inside."""
        today, yesterday = weekday in self.days, (weekday - 1) % 7 in self.days
        since = minute - self.begin
        return (today and 0 <= since < self.length) or (
            yesterday and since + MINUTES_A_DAY < self.length
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What the owner set. 0 or empty: not limited."""

    windows: tuple[Window, ...] = ()
    idle_seconds: int = 0  # nobody at the machine for so long
    celsius_max: int = 0  # of the hottest GPU
    sent_bytes_max: int = 0  # a day of the owner's calendar


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is seen of machine and owner now; None: it cannot be seen."""

    weekday: int  # Monday is 0
    minute: int  # of the day, by the owner's clock
    idle_seconds: int | None
    celsius: int | None
    day: int = 0  # a number that changes at the owner's midnight
    sent_bytes: int | None = None  # since the node started


@dataclass(frozen=True, slots=True)
class Terms:
    """Whom and for how much the node serves. Prices in micro-credits per 1,000 tokens."""

    clients: frozenset[bytes] = frozenset()  # empty: anybody
    refused: frozenset[bytes] = frozenset()  # whom not, all the same
    price_in_min: int = 0
    price_out_min: int = 0

    def check(self, ticket: Ticket) -> None:
        """Raises AssayError("forbidden") for a job the owner does not want."""
        if self.clients and ticket.client not in self.clients:
            raise AssayError("forbidden", "this node serves only clients its owner named")
        if ticket.client in self.refused:
            raise AssayError("forbidden", "this node's owner does not serve this client")
        if ticket.price_in < self.price_in_min or ticket.price_out < self.price_out_min:
            raise AssayError("forbidden", "the price is below what this node's owner asks")


@dataclass(frozen=True, slots=True)
class SentToday:
    """What was sent on a day so far; to be kept over restarts."""

    day: int = 0
    bytes: int = 0


class Gate:
    """Open or closed; `handle` says why it is closed, "" if it is open."""

    __slots__ = ("_hot", "_limits", "_seen_bytes", "closed_for", "sent")

    def __init__(self, limits: Limits, sent: SentToday | None = None) -> None:
        """`sent`: as an earlier run left it."""
        self._limits, self._hot = limits, False
        self._seen_bytes = 0  # of the node's own count
        self.sent = sent or SentToday()
        self.closed_for = ""

    def handle(self, seen: Surroundings) -> str:
        """`hours`, `in_use`, `hot`, `sent`, `unseen`, or "" for an open gate."""
        self.closed_for = next(self._reasons(seen), "")
        return self.closed_for

    def _reasons(self, seen: Surroundings) -> Iterator[str]:
        limits = self._limits
        hot = self._is_hot(seen.celsius)  # kept up to date, whatever else closes the gate
        self._count(seen)
        windows = limits.windows
        if windows and not any(one.holds(seen.weekday, seen.minute) for one in windows):
            yield "hours"
        if limits.idle_seconds and seen.idle_seconds is None:
            yield "unseen"
        if seen.idle_seconds is not None and seen.idle_seconds < limits.idle_seconds:
            yield "in_use"
        if limits.celsius_max and seen.celsius is None:
            yield "unseen"
        if hot:
            yield "hot"
        if limits.sent_bytes_max and seen.sent_bytes is None:
            yield "unseen"
        if limits.sent_bytes_max and self.sent.bytes >= limits.sent_bytes_max:
            yield "sent"

    def _count(self, seen: Surroundings) -> None:
        """What was sent since the last look belongs to the day of this one."""
        if seen.sent_bytes is None:
            return
        before = self.sent.bytes if seen.day == self.sent.day else 0
        self.sent = SentToday(seen.day, before + seen.sent_bytes - self._seen_bytes)
        self._seen_bytes = seen.sent_bytes

    def _is_hot(self, celsius: int | None) -> bool:
        most = self._limits.celsius_max
        if most and celsius is not None:
            self._hot = celsius > (most - COOLING_C if self._hot else most)
        return self._hot


def parse_window(text: str) -> Window:
    """A window written like "22:00-07:00" or "mon-fri,sun 18:30-24:00".

    It begins on the days named, on all without names. Raises AssayError("config_invalid").
    """
    match = _WINDOW.fullmatch(text.strip().lower())
    if match is None:
        raise AssayError("config_invalid", f"hours: {text!r} is not like 'mon-fri 22:00-07:00'")
    begin, end = _minute(text, match[2], match[3]), _minute(text, match[4], match[5])
    length = (end - begin) % MINUTES_A_DAY or MINUTES_A_DAY
    if begin == MINUTES_A_DAY:
        raise AssayError("config_invalid", f"hours: {text!r} begins after its day")
    return Window(_days(text, match[1]), begin, length)


def _minute(text: str, hour: str, minute: str) -> int:
    value = 60 * int(hour) + int(minute)
    if int(minute) > 59 or value > MINUTES_A_DAY:
        raise AssayError("config_invalid", f"hours: {hour}:{minute} of {text!r} is no time of day")
    return value


def _days(text: str, named: str | None) -> tuple[int, ...]:
    if named is None:
        return tuple(range(7))
    found: list[int] = []
    for part in named.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            days = ", ".join(DAYS)
            raise AssayError("config_invalid", f"hours: {part!r} of {text!r}: days are {days}")
        begin = DAYS.index(first)
        count = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found += [(begin + n) % 7 for n in range(count)]
    return tuple(sorted(dict.fromkeys(found)))
