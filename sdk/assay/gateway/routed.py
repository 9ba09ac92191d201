"""One request, carried through: what the route machine decides is done here.

Each attempt (attempts.py) is a task in a scope of its own. The request ends when all of them have
settled, so what it cost is known when it is told (decisions.py).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import trio

from assay.gateway.attempts import Asker, Attempt, Listener, Wanted
from assay.gateway.decisions import Course
from assay.gateway.refusal import Refusal
from assay.routing.core.events import Begin, Cancel, Event, Failed, FirstToken, Start, Tick, Whole
from assay.routing.core.machine import Allowed, Phase, RouteMachine
from assay_network.scopes import single_errors

if TYPE_CHECKING:
    from assay.gateway.service import Service

_MICRO: Final = 1_000_000


class RoutedRequest:
    """`run` it once; then it is of `answer`."""

    def __init__(self, service: Service, wanted: Wanted, listener: Listener) -> None:
        self._wanted, self._router = wanted, service.router
        self._plan = plan = self._router.routes.plan(wanted.asked.model)
        self._barred = self._router.barred(plan, wanted.caller, wanted.passage, wanted.only_network)
        self._machine = RouteMachine(
            plan, self._allowed(), self._router.shares, self._router.routes.seed
        )
        self._asker = Asker(service, wanted, listener, self._is_heard)
        self._attempts: list[Attempt] = []
        self._timer = trio.CancelScope()
        self._began = _now()
        self._first_at: int | None = None
        self._refusal: Refusal | None = None

    @property
    def answer(self) -> Attempt:
        """The attempt whose answer it is; from its first token on."""
        answering = self._machine.answering
        assert answering is not None, "an answer is of an attempt"
        return self._attempts[answering]

    async def run(self) -> None:
        """Raises Refusal if it is not answered."""
        try:
            with single_errors():
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._handle(Begin())
                    await self._wait()
        finally:
            names = self._router.routes.names
            self._router.note(self._course().decision(int(time.time()), names))
        if self._machine.answering is None or self.answer.refusal is not None:
            assert self._refusal is not None, "who gave up knows why"
            raise self._refusal

    def facts(self) -> dict[str, Any]:
        """The `route` of an answer, as far as it is decided."""
        return self._course().facts()

    async def _wait(self) -> None:
        while self._machine.phase is not Phase.OVER:
            wake_at = self._machine.wake_at
            deadline = math.inf if wake_at is None else wake_at / _MICRO
            with trio.CancelScope(deadline=deadline) as self._timer:
                await trio.sleep(math.inf)
            self._handle(Tick())

    def _handle(self, event: Event) -> None:
        for effect in self._machine.handle(_now(), event):
            match effect:
                case Start():
                    self._attempts.append(Attempt(effect, _now()))
                    self._nursery.start_soon(self._attempt, self._attempts[-1])
                case Cancel(attempt):
                    self._attempts[attempt].give_up()
                case _:
                    self._refusal = self._why(effect.attempt)
        self._timer.cancel()  # and look again what is waited for

    async def _attempt(self, attempt: Attempt) -> None:
        number, beside = attempt.start.attempt, attempt.start.beside
        first = None if beside is None else self._attempts[beside].generation
        with attempt.scope:
            try:
                await self._asker.ask(attempt, () if first is None else first.nodes)
            except Refusal as refusal:
                attempt.refusal = refusal
                wait = (refusal.retry or 0) * _MICRO
                self._handle(Failed(number, refusal.code, refusal.charged, wait))
            else:
                self._handle(Whole(number))

    def _why(self, attempt: int | None) -> Refusal:
        """What is told of that attempt's failure, or of nobody being left to ask."""
        refusal = None if attempt is None else self._attempts[attempt].refusal
        if refusal is not None:
            return refusal
        wanted = self._wanted
        return self._router.nobody(self._plan, wanted.caller, wanted.passage, self._barred)

    def _is_heard(self, attempt: Attempt) -> bool:
        """Whether the answer is this attempt's; the first one that says something is."""
        number = attempt.start.attempt
        if self._machine.answering is None:
            self._first_at = _now()
            self._handle(FirstToken(number))
        return self._machine.answering == number

    def _allowed(self) -> Allowed:
        asked = self._wanted.asked
        single = asked.choices == 1 and asked.options.get("verify") != "quorum"
        upstream = self._router.upstreams.get(self._plan.upstream)
        retries = 0 if upstream is None else upstream.terms.retries
        return Allowed(upstream=not self._barred, hedge=single, upstream_retries=retries)

    def _course(self) -> Course:
        return Course(
            wanted=self._wanted,
            attempts=self._attempts,
            answering=self._machine.answering,
            case=self._machine.case,
            barred=self._barred if self._plan.upstream else "",
            refusal=self._refusal,
            over=self._machine.phase is Phase.OVER,
            began=self._began,
            first_at=self._first_at,
            now=_now(),
        )


def _now() -> int:
    return math.ceil(trio.current_time() * _MICRO)
