"""The engine before another server: its draws are ours, and a broken server is a stable code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio

from assay_node.engine.interface import Engine, Generate, Replay
from assay_node.engine.openai import ServedEngine, ServerSettings, open_served_engine, read_key
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_protocol.cards import ModelCard, TokenType
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler
from card_cases import small_card
from node.engine.served_fake import FakeServer, open_fake_server

VOCAB = 256
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
GREEDY = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)


def card() -> ModelCard:
    pieces = tuple(bytes([value]) for value in range(VOCAB))
    kinds = bytes([TokenType.NORMAL]) * VOCAB
    return small_card(
        n_vocab=VOCAB,
        pieces=pieces,
        token_types=kinds,
        eog=(0,),
        merges=(),
        texts=(),
        bos=None,
        eos=None,
        add_bos=False,
        context=2_048,
    )


@asynccontextmanager
async def served(
    mode: str = "llama", key: str = ""
) -> AsyncIterator[tuple[ServedEngine, FakeServer]]:
    with trio.fail_after(20):
        async with (
            open_scripted_engine(Script(n_vocab=VOCAB)) as script,
            open_fake_server(script) as fake,
        ):
            fake.mode = mode
            settings = ServerSettings(url=fake.url, key=key, slots=2)
            async with open_served_engine(card(), settings) as engine:
                yield engine, fake


async def write(engine: Engine, request: Generate) -> tuple[tuple[int, ...], bytes, str | None]:
    tokens: tuple[int, ...] = ()
    values, finish = b"", None
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            tokens, values, finish = tokens + chunk.tokens, values + chunk.logits, chunk.finish
    return tokens, values, finish


def request(sampler: Sampler = SAMPLER, max_tokens: int = 30, start: int = 0) -> Generate:
    return Generate((5, 6, 7), start, max_tokens, sampler, bytes(range(32)))


@pytest.mark.parametrize("mode", ["llama", "vllm"])
@pytest.mark.parametrize(
    "sampler", [SAMPLER, GREEDY, Sampler(temperature=1.0, top_k=0, top_p=0.9, min_p=0.0)]
)
async def test_its_answers_are_the_ones_a_seeded_engine_draws_and_replays(
    mode: str, sampler: Sampler
) -> None:
    async with served(mode) as (engine, fake):
        tokens, values, finish = await write(engine, request(sampler))
        assert (tokens, finish) == (await write(fake.engine, request(sampler)))[::2]
        asked = request(sampler)
        replay = Replay(asked.prompt, tokens, 0, sampler, asked.seed, normalized=True)
        replayed = await fake.engine.replay(replay)
        assert replayed.drawn == tokens
        ours, theirs = np.frombuffer(values, "<f4"), np.frombuffer(replayed.logits, "<f4")
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert engine.info.class_id.endswith("/L")


async def test_an_answer_is_resumed_where_another_node_left_it() -> None:
    async with served() as (engine, _):
        whole, _, _ = await write(engine, request())
        rest = Generate((5, 6, 7, *whole[:4]), 4, 26, SAMPLER, bytes(range(32)))
        assert (await write(engine, rest))[0] == whole[4:]


async def test_no_job_reuses_what_another_left_in_its_slot() -> None:
    async with served() as (engine, fake):
        fake.asked.clear()
        tokens, _, _ = await write(engine, request())
        assert [body["cache_prompt"] for body in fake.asked] == [False] + [True] * (len(tokens) - 1)
    async with served("vllm") as (engine, fake):
        fake.asked.clear()
        await write(engine, request(max_tokens=2))
        await write(engine, request(max_tokens=2))
        salts = [body["cache_salt"] for body in fake.asked]
        assert len(set(salts)) == 2


@pytest.mark.parametrize(
    "mode",
    [
        *("cut", "garbage", "huge line", "huge", "500", "401"),
        *("text only", "deep", "wrong ids", "raw logits", "too few"),
    ],
)
async def test_a_broken_server_fails_the_job_and_rests_before_the_next(mode: str) -> None:
    async with served() as (engine, fake):
        fake.mode = mode
        with pytest.raises(AssayError) as caught:
            await write(engine, request())
        assert caught.value.code == "engine_failed"
        assert engine.load.restarts == 1
        assert engine.load.free_slots == 2
        with pytest.raises(AssayError) as caught:
            await write(engine, request())
        assert caught.value.code == "busy"
        assert 0 < (caught.value.retry_after_ms or 0) <= 1_001


@pytest.mark.parametrize("mode", ["cut", "garbage", "text only", "wrong ids", "500", "401"])
async def test_a_server_that_cannot_serve_prevents_the_start_and_says_why(mode: str) -> None:
    with trio.fail_after(20):
        async with open_scripted_engine() as script, open_fake_server(script) as fake:
            fake.mode = mode
            with pytest.raises(AssayError, match=r"llama-server: .*; completions: ") as caught:
                async with open_served_engine(card(), ServerSettings(url=fake.url)):
                    pytest.fail("it started")
            assert caught.value.code == "engine_failed"


@pytest.mark.parametrize(("slots", "context", "what"), [(3, 2_048, "slots"), (4, 2_047, "context")])
async def test_a_server_smaller_than_the_settings_say_prevents_the_start(
    slots: int, context: int, what: str
) -> None:
    with trio.fail_after(20):
        async with open_scripted_engine() as script, open_fake_server(script) as fake:
            fake.props = {"total_slots": 4, "default_generation_settings": {"n_ctx": 2_048}}
            async with open_served_engine(card(), ServerSettings(url=fake.url)) as engine:
                assert engine.info.slots == 4
            fake.props = {"total_slots": slots, "default_generation_settings": {"n_ctx": context}}
            with pytest.raises(AssayError, match=what) as caught:
                async with open_served_engine(card(), ServerSettings(url=fake.url)):
                    pytest.fail("it started")
            assert caught.value.code == "config_invalid"


@pytest.mark.parametrize("mode", ["429", "503"])
async def test_a_busy_server_is_busy_for_as_long_as_it_says(mode: str) -> None:
    async with served() as (engine, fake):
        fake.mode = mode
        with pytest.raises(AssayError) as caught:
            await write(engine, request())
        assert (caught.value.code, caught.value.retry_after_ms) == ("busy", 7_000)
        fake.mode = "llama"
        assert (await write(engine, request()))[0], "busy is no fault to rest after"


async def test_a_server_that_hangs_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay_node.engine.upstream.CALL_SECONDS_MAX", 0.5)
    async with served() as (engine, fake):
        fake.mode = "hang"
        with trio.fail_after(20):
            with pytest.raises(AssayError) as caught:
                await write(engine, request())
            assert caught.value.code == "engine_failed"
            await fake.closed.wait()


async def test_a_cancelled_job_closes_its_request() -> None:
    async with served() as (engine, fake):
        fake.mode = "hang"
        before = len(fake.asked)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, engine, request())
                while len(fake.asked) == before:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
            await fake.closed.wait()
        assert engine.load.running == 0
        fake.mode = "llama"
        assert (await write(engine, request()))[0], "what the client did is no fault of the server"


async def test_it_audits_nothing_and_refuses_what_it_cannot_draw() -> None:
    async with served() as (engine, _):
        with pytest.raises(AssayError) as caught:
            await engine.replay(Replay((1,), (2,), 0, SAMPLER, bytes(32)))
        assert caught.value.code == "class_refused"
        unfiltered = Sampler(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
        with pytest.raises(AssayError) as caught:
            await write(engine, request(unfiltered))
        assert caught.value.code == "sampler_refused"


async def test_the_key_is_sent_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sesame\n")
    file.chmod(0o600)
    key = read_key(str(file))
    assert "sesame" not in repr(ServerSettings(url="http://x", key=key))
    async with served(key=key) as (_, fake):
        assert set(fake.authorizations) == {"bearer sesame"}


def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sesame")
    file.chmod(0o644)
    with pytest.raises(AssayError) as caught:
        read_key(str(file))
    assert caught.value.code == "key_permissions"
    for content in (b"", b"two words", b"\xff", b"k" * 5_000):
        file.chmod(0o600)
        file.write_bytes(content)
        with pytest.raises(AssayError) as caught:
            read_key(str(file))
        assert caught.value.code == "config_invalid"
    with pytest.raises(AssayError):
        read_key(str(tmp_path / "none"))
    assert read_key("") == ""
