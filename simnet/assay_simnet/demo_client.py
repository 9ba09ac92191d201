"""The client process of the demo, as the demo sees it: chats that are shown as they stream."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import trio

from assay_simnet.drivers.real import Lines, RealNetwork


class Failed(Exception):
    """A step did not show what it promised."""


class Chatter:
    """Asks through a process of its own."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._stdin, self._lines = process.stdin, Lines(process.stdout)

    @classmethod
    async def start(cls, network: RealNetwork, name: str) -> Chatter:
        command = [sys.executable, "-m", "assay_simnet.chatter", network.address]
        key = str(network.folder / f"{name}.key")
        process = await network.spawn(name, [*command, key], stdin=subprocess.PIPE)
        client = cls(process)
        with trio.fail_after(60):
            await client._lines.next()
        return client

    async def chat(self, prompt: str, max_tokens: int, on_delta: Any = None) -> dict[str, Any]:
        """One chat, streamed to the terminal; its final event, with any `resumed` inside."""
        asked = {"messages": _user(prompt), "max_tokens": max_tokens, "temperature": 0.8}
        sys.stdout.write(f"\n> {prompt}\n")
        await self._stdin.send_all(json.dumps(asked).encode() + b"\n")
        resumed: dict[str, Any] | None = None
        with trio.fail_after(120):
            while True:
                event = await self._lines.next()
                if event["event"] == "delta":
                    sys.stdout.write(event["text"])
                    sys.stdout.flush()
                    if on_delta is not None:
                        on_delta(event)
                elif event["event"] == "resumed":
                    resumed = event
                    sys.stdout.write(f" [resumed on {event['to'][:8]}] ")
                elif event["event"] == "failed":
                    raise Failed(f"a chat failed: {event}")
                else:
                    return {**event, "resumed": resumed}

    async def together(self, prompts: Sequence[str], max_tokens: int) -> list[dict[str, Any]]:
        """All of them at once, not shown; their final events in the order they ended."""
        asked = {"together": [_user(one) for one in prompts]}
        options = {"max_tokens": max_tokens, "temperature": 0.8}
        await self._stdin.send_all(json.dumps(asked | options).encode() + b"\n")
        done: list[dict[str, Any]] = []
        with trio.fail_after(120):
            while len(done) < len(prompts):
                event = await self._lines.next()
                if event["event"] == "failed":
                    raise Failed(f"a chat failed: {event}")
                if event["event"] == "done":
                    done.append(event)
        return done

    async def close(self) -> None:
        """No more chats: the process ends."""
        await self._stdin.aclose()


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
