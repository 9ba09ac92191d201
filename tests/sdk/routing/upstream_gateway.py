"""A gateway with one upstream, `afar`, for the name closed-1, and what is asked of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from asgi_caller import Answer
from assay.routing.core.plans import Plan, Routes, Terms
from sdk.gateway_world import World, gateway
from sdk.routing.upstream_server import Script

CHAT: Final = "/v1/chat/completions"
ASK: Final[dict[str, Any]] = {
    "model": "closed-1",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 8,
}
PLAN: Final = Plan(
    network=("gone",), upstream="afar", upstream_model="m-1", upstream_when=("unserved",)
)


def routes(url: str, plan: Plan = PLAN, **terms: Any) -> Routes:
    """Prices of 1 micro-unit a token read, and 3 a token drawn."""
    known: dict[str, Any] = {
        "url": url, "key_env": "UPSTREAM_KEY", "keys": ("*",), "price_in": 1_000,
        "price_out": 3_000, "retries": 0, "first_token_ms": 2_000, "stall_ms": 200,
    }  # fmt: skip
    return Routes(plans={"closed-1": plan}, upstreams={"afar": Terms(**(known | terms))})


async def asked(
    folder: Path, script: Script, *, stream: bool = False, only: bool = False, **more: Any
) -> tuple[Answer, World]:
    """One request to a gateway with this upstream; `more` are terms of it."""
    async with gateway(folder, routes=routes(script.url, **more)) as world:
        headers = {"x-assay-route": "network-only"} if only else {}
        answer = await world.post(CHAT, {**ASK, "stream": stream}, headers=headers)
    return answer, world


def chunks(answer: Answer) -> list[dict[str, Any]]:
    """The data of a stream's events; [DONE] is left out."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
