"""One attempt at an answer: a model of the network draws it, or an upstream is asked for it.

An attempt knows what came of it, whoever was asked: tokens, receipts, costs, how it ended. One that
is given up settles like a client that left: its node signs for what it drew, the receipt is handed
in and kept, its price is the caller's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from assay.gateway.api_keys import ApiKey
from assay.gateway.choice import Choice, Fresh
from assay.gateway.generation import Asked, Generation
from assay.gateway.refusal import Refusal
from assay.gateway.upstream import Passage
from assay.gateway.upstream_answers import UpstreamAnswer
from assay.routing.core.events import Start

if TYPE_CHECKING:
    from assay.gateway.service import Service

GIVEN_UP: Final = "cancelled"  # as the code of an attempt, and of a request whose client left


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as routing sees it. `passage` is what an upstream would be sent."""

    asked: Asked
    caller: ApiKey
    passage: Passage
    only_network: bool
    request: str


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of the answer as it comes: in the network's pieces, or in an upstream's chunks."""

    fresh: Callable[[Generation, Fresh], Awaitable[None]]
    passed: Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Attempt:
    """One question to one target, begun `at` (µs), and what came of it so far."""

    start: Start
    at: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    generation: Generation | None = None
    choices: tuple[Choice, ...] = ()
    upstream: UpstreamAnswer | None = None
    refusal: Refusal | None = None
    given_up: bool = False

    def give_up(self) -> None:
        """End it, wherever it stands."""
        self.given_up = True
        self.scope.cancel()

    @property
    def answered(self) -> bool:
        """Whether somebody had the model."""
        answer = self.upstream
        return self.generation is not None or (answer is not None and answer.begun)

    @property
    def code(self) -> str:
        """How it failed; "" if it did not."""
        if self.refusal is not None:
            return self.refusal.code
        return GIVEN_UP if self.given_up else ""

    @property
    def credit(self) -> int:
        """Micro-credits that the network's nodes signed for."""
        return 0 if self.generation is None else self.generation.cost

    @property
    def receipts(self) -> list[str]:
        return [] if self.generation is None else self.generation.receipt_ids()

    @property
    def price(self) -> int:
        """Micro-units of the upstream's currency."""
        return 0 if self.upstream is None else self.upstream.price

    @property
    def priced(self) -> str:
        """By what that price is (upstream_answers.py)."""
        return "" if self.upstream is None else self.upstream.priced

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt, and of the answer."""
        if self.upstream is not None:
            return self.upstream.tokens_in, self.upstream.tokens_out
        made = self.generation
        return (0, 0) if made is None else (made.prompt_tokens, made.completion_tokens)

    def told_by(self) -> str:
        """The header that says who answers."""
        upstream = self.start.target.upstream
        return f"upstream {upstream}" if upstream else "network"


class Asker:
    """Asks for one request. `is_heard` says of an attempt that has something to tell whether the
    answer is its own; what others say is dropped."""

    def __init__(
        self,
        service: Service,
        wanted: Wanted,
        listener: Listener,
        is_heard: Callable[[Attempt], bool],
    ) -> None:
        self._service, self._wanted = service, wanted
        self._listener, self._is_heard = listener, is_heard

    async def ask(self, attempt: Attempt, avoid: tuple[bytes, ...] = ()) -> None:
        """Fill `attempt`, by nodes other than `avoid`. Raises Refusal if there is no answer."""
        if attempt.start.target.upstream:
            await self._pass_on(attempt)
        else:
            await self._draw(attempt, avoid)

    async def _draw(self, attempt: Attempt, avoid: tuple[bytes, ...]) -> None:
        asked = replace(self._wanted.asked, model=attempt.start.target.model)
        if avoid:
            asked = replace(asked, options=asked.options | {"avoid": avoid})
        async with self._service.generation(asked, self._wanted.caller) as generation:
            attempt.generation = generation

            async def heard(fresh: Fresh) -> None:
                if self._is_heard(attempt):
                    await self._listener.fresh(generation, fresh)

            attempt.choices = await generation.run(heard)

    async def _pass_on(self, attempt: Attempt) -> None:
        target = attempt.start.target
        upstream = self._service.router.upstreams[target.upstream]
        attempt.upstream = answer = UpstreamAnswer()

        async def heard(chunk: dict[str, Any]) -> None:
            if self._is_heard(attempt):
                await self._listener.passed(chunk)

        with trio.move_on_after(self._service.settings.answer_seconds) as patience:
            wanted = self._wanted
            await upstream.ask(wanted.passage, target.model, wanted.caller, answer, heard)
        if patience.cancelled_caught:
            raise Refusal(504, "timeout", "the answer took too long", charged=True)
