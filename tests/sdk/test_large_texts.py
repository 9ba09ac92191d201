"""A large prompt is read beside the loop: whoever streams meanwhile goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import trio

from assay.large_texts import LARGE_CHARACTERS, READ_AT_ONCE_MAX, beside
from assay.tokenizer import Tokenizer
from sdk.gateway_world import chat_card, gateway


async def test_small_texts_are_read_here_and_large_ones_elsewhere() -> None:
    here = threading.get_ident()
    assert await beside(threading.get_ident, "x" * 99, None, [{"a": "b"}]) == here
    for large in ("x" * LARGE_CHARACTERS, [{"a": ["x" * 99]}] * 999, {"x" * LARGE_CHARACTERS: 1}):
        assert await beside(threading.get_ident, "x", large) != here


async def test_no_more_are_read_at_once_than_may() -> None:
    running, most, turn = 0, 0, threading.Lock()
    done = threading.Event()

    def read() -> None:
        nonlocal running, most
        with turn:
            running += 1
            most = max(most, running)
            if most == READ_AT_ONCE_MAX:
                done.set()
        done.wait(5)
        with turn:
            running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(3 * READ_AT_ONCE_MAX):
            nursery.start_soon(beside, read, "x" * LARGE_CHARACTERS)
    assert most == READ_AT_ONCE_MAX


def test_a_large_text_is_the_tokens_that_its_parts_are() -> None:
    tokenizer = Tokenizer.from_card(chat_card())
    part = "a1 é\n" * 999  # small enough to be read by itself
    times = 2 * LARGE_CHARACTERS // len(part)
    assert tokenizer.encode(part * times) == tokenizer.encode(part) * times


async def test_others_are_answered_while_a_large_prompt_is_read(tmp_path: Path) -> None:
    """Half a million letters take half a second; a wait of 5 ms never takes that long."""
    chat = {"model": "toy", "messages": [{"role": "user", "content": "a1 " * (1 << 18)}]}
    async with gateway(tmp_path) as world:
        waits: list[float] = []
        async with trio.open_nursery() as nursery:

            async def tick() -> None:
                while True:
                    began = trio.current_time()
                    await trio.sleep(0.005)
                    waits.append(trio.current_time() - began)

            nursery.start_soon(tick)
            answer = await world.post("/v1/chat/completions", chat)
            nursery.cancel_scope.cancel()
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert sum(waits) > 0.1
    assert len(waits) > 5, waits
