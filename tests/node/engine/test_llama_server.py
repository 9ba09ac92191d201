"""The served engine before a real llama-server, replayed by our own llama.cpp engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio

from assay_node.engine import library
from assay_node.engine.interface import Generate, Replay
from assay_node.engine.openai import ServedEngine, ServerSettings, open_served_engine
from assay_node.engine.supervisor import open_llama_engine
from assay_node.models.card import build_card
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler
from free_ports import free_port

PLACE = library.installed("server")
pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(PLACE is None, reason="build it: scripts/build_engine.sh server"),
]
SECONDS_MAX = 120.0
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
GREEDY = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
BY_MASS = Sampler(temperature=0.8, top_k=0, top_p=0.8, min_p=0.1, logprobs=3)


def _model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[str, trio.Process]]:
    """llama-server with two slots and one thread; its URL once it is ready."""
    assert PLACE is not None
    library.check(PLACE)
    port = free_port()
    command = [str(PLACE / "llama-server"), "-m", str(_model()), "--host", "127.0.0.1"]
    command += ["--port", str(port), "-t", "1", "-tb", "1", "-np", "2", "-c", "1024", "--no-webui"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = await trio.lowlevel.open_process(command, **quiet)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _ready(url: str) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        while True:
            try:
                if (await client.get("/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await trio.sleep(0.1)


async def _write(
    engine: ServedEngine, request: Generate, out: dict[Generate, tuple[tuple[int, ...], bytes]]
) -> None:
    tokens: tuple[int, ...] = ()
    values = b""
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            tokens, values = tokens + chunk.tokens, values + chunk.logits
    out[request] = tokens, values


async def test_answers_of_llama_server_pass_the_replay_of_our_own_engine() -> None:
    path = _model()
    card = build_card(path, name="smol", price_in=1, price_out=1)
    # Half of an emoji: the server has no whole text to tell of what follows.
    half = next(token for token, piece in enumerate(card.pieces) if piece == b"\xf0\x9f")
    with trio.fail_after(SECONDS_MAX):
        async with _server() as (url, process):
            await _ready(url)
            settings = ServerSettings(url=url, slots=2, context=512)
            out: dict[Generate, tuple[tuple[int, ...], bytes]] = {}
            async with open_served_engine(card, settings) as engine:
                assert engine.info.class_id == "openai/llama-server/Q4_1/L"
                async with trio.open_nursery() as nursery:
                    for number, sampler in enumerate((SAMPLER, GREEDY, BY_MASS)):
                        prompt = tuple(500 + (37 * i + 911 * number) % 40_000 for i in range(20))
                        asked = Generate((*prompt, half), 0, 24, sampler, bytes([number]) * 32)
                        nursery.start_soon(_write, engine, asked, out)
                process.kill()
                await process.wait()
                with pytest.raises(AssayError) as caught:
                    await _write(engine, next(iter(out)), {})
                assert caught.value.code == "engine_failed"
        async with open_llama_engine(path, card.digest, slots=1, context=512, threads=1) as judge:
            mismatches = 0
            for asked, (tokens, values) in out.items():
                replayed = await judge.replay(
                    Replay(asked.prompt, tokens, 0, asked.sampler, asked.seed, normalized=True)
                )
                pairs = zip(tokens, replayed.drawn, strict=True)
                mismatches += sum(here != there for here, there in pairs)
                ours, theirs = np.frombuffer(values, "<f4"), np.frombuffer(replayed.logits, "<f4")
                assert np.median(np.abs(ours - theirs)) < 0.1
    assert len(out) == 3
    assert mismatches <= 8, "of 72: what two ways of computing differ in, not another model"
