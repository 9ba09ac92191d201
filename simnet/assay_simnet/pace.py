"""How long one machine takes, given what else it is at.

Where a profile says in what steps prompts are computed (`step_tokens`), a machine is what llama.cpp
is under our batcher: a step holds so many tokens of each prompt that is read, whoever comes waits
for the step to end, and answers stand still meanwhile. Without it prompts share the machine as if
it were divisible, and answers go on beside them.
"""

from __future__ import annotations

from assay_simnet.population import Speed


class Pace:
    """One machine with one model. Times are microseconds."""

    __slots__ = ("_reading", "_speed", "_until")

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        self._reading = 0
        self._until: tuple[float, ...] = ()  # when each prompt is read, in steps

    def replay(self, now: int, n_in: int, n_out: int) -> float:
        """An audit's, from now; `has_read` is to be called then."""
        return self.read(now, n_in + n_out, self._speed.redraw_us * n_out)

    def read(self, now: int, tokens: int, more_us: float = 0.0) -> float:
        """A prompt's and what follows at once, from now; `has_read` is to be called then."""
        self._reading += 1
        speed = self._speed
        if not speed.step_tokens:
            return speed.read_us(tokens, self._reading) + more_us
        step = speed.read_us(speed.step_tokens, 1)
        left = self._left(now)
        waits = max(left, default=0.0) % step
        most = -(-tokens // speed.step_tokens) * step  # of each other prompt, in as many steps
        others = sum(min(most, max(0.0, one - waits)) for one in left)
        service = waits + others + speed.read_us(tokens, 1) + more_us
        self._until = (*(now + one for one in left), now + service)
        return service

    def has_read(self) -> None:
        self._reading -= 1

    def first(self, taken: int) -> float:
        """The first token, of a prompt that was just read. `taken`: slots at work."""
        return self._speed.first_us(self._drawing(taken))

    def draw(self, now: int, tokens: int, taken: int) -> float:
        """So many further tokens of one answer."""
        return self._speed.draw_us(tokens, self._drawing(taken)) + max(self._left(now), default=0.0)

    def _drawing(self, taken: int) -> int:
        return taken - self._reading if self._speed.step_tokens else taken

    def _left(self, now: int) -> list[float]:
        return [until - now for until in self._until if until > now]
