"""The follower runs in a process of its own; what it prints is voted on, once and for ever."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_node.core.voter import Voted
from assay_node.following import ChainFollower, follow_command, read_voted, write_voted
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.messages import Done, VoteBlock
from assay_protocol.seals import check_block_seal
from assay_protocol.signing import Identity

NODE = Identity(b"\x01" * 32)
HASH = b"\x07" * 32
STARTED = {"event": "started", "chain_id": 9, "block": 0}


def printing(*events: dict[str, Any], then: str = "time.sleep(60)") -> list[str]:
    lines = "".join(json.dumps(event) + "\n" for event in events)
    program = f"import sys, time; sys.stdout.write({lines!r}); sys.stdout.flush(); {then}"
    return [sys.executable, "-c", program]


def block(number: int, digest: bytes = HASH) -> dict[str, Any]:
    return {"event": "block", "block": number, "hash": digest.hex()}


class Asked:
    """The coordinator, as far as votes go."""

    def __init__(self, refusals: list[Exception] | None = None) -> None:
        self.votes: list[bytes] = []
        self.refusals = refusals or []
        self.stirred = trio.Event()

    async def __call__(self, message: object) -> object:
        assert isinstance(message, VoteBlock)
        self.votes.append(message.seal)
        self.stirred.set()
        self.stirred = trio.Event()
        if self.refusals:
            raise self.refusals.pop(0)
        return Done()

    async def until(self, count: int) -> None:
        while len(self.votes) < count:
            await self.stirred.wait()


async def following(
    command: list[str], directory: Path, asked: Asked, target: Callable[[], int | None], votes: int
) -> None:
    follower = ChainFollower(command, directory, NODE, asked, target)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run)
            await asked.until(votes)
            nursery.cancel_scope.cancel()


async def test_it_votes_for_what_the_follower_executed(tmp_path: Path) -> None:
    asked = Asked()
    command = printing(STARTED, block(4), block(5), {"event": "caught_up", "block": 5})
    await following(command, tmp_path, asked, lambda: 5, 1)
    check_block_seal(asked.votes[0], NODE.public_key, 9, 5, HASH)
    assert read_voted(tmp_path / "voted.json") == Voted(5, HASH)


async def test_a_vote_that_was_lost_is_sent_again_the_very_same(tmp_path: Path) -> None:
    asked = Asked([PeerGone(), AssayError("busy")])
    await following(printing(STARTED, block(5)), tmp_path, asked, lambda: 5, 3)
    assert len(set(asked.votes)) == 1


async def test_a_replaced_chain_gets_no_second_vote(tmp_path: Path) -> None:
    """The file on disk remembers: another hash at that height is not sealed, the next height is."""
    write_voted(tmp_path / "voted.json", Voted(5, b"\x01" * 32))
    asked, targets = Asked(), iter([5, 5, 6])
    command = printing(STARTED, block(5), block(6))
    last = [5]

    def target() -> int:
        last[0] = next(targets, last[0])
        return last[0]

    await following(command, tmp_path, asked, target, 1)
    check_block_seal(asked.votes[0], NODE.public_key, 9, 6, HASH)


async def test_a_difference_ends_the_votes_and_not_the_node(tmp_path: Path) -> None:
    event = {"event": "difference", "block": 6, "why": "state root", "evidence": None}
    command = printing(STARTED, block(5), event, then="sys.exit(1)")
    follower = ChainFollower(command, tmp_path, NODE, Asked(), lambda: None)
    with trio.fail_after(20):
        await follower.run()
    assert follower.head == 5


async def test_a_follower_that_dies_is_started_again(tmp_path: Path, autojump_clock: Any) -> None:
    """Virtual time: the pause before the next start is not waited for."""
    mark = tmp_path / "began"
    program = (
        f"import pathlib, sys; p = pathlib.Path({str(mark)!r});"
        "n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1));"
        "print('not json'); print('[1]');"
        'print(\'{"event": "difference", "block": 1}\') if n == 2 else None; sys.exit(1)'
    )
    follower = ChainFollower([sys.executable, "-c", program], tmp_path, NODE, Asked(), lambda: None)
    await follower.run()
    assert mark.read_text() == "xxx"


def test_a_file_of_votes_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "voted.json"
    assert read_voted(path) == Voted()
    for text in ("", "{}", "[]", '{"block": "x", "hash": ""}', '{"block": 1, "hash": "zz"}'):
        path.write_text(text)
        with pytest.raises(AssayError, match="storage_failed"):
            read_voted(path)


def test_the_command_names_the_coordinators_key(tmp_path: Path) -> None:
    command = follow_command("http://x", tmp_path, b"\x05" * 32)
    assert command[1:6] == ["-m", "assay", "chain", "follow", "http://x"]
    assert command[command.index("--producer") + 1] == "05" * 32
