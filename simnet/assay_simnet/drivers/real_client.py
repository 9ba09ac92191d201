"""A client of a real run: the SDK in this process, one account, jobs line by line.

Prompts are made of ordinary tokens drawn from the client's own stream, so no two begin alike and
nothing of one can be reused for another. The model's end tokens are biased away: an answer has the
length that the scenario says, as at every other level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from assay import AsyncClient
from assay.answers import Completion, Delta, JobFailed
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from assay_simnet.drivers.real_parties import RealClient, RealNode
from assay_simnet.record import JobLine, Record
from assay_simnet.seeds import Stream
from assay_simnet.setting import CANARY
from assay_simnet.traces import Ask

NEVER: Final = -100.0  # added to an end token's logit
ORDINARY: Final = range(1_000, 40_000)  # tokens that are text in the test model's vocabulary
SAMPLING: Final[dict[str, Any]] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


class Asker:
    """Asks as one client. `now`: microseconds of the run."""

    def __init__(
        self,
        client: RealClient,
        api: AsyncClient,
        stream: Stream,
        card: ModelCard,
        verify: str,
        now: Callable[[], int],
    ) -> None:
        self._client, self._api, self._stream = client, api, stream
        self._bias = dict.fromkeys(card.eog, NEVER)
        self._verify, self._now = verify, now

    async def ask(self, ask: Ask, record: Record, nodes: Mapping[bytes, RealNode]) -> JobLine:
        """One job from its begin to its end; its line is in the record."""
        client = self._client
        line = JobLine(
            begun_us=self._now(),
            client=client.number,
            behaviour="",
            n_in=max(len(CANARY) + 1, ask.n_in),
            n_out=ask.n_out,
        )
        record.begun += 1
        client.running += 1
        try:
            done = await self._answer(line)
        finally:
            client.running -= 1
        line.ended_us = line.ended_us or self._now()
        line.finish = done.finish_reason if done else "failed"
        line.attempts = done.attempts if done else 0
        line.nodes = tuple(nodes[key].number for key in done.nodes) if done else ()
        for node in (nodes[key] for key in (done.nodes if done else ())):
            if node.behaviour:  # it cheats from its first token on
                node.meter.cheated += 1
                node.meter.first_cheat_us = node.meter.first_cheat_us or line.first_us
        record.ended(line)
        return line

    async def _answer(self, line: JobLine) -> Completion | None:
        """None: it did not even begin."""
        stream = self._api.stream_complete(
            self._prompt(line.n_in),
            max_tokens=line.n_out,
            verify=self._verify,
            logit_bias=self._bias,
            **SAMPLING,
        )
        done: Completion | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._note_end, stream.answered, line)
            try:
                async with stream:
                    async for event in stream:
                        if isinstance(event, Delta) and event.tokens:
                            line.first_us = line.first_us or self._now()
                            line.tokens += len(event.tokens)
                done = stream.result
            except JobFailed as failure:
                line.code, done = failure.code, failure.partial
            except AssayError as error:
                line.code = error.code
            nursery.cancel_scope.cancel()
        return done

    async def _note_end(self, answered: trio.Event, line: JobLine) -> None:
        """A verdict that is waited for is not part of the answer."""
        await answered.wait()
        line.ended_us = self._now()

    def _prompt(self, length: int) -> tuple[int, ...]:
        own = Stream(self._stream.word().to_bytes(8, "big"))
        rest = length - len(CANARY)
        return (*CANARY, *(ORDINARY[own.below(len(ORDINARY))] for _ in range(rest)))
