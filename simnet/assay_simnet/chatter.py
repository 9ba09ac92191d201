"""A client process for scenarios: chats it reads from stdin, one JSON object a line, and their
course on stdout, one JSON object an event.

    in   {"messages": [...], "max_tokens": 48, "temperature": 0.8}
         {"together": [[...], [...]], ...}   several at once; their events come mixed
    out  {"event": "delta", "text": ..., "count": ..., "node": ...}
         {"event": "resumed", "from": ..., "to": ..., "at": ...}
         {"event": "done", "tokens": [...], "nodes": [...], "receipts": [...], "verified": ...}
         {"event": "failed", "code": ...}
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from assay import AsyncClient, Delta, Resumed, Verdict
from assay.answers import Completion, JobFailed
from assay.verify import verify_answer

LINE_BYTES_MAX = 1 << 20


async def serve(address: str, key: Path) -> None:
    """Chat until stdin ends."""
    async with AsyncClient.connect(address, key_path=key) as client:
        say({"event": "ready", "key": client.public_key.hex()})
        async for line in lines():
            asked = json.loads(line)
            async with trio.open_nursery() as nursery:
                for messages in asked.pop("together", None) or [asked.pop("messages")]:
                    nursery.start_soon(chat, client, messages, asked)


async def chat(client: AsyncClient, messages: Any, asked: dict[str, Any]) -> None:
    began, first, count = time.perf_counter(), None, 0
    try:
        async with client.stream_chat(messages, **asked) as stream:
            async for event in stream:
                if isinstance(event, Verdict):
                    say({"event": "verdict", "outcome": event.outcome})
                    continue
                if isinstance(event, Resumed):
                    moved = {"from": event.from_node.hex(), "to": event.to_node.hex()}
                    say({"event": "resumed", **moved, "at": event.at_token})
                    continue
                assert isinstance(event, Delta), "nothing is asked about the prompt"
                first = first or time.perf_counter() - began
                count += len(event.tokens)
                say(
                    {"event": "delta", "text": event.text, "count": count, "node": event.node.hex()}
                )
    except JobFailed as failure:
        say({"event": "failed", "code": failure.code, "detail": failure.message})
        return
    seconds = time.perf_counter() - began
    say({"event": "done", "seconds": seconds, "ttft": first or seconds, **summary(stream.result)})


def summary(result: Completion) -> dict[str, Any]:
    """What the scenario needs of an answer to check it."""
    return {
        "tokens": list(result.tokens),
        "finish": result.finish_reason,
        "nodes": [node.hex() for node in result.nodes],
        "receipts": [record.encode().hex() for record in result.receipts],
        "verified": bool(result.receipts) and verify_answer(result.receipts).ok,
    }


async def lines() -> AsyncIterator[bytes]:
    """Lines of stdin."""
    source, buffer = trio.lowlevel.FdStream(0), b""
    while chunk := await source.receive_some(65_536):
        buffer += chunk
        assert len(buffer) <= LINE_BYTES_MAX, "a scenario's chats are short"
        *whole, buffer = buffer.split(b"\n")
        for line in whole:
            yield line


def say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], Path(sys.argv[2]))
