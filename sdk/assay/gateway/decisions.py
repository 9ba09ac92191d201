"""What is told of a request's course: the `route` of its answer, and the record that is logged.

Both are made from its attempts alone, without a word of what was asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from assay.gateway.attempts import GIVEN_UP, Attempt, Wanted
from assay.gateway.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt. `code` is "" if it answered; `started_ms` counts from the request's reading."""

    model: str
    upstream: str
    why: str
    code: str
    started_ms: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one request. `asked` is "" for a name that is nobody's: it could be any text.

    `at` is Unix time; `first_token_ms` is None if none came. `credit` is in micro-credits, hedges
    included, `price` in micro-units of the upstream's currency.
    """

    at: int
    request: str
    caller: str
    asked: str
    model: str
    upstream: str
    case: str  # why it was not the first one that answered
    barred: str  # why no upstream could be asked, if the plan has one
    tried: tuple[Tried, ...]
    first_token_ms: int | None
    whole_ms: int
    tokens_in: int
    tokens_out: int
    credit: int
    price: int
    priced: str  # by what: counts, capped or most; "" if nothing was paid an upstream
    code: str  # "" if it was answered


@dataclass(frozen=True, slots=True)
class Course:
    """How a request went until `now`. Times in µs; `first_at` is that of the first token.

    `answering` is the attempt whose answer it is, by its number; `refusal` what is told instead;
    `over`: nothing more will come.
    """

    wanted: Wanted
    attempts: Sequence[Attempt]
    answering: int | None
    case: str
    barred: str
    refusal: Refusal | None
    over: bool
    began: int
    first_at: int | None
    now: int

    def facts(self) -> dict[str, Any]:
        """The `route` of an answer, as far as it is decided. `also` is what a hedge cost."""
        assert self.answering is not None, "an answer is of an attempt"
        answer = self.attempts[self.answering]
        target = answer.start.target
        others = [one for one in self.attempts if one is not answer]
        receipts = [name for one in others for name in one.receipts]
        return {
            "by": "upstream" if target.upstream else "network",
            "upstream": target.upstream or None,
            "model": target.model,
            "case": self.case or None,
            "attempts": len(self.attempts),
            "also": {"credit": sum(one.credit for one in others), "receipts": receipts},
        }

    def decision(self, at: int, names: Collection[str]) -> Decision:
        """The record, at Unix time `at`. `names` are those that the owner wrote down: others are
        only told if somebody had the model, since a caller could write any text in their place."""
        last = self._last()
        tokens_in, tokens_out = (0, 0) if last is None else last.counts
        whole = self.over and self.answering is not None and self.refusal is None
        return Decision(
            at=at,
            request=self.wanted.request,
            caller=self.wanted.caller.name,
            asked=self._named(self.wanted.asked.model, names),
            model="" if last is None else self._named(last.start.target.model, names),
            upstream="" if last is None else last.start.target.upstream,
            case=self.case,
            barred=self.barred,
            tried=tuple(self._tried(one, names) for one in self.attempts),
            first_token_ms=None if self.first_at is None else self._since(self.first_at),
            whole_ms=self._since(self.now),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            credit=sum(one.credit for one in self.attempts),
            price=sum(one.price for one in self.attempts),
            priced=next((one.priced for one in reversed(self.attempts) if one.priced), ""),
            code="" if whole else self.refusal.code if self.refusal else GIVEN_UP,
        )

    def _last(self) -> Attempt | None:
        """The one that answers, or else the newest."""
        if not self.attempts:
            return None
        return self.attempts[-1 if self.answering is None else self.answering]

    def _tried(self, attempt: Attempt, names: Collection[str]) -> Tried:
        target = attempt.start.target
        return Tried(
            model=self._named(target.model, names),
            upstream=target.upstream,
            why=attempt.start.why,
            code=attempt.code,
            started_ms=self._since(attempt.at),
        )

    def _named(self, model: str, names: Collection[str]) -> str:
        had = any(one.answered for one in self.attempts if one.start.target.model == model)
        return model if had or model in names else ""

    def _since(self, at: int) -> int:
        return (at - self.began) // 1_000
