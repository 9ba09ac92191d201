"""What a check of a receipt says: steps, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One check: `ok` is None if it cannot be made from what a client holds."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """`ok` if no check failed. `price` is in micro-credits, None without a valid ticket."""

    ok: bool
    steps: tuple[Step, ...]
    price: int | None = None

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps if step.ok is False)
