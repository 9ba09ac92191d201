"""What speaks for a node when it is decided how often its next job is audited: its recent pay.

Only pay that cannot be out yet counts (holdback.py): what is older may be released before a verdict
falls, as an owner can buy from himself whatever it takes. Nor can he buy once and be vouched for
as long as the epochs last: his own money, too, has to be put there anew.
"""

from __future__ import annotations


class RecentPay:
    """One node's unpaid jobs that an audit can cost it, in the order in which they were booked."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, tuple[int, int]] = {}  # ticket -> booked at, price
        self._value = 0  # of all of them, micro-credits

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, ticket: bytes, price: int, booked_at: int) -> None:
        self._jobs[ticket] = booked_at, price
        self._value += price

    def remove(self, ticket: bytes) -> None:
        """It is paid or refunded; nothing changes if it was too old already."""
        _, price = self._jobs.pop(ticket, (0, 0))
        self._value -= price

    def value(self, now: int, age_us: int) -> int:
        """The sum of what was booked less than `age_us` microseconds ago; older jobs are
        forgotten, so a later call cannot ask for more age."""
        while self._jobs:
            ticket = next(iter(self._jobs))
            booked_at, price = self._jobs[ticket]
            if now - booked_at < age_us:
                break
            del self._jobs[ticket]
            self._value -= price
        return self._value
