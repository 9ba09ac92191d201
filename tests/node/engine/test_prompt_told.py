"""Logprobs of a prompt as engines tell them: those of a plain forward pass, whatever else runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from assay_node.engine.interface import PRIORITY_HIGH, Engine, Generate, Replay
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.adjustments import prompt_pairs
from assay_protocol.errors import AssayError
from assay_protocol.logprobs import LOGPROB_PAIR_BYTES
from assay_protocol.messages import Sampler
from assay_protocol.prompt_logprobs import ROUNDING, read_told
from node.engine.test_served_engine import served

SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, prompt_logprobs=2)
LONG = Script(end_bias=-50.0)


def request(prompt: tuple[int, ...], **changes: Any) -> Generate:
    return replace(Generate(prompt, 0, 3, SAMPLER, bytes(32)), **changes)


async def told(engine: Engine, asked: Generate) -> tuple[bytes, tuple[int, ...]]:
    """What is told of the prompt, and the answer; nothing is told after the first token."""
    prompt, tokens = b"", ()
    async with engine.generate(asked) as chunks:
        async for chunk in chunks:
            assert not (chunk.prompt_logprobs and (tokens or chunk.tokens or chunk.finish))
            prompt += chunk.prompt_logprobs
            tokens += chunk.tokens
    return prompt, tokens


# ---- the scripted engine ------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 48, 49, 50, 130])
async def test_the_scripted_engine_tells_its_own_distribution(length: int) -> None:
    prompt = tuple((7 * i) % 250 + 1 for i in range(length))
    async with open_scripted_engine(LONG) as engine:
        found, tokens = await told(engine, request(prompt))
        rows = [engine.logits(prompt[: i + 1]) for i in range(length - 1)]
        plain, same = await told(
            engine, request(prompt, sampler=replace(SAMPLER, prompt_logprobs=None))
        )
        resumed, _ = await told(engine, request(prompt, start=1))
    expected = prompt_pairs(np.stack(rows), prompt[1:], SAMPLER) if rows else b""
    assert found == expected
    assert (plain, resumed) == (b"", b"")
    assert tokens == same, "asking changes no draw"


async def test_an_engine_in_front_of_another_server_refuses() -> None:
    async with served() as (engine, _):
        assert not engine.info.tells_prompts
        with pytest.raises(AssayError, match=r"sampler_refused.*no logprobs of a prompt"):
            async with engine.generate(request((1, 2, 3))):
                raise AssertionError("it began")


# ---- llama.cpp, with the real model -------------------------------------------------------------

MODEL = Path(os.environ.get("ASSAY_TEST_MODEL") or TEST_MODEL_PATH)
PROMPT = tuple(500 + (37 * i) % 40_000 for i in range(110))
_FORWARD = """
import json, sys
from pathlib import Path
import numpy as np
from assay_node.engine import llama
from assay_node.engine.profiles import FLASH
from assay_protocol.adjustments import logprob_pairs
prompt = json.loads(sys.argv[2])
model = llama.Model(Path(sys.argv[1]), FLASH)
context = llama.Context(model, sequences=1, context=256, batch=1, threads=1, profile=FLASH)
told = b""
for at, token in enumerate(prompt[:-1]):
    context.batch.clear()
    context.batch.add([token], at, 0, wanted=1)
    told += logprob_pairs(context.decode()[0], prompt[at + 1], 2)
print(told.hex())
"""


@pytest.fixture(scope="module")
def forward() -> bytes:
    """Of PROMPT, by a plain forward pass of one token after another, in a process of its own."""
    command = [sys.executable, "-c", _FORWARD, str(MODEL), json.dumps(PROMPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return bytes.fromhex(done.stdout)


@pytest.fixture
async def engine() -> AsyncIterator[LlamaEngine]:
    with trio.fail_after(120):
        async with open_llama_engine(MODEL, bytes(32), slots=2, context=256, threads=1) as opened:
            yield opened


@pytest.mark.model
@pytest.mark.slow
async def test_they_are_those_of_a_plain_forward_pass_bit_for_bit(
    engine: LlamaEngine, forward: bytes
) -> None:
    """Alone, after another job left the prompt in a slot, and amid jobs that take the slot away."""
    plain = request(PROMPT, sampler=replace(SAMPLER, prompt_logprobs=None))
    _, tokens = await told(engine, plain)
    assert await told(engine, request(PROMPT)) == (forward, tokens)
    found: dict[int, tuple[bytes, tuple[int, ...]]] = {}

    async def ask(number: int, asked: Generate) -> None:
        found[number] = await told(engine, asked)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(ask, number, request(PROMPT, tenant=bytes([number])))
        await trio.sleep(0.05)
        for number in (2, 3):
            nursery.start_soon(ask, number, replace(plain, priority=PRIORITY_HIGH, tenant=b"h"))
    assert found == {0: (forward, tokens), 1: (forward, tokens), 2: (b"", tokens), 3: (b"", tokens)}


@pytest.mark.model
@pytest.mark.slow
async def test_a_replay_of_the_prompt_as_an_answer_gives_the_same_logprobs(
    engine: LlamaEngine, forward: bytes
) -> None:
    """Another context, of other batches: what an auditor would compute."""
    asked = Replay(PROMPT[:1], PROMPT[1:], 0, SAMPLER, bytes(32), normalized=True)
    own = np.frombuffer((await engine.replay(asked)).logits, "<f4")
    entries = read_told(forward, SAMPLER, PROMPT)
    ours = np.array([entry.logprob for entry in entries])
    assert np.abs(own - ours).max() <= ROUNDING
    assert all(entry.top[0][1] >= max(entry.logprob, entry.top[1][1]) for entry in entries)
    assert len(forward) == 3 * LOGPROB_PAIR_BYTES * (len(PROMPT) - 1)
