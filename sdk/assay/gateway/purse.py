"""Money of one budget: what was spent of it, and what is set aside for answers under way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Purse:
    """In micro-units. The most an answer can cost is set aside before it is begun, so requests that
    come at once cannot spend a budget twice."""

    spent: int = 0
    reserved: int = 0

    def covers(self, budget: int, more: int) -> bool:
        """Whether `more` fits; a budget of 0 is no bound."""
        return not budget or self.spent + self.reserved + more <= budget

    def left(self, budget: int) -> int:
        """What may yet be set aside; 0 where more was spent than the budget is now."""
        return max(0, budget - self.spent - self.reserved)
