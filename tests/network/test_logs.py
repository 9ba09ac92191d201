"""What a log says of a fault of ours: its kind and its place, and nothing that was in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import trio

from assay_network.host import open_host
from assay_network.logs import FAULTS_MAX, FRAMES_MAX, configure_logs, get_logger
from sdk.client_world import node_key

SECRET = "my diary says"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger("assay")
    before = root.handlers, root.level, root.propagate
    configure_logs(stream := io.StringIO())
    yield stream
    root.handlers, root.level, root.propagate = before


def look_up(text: str) -> int:
    return {"a": 1}[text]


def failed(text: str) -> Exception:
    try:
        look_up(text)
    except KeyError as error:
        return error
    raise AssertionError("it is not there")


def told(lines: io.StringIO) -> dict[str, object]:
    line = lines.getvalue().splitlines()[-1]
    assert SECRET not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_a_fault_is_told_by_kind_and_place(lines: io.StringIO) -> None:
    try:
        raise ValueError(SECRET) from failed(SECRET)
    except ValueError:
        get_logger("test").exception("went_wrong", job=7)
    event = told(lines)
    assert (event["event"], event["job"], event["level"]) == ("went_wrong", 7, "error")
    outer, inner = event["exception"]  # type: ignore[misc]
    assert outer.startswith("test_logs.py:")
    assert outer.endswith("> ValueError")
    assert inner.endswith(" look_up > KeyError")


def test_groups_and_long_ones_are_bounded(lines: io.StringIO) -> None:
    def deep(left: int) -> None:
        if not left:
            raise ExceptionGroup(SECRET, [failed(SECRET) for _ in range(2 * FAULTS_MAX)])
        deep(left - 1)

    try:
        deep(3 * FRAMES_MAX)
    except ExceptionGroup:
        get_logger("test").exception("went_wrong")
    faults = told(lines)["exception"]
    assert isinstance(faults, list)
    assert len(faults) == FAULTS_MAX
    assert faults[0].count(" > ") == FRAMES_MAX
    assert faults[0].endswith("ExceptionGroup")


async def test_a_handler_that_fails_over_a_prompt_tells_nobody_what_it_said(
    lines: io.StringIO,
) -> None:
    server, client = node_key(0), node_key(1)

    async def handler(peer: bytes, frames: object) -> None:
        look_up(SECRET)

    loopback = ["/ip4/127.0.0.1/tcp/0"]
    async with open_host(server.seed, loopback) as serving, open_host(client.seed) as asking:
        serving.serve("/test/1", handler)
        with pytest.raises(Exception):  # that it ends, however, is enough
            await asking.call(server.public_key, "/test/1", b"x", 2, serving.addresses)
        await trio.sleep(0.01)
    event = told(lines)
    assert event["event"] == "stream_handler_failed"
    assert "look_up > KeyError" in str(event["exception"])
