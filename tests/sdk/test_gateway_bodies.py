"""Bodies that are late, large and many: they hold no place, and bytes within a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from assay.gateway import bodies
from sdk.gateway_world import World, gateway

ASK: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "x"}]}
ASK["max_tokens"] = 2
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


async def half(size: int) -> AsyncIterator[bytes]:
    """A body that begins and does not go on."""
    yield bytes(size)
    await trio.sleep_forever()


async def refused(world: World, **more: Any) -> tuple[int, str]:
    answer = await world.http.post(CHAT, headers={**JSON, **more.pop("headers", {})}, **more)
    return answer.status_code, answer.json()["error"]["code"]


async def test_half_sent_bodies_take_no_place(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, requests=1, body_seconds=7) as world:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: refused(world, content=half(100)))
            await trio.sleep(1)
            assert (await world.post(CHAT, ASK)).status_code == 200
            assert world.service.admission.running == 0
        assert await refused(world, content=half(100)) == (408, "timeout")


async def test_all_bodies_together_have_a_bound(
    autojump_clock: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODIES_BYTES_MAX", 250_000)
    async with gateway(tmp_path, body_bytes=200_000, body_seconds=7) as world:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(lambda: refused(world, content=half(120_000)))
            await trio.sleep(1)
            large = {**ASK, "messages": [{"role": "user", "content": "x" * 50_000}]}
            assert await refused(world, json=large) == (503, "busy")
            assert (await world.post(CHAT, ASK)).status_code == 200  # small ones need no share
        # What they held is free again: this one is only too long for the model.
        assert await refused(world, json=large) == (400, "context_length_exceeded")


@pytest.mark.parametrize("more", [{}, {"expect": "100-continue"}])
async def test_a_body_said_to_be_too_large_is_not_read(
    autojump_clock: object, tmp_path: Path, more: dict[str, str]
) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"x"

    async with gateway(tmp_path) as world:
        headers = {**JSON, "content-length": "104857600", **more}
        answer = await world.http.post(CHAT, content=body(), headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert answer.headers["connection"] == "close"
        assert not read
