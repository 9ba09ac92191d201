"""Bonded nodes' own followers, real processes over HTTP, make a block of the chain final."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from assay_contracts.follow.block_votes import BlockVotes
from assay_contracts.local.chain import LocalChain
from assay_contracts.rpc.server import rpc_app, serve_rpc
from assay_node.following import ChainFollower, follow_command
from assay_protocol.errors import AssayError
from assay_protocol.messages import Done, VoteBlock
from contracts.bonded_chain import NODES, PRODUCER, BondedChain
from end_to_end.scripted_network import scripted_network

VOTERS = 3
pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


async def test_three_followers_make_the_head_final(tmp_path: Path) -> None:
    bonded = BondedChain(tmp_path / "chain.db")
    bonded.deploy()
    votes = BlockVotes(bonded.chain)
    for node in range(VOTERS):
        bonded.bond(NODES[node], 100)
    head = bonded.idle(5)
    assert votes.finalized() < head
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_rpc, rpc_app(bonded.chain), "127.0.0.1", 0)
        for node in range(VOTERS):
            nursery.start_soon(_follower(tmp_path, votes, node, url).run)
        with trio.fail_after(60):
            while await trio.to_thread.run_sync(votes.finalized) < head:
                await trio.sleep(0.1)
            followed = await trio.to_thread.run_sync(_followed, url, tmp_path / "once.db")
        nursery.cancel_scope.cancel()
    assert followed[-1] == {"event": "final", "block": head}
    bonded.chain.close()


async def test_a_node_follows_its_coordinators_chain_and_its_follower_ends_with_it(
    tmp_path: Path,
) -> None:
    async with scripted_network(tmp_path) as network:
        card = tmp_path / "scripted.card"
        await network.start_node("node-a", card, card, engine="scripted", follow=network.rpc)
        chain = tmp_path / "coordinator" / "chain.db"
        mine = tmp_path / "node-a" / "chain.db"
        with trio.fail_after(60):
            while await _head(mine) is None or await _head(mine) != await _head(chain):
                await trio.sleep(0.2)
        [follower] = _children(network.processes["node-a"].pid)
        await network.kill_and_reap("node-a")
        with trio.fail_after(60):
            while follower.is_running() and follower.status() != psutil.STATUS_ZOMBIE:
                await trio.sleep(0.1)


async def _head(path: Path) -> int | None:
    def read() -> int | None:
        try:
            with LocalChain.open(path, read_only=True) as chain:
                return chain.head_block().number
        except AssayError:
            return None

    return await trio.to_thread.run_sync(read)


def _children(pid: int) -> list[psutil.Process]:
    """The followers among a node's processes."""
    listed = psutil.Process(pid).children(recursive=True)
    return [child for child in listed if "follow" in child.cmdline()]


def _follower(folder: Path, votes: BlockVotes, node: int, url: str) -> ChainFollower:
    directory = folder / f"node{node}"
    directory.mkdir()
    key = NODES[node]

    async def ask(message: object) -> object:
        assert isinstance(message, VoteBlock)
        vote = partial(votes.vote, key.public_key, message.seal)
        await trio.to_thread.run_sync(vote)
        return Done()

    command = follow_command(url, directory, PRODUCER.public_key)
    return ChainFollower(command, directory, key, ask, votes.target)


def _followed(url: str, path: Path) -> list[dict[str, Any]]:
    """What `assay chain follow --once --json` says of the same chain."""
    command = [sys.executable, "-m", "assay", "chain", "follow", url, "--chain", str(path)]
    done = subprocess.run(
        [*command, "--once", "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
