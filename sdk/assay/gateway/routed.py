"""One request, carried through: what the route machine decides is done here, and told.

Each attempt is a task in a scope of its own. One that is given up settles like a client that left:
its node signs for what it drew, the receipt is handed in and kept, its price is the caller's. The
request ends when all of them have settled, so what it cost is known when it is told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from assay.gateway.api_keys import ApiKey
from assay.gateway.generation import Asked, Choice, Fresh, Generation
from assay.gateway.refusal import Refusal
from assay.gateway.router import Decision, Tried
from assay.gateway.upstream import Passage, UpstreamAnswer
from assay.routing.core.events import Begin, Cancel, Event, Failed, FirstToken, Start, Tick, Whole
from assay.routing.core.machine import Allowed, Phase, RouteMachine
from assay_network.scopes import single_errors

if TYPE_CHECKING:
    from assay.gateway.service import Service

_MICRO: Final = 1_000_000
_GIVEN_UP: Final = "cancelled"


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of the answer as it comes: in the network's pieces, or in an upstream's chunks."""

    fresh: Callable[[Generation, Fresh], Awaitable[None]]
    passed: Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as routing sees it. `passage` is what an upstream would be sent."""

    asked: Asked
    caller: ApiKey
    passage: Passage
    only_network: bool
    request: str


@dataclass(slots=True)
class _Attempt:
    start: Start
    at: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    generation: Generation | None = None
    choices: tuple[Choice, ...] = ()
    upstream: UpstreamAnswer | None = None
    refusal: Refusal | None = None
    given_up: bool = False

    @property
    def answered(self) -> bool:
        """Whether somebody had the model."""
        answer = self.upstream
        return self.generation is not None or (answer is not None and answer.begun)


class RoutedRequest:
    """`run` it once; then it is of `generation` and `choices`, or of `upstream`."""

    def __init__(self, service: Service, wanted: Wanted, listener: Listener) -> None:
        self._service, self._wanted, self._listener = service, wanted, listener
        self._router = service.router
        self._plan = plan = self._router.routes.plan(wanted.asked.model)
        self._barred = self._router.barred(
            plan, wanted.caller.name, wanted.passage, wanted.only_network
        )
        self._machine = RouteMachine(
            plan, self._allowed(), self._router.shares, self._router.routes.seed
        )
        self._attempts: list[_Attempt] = []
        self._timer = trio.CancelScope()
        self._began = self._now()
        self._first_at: int | None = None
        self._refusal: Refusal | None = None

    @property
    def generation(self) -> Generation | None:
        """The network's answer, if it is one."""
        return self._winner.generation

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self._winner.choices

    @property
    def upstream(self) -> UpstreamAnswer | None:
        """The upstream's answer, if it is one."""
        return self._winner.upstream

    async def run(self) -> None:
        """Raises Refusal if it is not answered."""
        try:
            with single_errors():
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._handle(Begin())
                    await self._wait()
        finally:
            self._router.note(self._decision())
        if self._machine.answering is None or self._winner.refusal is not None:
            raise self._refusal or _nobody(self._barred)

    def facts(self) -> dict[str, Any]:
        """The `route` of an answer, as far as it is decided. `also` is what a hedge cost."""
        winner = self._winner.start.target
        others = [one for one in self._attempts if one is not self._winner and one.generation]
        receipts = [name for one in others if one.generation for name in _receipts(one)]
        return {
            "by": "upstream" if winner.upstream else "network",
            "upstream": winner.upstream or None,
            "model": winner.model,
            "case": self._machine.case or None,
            "attempts": len(self._attempts),
            "also": {"credit": sum(map(_credit, others)), "receipts": receipts},
        }

    def told_by(self) -> str:
        """The header that says who answers."""
        target = self._winner.start.target
        return f"upstream {target.upstream}" if target.upstream else "network"

    # ---- the machine's effects ----

    async def _wait(self) -> None:
        while self._machine.phase is not Phase.OVER:
            wake_at = self._machine.wake_at
            deadline = math.inf if wake_at is None else wake_at / _MICRO
            with trio.CancelScope(deadline=deadline) as self._timer:
                await trio.sleep(math.inf)
            self._handle(Tick())

    def _handle(self, event: Event) -> None:
        for effect in self._machine.handle(self._now(), event):
            match effect:
                case Start():
                    self._attempts.append(_Attempt(effect, self._now()))
                    self._nursery.start_soon(self._attempt, self._attempts[-1])
                case Cancel(attempt):
                    self._attempts[attempt].given_up = True
                    self._attempts[attempt].scope.cancel()
                case _:
                    told = effect.attempt
                    self._refusal = None if told is None else self._attempts[told].refusal
        self._timer.cancel()  # and look again what is waited for

    async def _attempt(self, attempt: _Attempt) -> None:
        number = attempt.start.attempt
        with attempt.scope:
            try:
                if attempt.start.target.upstream:
                    await self._pass_on(attempt)
                else:
                    await self._draw(attempt)
            except Refusal as refusal:
                attempt.refusal = refusal
                wait = (refusal.retry or 0) * _MICRO
                self._handle(Failed(number, refusal.code, refusal.charged, wait))
            else:
                self._handle(Whole(number))

    async def _draw(self, attempt: _Attempt) -> None:
        asked, beside = self._wanted.asked, attempt.start.beside
        asked = replace(asked, model=attempt.start.target.model)
        if beside is not None and (other := self._attempts[beside].generation) is not None:
            asked = replace(asked, options=asked.options | {"avoid": other.nodes})
        async with self._service.generation(asked, self._wanted.caller) as generation:
            attempt.generation = generation

            async def heard(fresh: Fresh) -> None:
                if self._is_heard(attempt):
                    await self._listener.fresh(generation, fresh)

            attempt.choices = await generation.run(heard)

    async def _pass_on(self, attempt: _Attempt) -> None:
        upstream = self._router.upstreams[attempt.start.target.upstream]
        attempt.upstream = answer = UpstreamAnswer()

        async def heard(chunk: dict[str, Any]) -> None:
            if self._is_heard(attempt):
                await self._listener.passed(chunk)

        seconds = self._service.settings.answer_seconds
        with trio.move_on_after(seconds) as patience:
            await upstream.ask(self._wanted.passage, attempt.start.target.model, answer, heard)
        if patience.cancelled_caught:
            raise Refusal(504, "timeout", "the answer took too long", charged=True)

    def _is_heard(self, attempt: _Attempt) -> bool:
        """Whether the answer is this attempt's; the first one that says something is."""
        number = attempt.start.attempt
        if self._machine.answering is None:
            self._first_at = self._now()
            self._handle(FirstToken(number))
        return self._machine.answering == number

    # ---- what is told ----

    @property
    def _winner(self) -> _Attempt:
        answering = self._machine.answering
        assert answering is not None, "an answer is of an attempt"
        return self._attempts[answering]

    def _allowed(self) -> Allowed:
        asked = self._wanted.asked
        single = asked.choices == 1 and asked.options.get("verify") != "quorum"
        upstream = self._router.upstreams.get(self._plan.upstream)
        retries = 0 if upstream is None else upstream.terms.retries
        return Allowed(upstream=not self._barred, hedge=single, upstream_retries=retries)

    def _decision(self) -> Decision:
        answering, refusal = self._machine.answering, self._refusal
        last = self._attempts[-1 if answering is None else answering] if self._attempts else None
        tokens_in, tokens_out = _counts(last)
        whole = self._machine.phase is Phase.OVER and answering is not None and refusal is None
        return Decision(
            at=int(time.time()),
            request=self._wanted.request,
            caller=self._wanted.caller.name,
            asked=self._named(self._wanted.asked.model),
            model="" if last is None else self._named(last.start.target.model),
            upstream="" if last is None else last.start.target.upstream,
            case=self._machine.case,
            barred=self._barred if self._plan.upstream else "",
            tried=tuple(self._tried(one) for one in self._attempts),
            first_token_ms=None if self._first_at is None else self._since(self._first_at),
            whole_ms=self._since(self._now()),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            credit=sum(map(_credit, self._attempts)),
            price=sum(one.upstream.price for one in self._attempts if one.upstream is not None),
            code="" if whole else refusal.code if refusal else _GIVEN_UP,
        )

    def _tried(self, attempt: _Attempt) -> Tried:
        target, refusal = attempt.start.target, attempt.refusal
        return Tried(
            model=self._named(target.model),
            upstream=target.upstream,
            why=attempt.start.why,
            code=refusal.code if refusal is not None else _GIVEN_UP if attempt.given_up else "",
            started_ms=self._since(attempt.at),
        )

    def _named(self, model: str) -> str:
        """`model` if somebody has it: a caller could write any text in its place."""
        had = any(one.answered for one in self._attempts if one.start.target.model == model)
        return model if had or model in self._router.routes.names else ""

    def _since(self, at: int) -> int:
        return (at - self._began) // 1_000

    @staticmethod
    def _now() -> int:
        return math.ceil(trio.current_time() * _MICRO)


def _credit(attempt: _Attempt) -> int:
    return 0 if attempt.generation is None else attempt.generation.cost


def _receipts(attempt: _Attempt) -> list[str]:
    return [] if attempt.generation is None else attempt.generation.receipt_ids()


def _counts(attempt: _Attempt | None) -> tuple[int, int]:
    if attempt is None:
        return 0, 0
    if attempt.upstream is not None:
        return attempt.upstream.tokens_in, attempt.upstream.tokens_out
    made = attempt.generation
    return (0, 0) if made is None else (made.prompt_tokens, made.completion_tokens)


def _nobody(barred: str) -> Refusal:
    said = f"only an upstream has this model, and this request may not go there: {barred}"
    return Refusal(403, "upstream_barred", said, param="model")
