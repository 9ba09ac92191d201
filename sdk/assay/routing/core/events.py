"""The vocabulary of one request's routing: what happened, and what to do.

An attempt is one question to one target, by number from 0. Times are microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay.routing.core.plans import Target


@dataclass(frozen=True, slots=True)
class Begin:
    """The request is read and checked."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    """An attempt has something of an answer; or all of it, though it be empty."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Whole:
    """An attempt's answer is whole and settled."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt ended without a whole answer. `charged`: another would be paid again."""

    attempt: int
    code: str
    charged: bool = False
    retry_after_us: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = Begin | FirstToken | Whole | Failed | Tick


@dataclass(frozen=True, slots=True)
class Start:
    """Ask `target`. `why` is first, fallback, retry or hedge; a hedge keeps off the nodes of the
    attempt `beside` it, which goes on."""

    attempt: int
    target: Target
    why: str
    beside: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give an attempt up: what it drew is paid and its receipt kept. Nothing of it is told."""

    attempt: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Tell the failure of this attempt; None: nobody could be asked."""

    attempt: int | None


Effect = Start | Cancel | GiveUp
