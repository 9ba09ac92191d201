"""An answer's tokens as text: characters that are whole, reasoning told apart, up to a stop string.

Stop strings are looked for in the answer and not in its reasoning: a caller who names one knows
what the answer looks like, and not how the model thinks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from assay.reasoning_split import Split
from assay.stop_text import StopText
from assay_protocol.detokenizer import Detokenizer


class Piece(NamedTuple):
    """What tokens added; `reasoning_tokens` of them were drawn within the reasoning's marks."""

    text: str
    reasoning: str = ""
    reasoning_tokens: int = 0


class AnswerText:
    """One answer's; `split` is None where nothing is told apart."""

    def __init__(self, pieces: Sequence[bytes], stops: StopText, split: Split | None) -> None:
        self._text, self._stops, self._split = Detokenizer(pieces), stops, split

    @property
    def stop(self) -> str | None:
        """The stop string that was found."""
        return self._stops.stop

    def push(self, tokens: Iterable[int]) -> Piece:
        """Raises what `Detokenizer.push` does."""
        if self._split is None:
            return Piece(self._stops.push(self._text.push(tokens)))
        text, reasoning, count = "", "", 0
        for token in tokens:  # one by one: each is counted as the one or the other
            thought, said = self._split.push(self._text.push((token,)))
            reasoning, text = reasoning + thought, text + self._stops.push(said)
            count += self._split.inside
        return Piece(text, reasoning, count)

    def flush(self) -> Piece:
        """What is left at the end of the answer."""
        rest, reasoning = self._text.flush(), ""
        if self._split is not None:
            (first, begun), (last, end) = self._split.push(rest), self._split.flush()
            reasoning, rest = first + last, begun + end
        return Piece(self._stops.push(rest) + self._stops.flush(), reasoning)
