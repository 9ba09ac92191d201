"""`assay probe`: an ordinary client, run by the operator, whose every answer is audited.

It looks to nodes like the clients whose jobs it is cut to, and tells the coordinator alone
(verify="now"). So nodes that serve well only where they expect an audit are found on jobs that no
private prompt is shown for. Of each probe one line is printed; never what was said.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs
import trio

from assay.answer_stream import AnswerStream
from assay.answers import Completion, JobFailed, NotVerified
from assay.cli import OK, print_json, printable
from assay.direct import AsyncClient
from assay.probe_plan import (
    Conversation,
    PlannedJob,
    choose_personas,
    personas,
    plan_session,
)
from assay.probe_pool import ProbeKeys, ProbePool
from assay.probe_shapes import Session, Shapes, read_shapes
from assay_network.keystore import load_or_create_key
from assay_network.scopes import single_errors
from assay_protocol.errors import AssayError
from assay_protocol.messages import Receipt
from assay_protocol.signing import Identity, peek

WINDOW: Final = 256  # unused conversations looked at for a session
SHARE_MAX: Final = 0.5
JSON_ONLY: Final = {"type": "json_object"}

Talk = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What became of one probe: an outcome of a verdict, or the code of what failed before."""

    outcome: str
    nodes: tuple[bytes, ...]
    tickets: tuple[bytes, ...]
    tokens: int


def probe(options: argparse.Namespace) -> int:
    """Play personas until their sessions are over; exit 1 only if they could not be played."""
    if not options.coordinator:
        raise AssayError("config_invalid", "give --coordinator or set ASSAY_COORDINATOR")
    if not 0 < options.share <= SHARE_MAX:
        raise AssayError("config_invalid", f"--share is above 0 and at most {SHARE_MAX}")

    def tell(result: ProbeResult) -> None:
        if options.json:
            print_json(asdict(result))
        else:
            nodes = " -> ".join(node.hex()[:16] for node in result.nodes) or "no node"
            print(f"{printable(result.outcome):<14} {nodes}, {result.tokens} tokens", flush=True)

    shapes = read_shapes(options.shapes.read_text())
    prober = Prober(options.coordinator, shapes, ProbePool(options.pool), tell, model=options.model)
    count = personas(shapes, options.share)
    keys = ProbeKeys(options.keys).take(count, shapes.turnover, prober.draw)
    trio.run(prober.run, keys)
    return OK


class Prober:
    """Plays one persona under each key. `transports` and `draw` are for tests."""

    def __init__(
        self,
        coordinator: str,
        shapes: Shapes,
        pool: ProbePool,
        tell: Callable[[ProbeResult], None],
        *,
        model: str | None = None,
        transports: Callable[[bytes], list[Any]] | None = None,
        draw: random.Random | None = None,
    ) -> None:
        """`transports`: by the client's public key."""
        self.draw = draw or random.SystemRandom()
        self._coordinator, self._shapes = coordinator, shapes
        self._pool, self._tell = pool, tell
        self._model, self._transports = model, transports

    async def run(self, keys: Sequence[Path]) -> None:
        """Ends with the last session, or with the pool."""
        chosen = choose_personas(self._shapes, len(keys), self.draw)
        with single_errors():
            async with trio.open_nursery() as nursery:
                for key, sessions in zip(keys, chosen, strict=True):
                    nursery.start_soon(self._play, key, sessions)

    async def _play(self, key: Path, sessions: Sequence[tuple[int, Session]]) -> None:
        """A session begins a connection of its own, as far from the last as its pattern's did."""
        began = trio.current_time()
        for at_ms, session in sessions:
            await trio.sleep_until(began + at_ms / 1000)
            if not len(self._pool):
                print("probe: the pool is used up", file=sys.stderr)
                return
            seed = load_or_create_key(key)
            async with AsyncClient.connect(
                self._coordinator,
                seed=seed,
                cache=Path(platformdirs.user_cache_dir("assay")) / "cards",
                transports=self._transports and self._transports(Identity(seed).public_key),
            ) as client:
                await self._hold(client, session)

    async def _hold(self, client: AsyncClient, session: Session) -> None:
        """Begin each job as long after the one before as its pattern did, verdict or not."""
        candidates = await self._candidates(client)
        unused = [one for one in candidates if one.name in self._pool]  # others took some meanwhile
        jobs = plan_session(session, unused, self.draw)
        for name in dict.fromkeys(job.conversation.name for job in jobs):
            self._pool.use(name)
        talks: dict[str, Talk] = {}
        began = trio.current_time()
        with single_errors():
            async with trio.open_nursery() as verdicts:
                for job in jobs:
                    await trio.sleep_until(began + job.wait_ms / 1000)
                    began = trio.current_time()
                    talk = talks.setdefault(job.conversation.name, [])
                    await self._ask(client, verdicts, job, talk)

    async def _candidates(self, client: AsyncClient) -> list[Conversation]:
        found = []
        for name, turns in self._pool.some(WINDOW, self.draw):
            first = [{"role": "user", "content": turns[0]}]
            count = await client.count_tokens(first, model=self._model)
            found.append(Conversation(name, turns, count))
        return found

    async def _ask(
        self, client: AsyncClient, verdicts: trio.Nursery, job: PlannedJob, talk: Talk
    ) -> None:
        """Returns when the answer is there; its verdict is told later."""
        talk.append({"role": "user", "content": job.conversation.turns[job.turn]})
        stream = client.stream_chat(list(talk), verify="now", **self._options(job))
        verdicts.start_soon(self._read, stream, client.public_key)
        await stream.answered.wait()
        if stream.text is not None:
            talk.append({"role": "assistant", "content": stream.text})

    async def _read(self, stream: AnswerStream, owner: bytes) -> None:
        try:
            self._tell(_result("passed", await stream.whole()))
        except NotVerified as failure:
            self._tell(_result(failure.verdict.outcome, failure.partial))
        except JobFailed as failure:
            if failure.code == "insufficient_credit":
                text = f"grant credit to the probe's key {owner.hex()}"
                raise AssayError(failure.code, text) from failure
            self._tell(_result(failure.code, failure.partial))
        except AssayError as error:
            self._tell(ProbeResult(error.code, (), (), 0))
        finally:
            stream.answered.set()

    def _options(self, job: PlannedJob) -> dict[str, Any]:
        shape = job.pattern.shape
        options: dict[str, Any] = {"model": self._model, "max_tokens": max(1, shape.max_tokens)}
        if shape.grammar:
            options["response_format"] = JSON_ONLY
        return {**options, **shape.sampling}


def _result(outcome: str, answer: Completion) -> ProbeResult:
    tickets = tuple(peek(Receipt, record.receipt).ticket for record in answer.receipts)
    return ProbeResult(outcome, answer.nodes, tickets, len(answer.tokens))
