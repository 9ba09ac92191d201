"""What a job may say next, looked up in what it said: prompt lookup. Pure.

If the newest tokens stood in prompt or answer before, what followed them then is guessed to follow
again. One place is followed until a guess fails; then the longest of `LENGTHS` newest tokens that
stood somewhere leads to the next place, their latest one. Whether guesses hold is learned without
decoding any: every token that is drawn confirms or refutes the guess that was made for it.

Constant work a token, and memory for the newest `REMEMBERED_MAX` tokens at most, twice while they
are replaced.
"""

from __future__ import annotations

from typing import Final

LENGTHS: Final = (4, 3, 2)  # tokens of which an earlier place is looked up
REMEMBERED_MAX: Final = 8_192  # tokens; some 0.5 KiB each
_MEMORY: Final = 8  # guesses after which older ones hardly count
# By how many tokens agreed so far: (at least so many, the share of right guesses assumed at first).
_LEVELS: Final = ((2, 0.25), (3, 0.4), (4, 0.55), (6, 0.65), (8, 0.75), (12, 0.85), (16, 0.95))

_BITS: Final = 32  # of a token
_MASKS: Final = {length: (1 << _BITS * length) - 1 for length in LENGTHS}
_MARKS: Final = {length: 1 << _BITS * length for length in LENGTHS}  # no two lengths' keys meet
_LEVEL_OF: Final = tuple(
    max((number for number, (least, _) in enumerate(_LEVELS) if least <= agreed), default=0)
    for agreed in range(_LEVELS[-1][0] + 1)
)


class Drafts:
    """Follows one job's `tokens`, a list that its owner appends to."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._newest = _MASKS[LENGTHS[0]]  # the newest tokens as one number; no token is all ones
        self._places: dict[int, int] = {}  # where what follows a key begins
        self._older: dict[int, int] = {}
        self._place: int | None = None  # of the guess
        self._agreed = 0  # tokens before it that are the newest ones, too
        self._rates = [rate for _, rate in _LEVELS]
        self._seen = max(0, len(tokens) - REMEMBERED_MAX)
        while self._seen < len(tokens):
            self._take(tokens[self._seen])
        self._rates = [rate for _, rate in _LEVELS]  # a prompt is not what the model would say

    @property
    def likelihood(self) -> float:
        """How often such a guess was right lately; 0.0 if there is none."""
        return self.expected(1)

    def expected(self, count: int) -> float:
        """How many of the next `count` should be right: each only if all before it are."""
        if self._place is None:
            return 0.0
        all_right, sum_of_them = 1.0, 0.0
        for agreed in range(self._agreed, self._agreed + count):
            all_right *= self._rates[_LEVEL_OF[min(agreed, _LEVELS[-1][0])]]
            sum_of_them += all_right
        return sum_of_them

    def follow(self) -> None:
        """Take the tokens appended since the last call."""
        tokens = self._tokens
        while self._seen < len(tokens):
            self._take(tokens[self._seen])

    def next(self, count: int) -> tuple[int, ...]:
        """The next `count` tokens, if there is a guess: a repetition goes on as it began."""
        if self._place is None:
            return ()
        begin, known = self._place, len(self._tokens)
        guess = self._tokens[begin : begin + count]
        period = known - begin
        while len(guess) < count:
            guess += guess[len(guess) - period : len(guess) - period + count - len(guess)]
        return tuple(guess)

    def _take(self, token: int) -> None:
        right = False
        if self._place is not None:
            right = self._tokens[self._place] == token
            level = _LEVEL_OF[min(self._agreed, _LEVELS[-1][0])]
            self._rates[level] += (right - self._rates[level]) / _MEMORY
        self._seen += 1
        self._newest = (self._newest << _BITS | token) & _MASKS[LENGTHS[0]]
        keys = [self._newest & _MASKS[length] | _MARKS[length] for length in LENGTHS]
        if right:
            assert self._place is not None
            self._place += 1
            self._agreed += 1
        else:
            self._look_up(keys)
        if len(self._places) >= len(LENGTHS) * REMEMBERED_MAX:
            self._older, self._places = self._places, {}
        for key in keys:
            self._places[key] = self._seen

    def _look_up(self, keys: list[int]) -> None:
        self._place = None
        for key, length in zip(keys, LENGTHS, strict=True):
            place = self._places.get(key) or self._older.get(key)
            if place is not None:
                self._place, self._agreed = place, length
                return
