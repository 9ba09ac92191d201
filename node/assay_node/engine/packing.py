"""Which waiting texts are computed in the next batch. Pure.

An encoder looks at a whole text at once, so a text is never cut: a batch is some whole texts of
`together` tokens in all, or one longer text alone. Tenants have their turns in tokens (turns.py).
A text that does not fit any more is kept and begins the next batch; no shorter one passes it,
because then a stream of short texts could keep a long one waiting for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_node.engine.turns import Turns
from assay_protocol.errors import AssayError

TOGETHER: Final = 63  # tokens: llama.cpp's flash attention takes 64 rows and more in tiles
ALONE: Final = 1
TEXTS_MAX: Final = 64  # in one batch: sequences that llama.cpp is asked to keep apart


@dataclass(frozen=True, slots=True)
class _Text:
    job: int
    tenant: bytes
    cost: int  # its tokens


class Packer:
    """The texts that wait. `longest` and `together` in tokens; `waiting_max` in texts."""

    def __init__(self, *, longest: int, together: int, waiting_max: int) -> None:
        self._longest, self._together, self._waiting_max = longest, together, waiting_max
        self._turns: Turns[_Text] = Turns(longest)
        self._texts: dict[int, _Text] = {}
        self._next: _Text | None = None  # it had its turn when the last batch was full

    def __len__(self) -> int:
        return len(self._texts)

    def submit(self, job: int, tenant: bytes, tokens: int) -> None:
        """Queue a text of `tokens` tokens. Raises AssayError("busy")."""
        assert 0 < tokens <= self._longest
        assert job not in self._texts
        if len(self._texts) >= self._waiting_max:
            raise AssayError("busy")
        self._texts[job] = _Text(job, tenant, tokens)
        self._turns.add(self._texts[job])

    def cancel(self, job: int) -> None:
        """Forget a text; nothing happens if it does not wait."""
        text = self._texts.pop(job, None)
        if text is None:
            return
        if text is self._next:
            self._next = None
        else:
            self._turns.remove(text)

    def plan(self) -> tuple[int, ...]:
        """The jobs of the next batch, which wait no longer; none if none wait."""
        batch: list[int] = []
        room = self._together
        while len(batch) < TEXTS_MAX:
            text, self._next = self._next or self._turns.take(lambda _: True), None
            if text is None:
                break
            if batch and text.cost > room:
                self._next = text
                break
            room -= text.cost
            batch.append(text.job)
            del self._texts[text.job]
        return tuple(batch)
