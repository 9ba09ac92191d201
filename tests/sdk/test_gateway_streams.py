"""Streams: cancelled when the client leaves, kept alive when silent, told when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from asgi_caller import Answer
from assay_protocol.errors import AssayError
from assay_protocol.messages import AbandonJob, SubmitReceipt
from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, gateway

ASK = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2_000}
CHAT = "/v1/chat/completions"


async def settled(world: World) -> list[type]:
    """What was handed in, once nothing is under way any more."""
    while world.service.admission.running:
        await trio.sleep(0.1)
    await trio.sleep(20)
    return [type(body) for body in world.network.coordinator.handed_in]


async def test_leaving_a_stream_cancels_its_job(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, FakeNetwork()) as world:

        def leave(answer: Answer) -> bool:
            return len(answer.pieces) > 3

        answer = await world.http.post(CHAT, json={**ASK, "stream": True}, leave=leave)
        assert not answer.whole
        assert await settled(world) == [SubmitReceipt]
        (kept,) = world.service._receipts.values()
        assert 0 < len(kept.record.output_tokens) < 1_000


async def test_leaving_a_plain_request_cancels_its_job(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path, FakeNetwork()) as world:
        answer = await world.http.post(CHAT, json=ASK, patience=0.3)
        assert answer.status_code == 0
        assert await settled(world) == [SubmitReceipt]
        (kept,) = world.service._receipts.values()
        assert 0 < len(kept.record.output_tokens) < 1_000


async def test_a_silent_stream_is_kept_alive(autojump_clock: object, tmp_path: Path) -> None:
    fake = FakeNetwork(end_at=30, pause=4.0)
    async with gateway(tmp_path, fake, keep_alive=3) as world:
        answer = await world.post(CHAT, {**ASK, "stream": True})
        assert answer.pieces.count(b": keep-alive\n\n") > 3
        assert b"data: [DONE]\n\n" in answer.pieces[-1]
        assert answer.whole


class Failing(FakeNetwork):
    """Nodes that all lose the stream, the second one for good."""

    def answer(self, peer: bytes, message: object) -> object:
        if len(self.coordinator.asked) >= 1 and type(message).__name__ == "SubmitJob":
            raise AssayError("insufficient_credit")
        return super().answer(peer, message)


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        (CHAT, b'data: {"error":'),
        ("/v1/messages", b"event: error\n"),
        ("/v1/responses", b"event: response.failed\n"),
    ],
)
async def test_a_failure_after_the_first_token_is_told_in_the_stream(
    autojump_clock: object, tmp_path: Path, path: str, mark: bytes
) -> None:
    asked = {**ASK, "stream": True}
    if path == "/v1/responses":
        asked = {"model": "toy", "input": "Hello", "stream": True}
    async with gateway(tmp_path, Failing(lose_after={0: 20})) as world:
        answer = await world.post(path, asked)
        assert answer.status_code == 200
        assert mark in answer.pieces[-1].replace(b'{"error": ', b'{"error":')
        assert b"insufficient_credit" in answer.pieces[-1]
        assert b"[DONE]" not in answer.text.encode()
        assert answer.whole
        assert await settled(world) == [AbandonJob]


async def test_an_answer_that_takes_too_long(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, FakeNetwork(pause=1.0), answer_seconds=5) as world:
        answer = await world.post(CHAT, ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert answer.headers["x-should-retry"] == "false"  # what came is paid
        assert await settled(world) == [SubmitReceipt]
