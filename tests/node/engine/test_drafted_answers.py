"""Drafts change how fast answers come and no bit of any. Needs the model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing

from assay_node.engine.interface import (
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NORMAL,
    Generate,
    Replay,
)
from assay_node.engine.profiles import FLASH, PLAIN, Profile
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_protocol.messages import Sampler, TokenBias

pytestmark = [pytest.mark.model, pytest.mark.slow]

needs_plain = pytest.mark.skipif(
    not PLAIN.available, reason="scripts/build_engine.sh exact was not run"
)
ROADS = [pytest.param(FLASH, id="flash"), pytest.param(PLAIN, id="plain", marks=needs_plain)]
TIMEOUT_SECONDS = 400.0
SLOTS = 4
TOKENS = 32
GREEDY = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
SEEDED = Sampler(temperature=0.5, top_k=40, top_p=0.95, min_p=0.05)
PENALIZED = replace(
    SEEDED,
    repetition_penalty=1.05,
    repetition_window=20,
    presence_penalty=0.1,
    frequency_penalty=0.05,
    logit_bias=(TokenBias(token=30, bias=1.0),),
    logprobs=3,
)
REPEATED = [2000 + 997 * i for i in range(9)]  # a line that the model goes on to repeat


@dataclass
class Answer:
    """What a job gave, and in how many tokens at once at the most."""

    tokens: tuple[int, ...] = ()
    logits: bytes = b""
    logprobs: bytes = b""
    sketches: bytes = b""
    finish: str | None = None
    most: int = 0

    @property
    def said(self) -> tuple[object, ...]:
        return self.tokens, self.logits, self.logprobs, self.sketches, self.finish


def _model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


def _request(number: int, sampler: Sampler, max_tokens: int = TOKENS) -> Generate:
    """Every prompt begins otherwise, so that nothing is copied, and then repeats a line."""
    prompt = (700 + number, *REPEATED * 6)
    return Generate(prompt, 0, max_tokens, sampler, bytes([number]) * 32)


@asynccontextmanager
async def _opened(road: Profile, *, drafts: bool) -> AsyncIterator[LlamaEngine]:
    async with open_llama_engine(
        _model(), bytes(32), slots=SLOTS, context=256, threads=1, profile=road, drafts=drafts
    ) as engine:
        yield engine


async def _write(engine: LlamaEngine, request: Generate, out: dict[int, Answer], job: int) -> None:
    answer = out[job] = Answer()
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            answer.tokens += chunk.tokens
            answer.logits += chunk.logits
            answer.logprobs += chunk.logprobs
            answer.sketches += chunk.sketches
            answer.finish = chunk.finish
            answer.most = max(answer.most, len(chunk.tokens))


async def _alone(engine: LlamaEngine, requests: list[Generate]) -> dict[int, Answer]:
    out: dict[int, Answer] = {}
    for job, request in enumerate(requests):
        await _write(engine, request, out, job)
    return out


def _said(answers: dict[int, Answer]) -> dict[int, tuple[object, ...]]:
    return {job: answer.said for job, answer in answers.items()}


@pytest.mark.parametrize("road", ROADS)
async def test_answers_are_the_same_with_and_without_drafts(road: Profile) -> None:
    requests = [_request(n, s) for n, s in enumerate([GREEDY, SEEDED, PENALIZED, GREEDY])]
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _opened(road, drafts=False) as engine:
            stop = (await _alone(engine, requests[:1]))[0].tokens[TOKENS // 2]
            stopping = replace(requests[3], sampler=replace(GREEDY, stop_tokens=(stop,)))
            short = replace(requests[0], max_tokens=TOKENS // 2 + 3)
            requests += [stopping, short]
            plain = await _alone(engine, requests)
        async with _opened(road, drafts=True) as engine:
            drafted = await _alone(engine, requests)
            together: dict[int, Answer] = {}
            async with trio.open_nursery() as nursery:
                for job, request in enumerate(requests):
                    nursery.start_soon(_write, engine, request, together, job)
            replayed = await engine.replay(
                Replay(
                    requests[2].prompt, drafted[2].tokens, 0, requests[2].sampler, requests[2].seed
                )
            )
    assert {answer.most for answer in plain.values()} == {1}
    # How much is drafted follows from what it cost, in measured time; how much is no promise.
    assert max(answer.most for answer in drafted.values()) > 1, "nothing was drafted"
    assert _said(drafted) == _said(plain)
    assert _said(together) == _said(plain)
    assert plain[4].finish == "stop"
    assert plain[5].finish == "length"
    assert (replayed.drawn, replayed.logits) == (drafted[2].tokens, drafted[2].logits)
    assert replayed.sketches == drafted[2].sketches


async def test_jobs_that_draft_are_preempted_left_and_go_on_the_same() -> None:
    low = [replace(_request(n, GREEDY, 60), priority=PRIORITY_LOW) for n in range(SLOTS)]
    high = [
        replace(_request(10 + n, SEEDED, 12), priority=priority)
        for n, priority in enumerate([PRIORITY_NORMAL, PRIORITY_HIGH] * 3)
    ]
    out: dict[int, Answer] = {}
    left: list[int] = []
    with trio.fail_after(TIMEOUT_SECONDS):
        async with _opened(FLASH, drafts=False) as engine:
            plain = await _alone(engine, low + high)
        async with _opened(FLASH, drafts=True) as engine:

            async def leave(request: Generate) -> None:
                async with engine.generate(request) as chunks:
                    async for chunk in chunks:
                        left.append(len(chunk.tokens))
                        if len(chunk.tokens) > 1 or len(left) > 20:
                            return

            async with trio.open_nursery() as nursery:
                for job, request in enumerate(low):
                    nursery.start_soon(_write, engine, request, out, job)
                await trio.testing.wait_all_tasks_blocked()
                for job, request in enumerate(high, len(low)):
                    nursery.start_soon(leave, replace(request, seed=bytes(32)))
                    await _write(engine, request, out, job)
            again: dict[int, Answer] = {}
            await _write(engine, low[0], again, 0)
    assert left
    assert max(answer.most for answer in [*out.values(), *again.values()]) > 1
    assert _said(out) == _said(plain)
    assert again[0].said == plain[0].said
