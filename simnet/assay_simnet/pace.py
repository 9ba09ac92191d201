"""How long one machine takes, given what else it is at.

Where a profile says in what steps prompts are computed (`step_tokens`), a machine is what llama.cpp
is under our batcher: a step holds so many tokens of each prompt that is read, whoever comes waits
for the step to end, and answers stand still meanwhile. An audit is computed in such steps between
those of answers. Without it prompts share the machine as if it were divisible, and answers go on
beside them.
"""

from __future__ import annotations

from assay_simnet.population import Speed


class Pace:
    """One machine with one model. Times are microseconds."""

    __slots__ = ("_audits", "_prompts", "_reading", "_speed")

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        self._reading = 0
        self._prompts: list[float] = []  # when each is read, in steps
        self._audits: list[float] = []  # the same of audits

    def read(self, now: int, tokens: int) -> float:
        """A prompt's, from now; `has_read` is to be called then."""
        self._reading += 1
        speed = self._speed
        if not speed.step_tokens:
            return speed.read_us(tokens, self._reading)
        step = speed.read_us(speed.step_tokens, 1)
        left = _left(self._prompts, now)
        waits = max(_left(self._audits, now) + left, default=0.0) % step
        most = -(-tokens // speed.step_tokens) * step  # of each other prompt, in as many steps
        others = sum(min(most, max(0.0, one - waits)) for one in left)
        service = waits + others + speed.read_us(tokens, 1)
        self._prompts = [now + one for one in (*left, service)]
        return service

    def replay(self, now: int, n_in: int, n_out: int) -> float:
        """An audit's, from now; `has_read` is to be called then."""
        speed = self._speed
        drawing = speed.redraw_us * n_out
        self._reading += 1
        if not speed.step_tokens:
            return speed.read_us(n_in + n_out, self._reading) + drawing
        left = _left(self._audits, now)
        waits = max(left, default=0.0) + max(_left(self._prompts, now), default=0.0)
        service = waits + speed.read_us(n_in + n_out, 1) + drawing
        self._audits = [now + one for one in (*left, service)]
        return service

    def has_read(self) -> None:
        self._reading -= 1

    def first(self, taken: int) -> float:
        """The first token, of a prompt that was just read. `taken`: slots at work."""
        return self._speed.first_us(self._drawing(taken))

    def draw(self, now: int, tokens: int, taken: int) -> float:
        """So many further tokens of one answer."""
        stands = max(_left(self._prompts + self._audits, now), default=0.0)
        return stands + self._speed.draw_us(tokens, self._drawing(taken))

    def _drawing(self, taken: int) -> int:
        return taken - self._reading if self._speed.step_tokens else taken


def _left(until: list[float], now: int) -> list[float]:
    return [one - now for one in until if one > now]
