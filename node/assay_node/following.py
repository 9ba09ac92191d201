"""`node start --follow URL`: executes the coordinator's chain in a process of its own, and votes.

The follower is `assay chain follow`, which trusts nothing but the coordinator's key; what it prints
is what it executed. If it finds a difference the node says so, votes no more, and goes on serving.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from assay_network.durable import write_durably
from assay_network.logs import get_logger
from assay_node.core.voter import Voted, Voter
from assay_protocol.errors import AssayError
from assay_protocol.messages import VoteBlock
from assay_protocol.seals import seal_block
from assay_protocol.signing import Signer

CHAIN_FILE: Final = "chain.db"
VOTED_FILE: Final = "voted.json"
LINE_BYTES_MAX: Final = 65_536
VOTE_SECONDS: Final = 0.5
RESTART_SECONDS: Final = (1.0, 60.0)
# Only what may change by asking again; any other refusal is final for that block.
_AGAIN: Final = frozenset({"peer_gone", "timeout", "busy", "chain_unavailable"})

log = get_logger("node")

Ask = Callable[[object], Awaitable[object]]


def follow_command(url: str, directory: Path, producer: bytes) -> list[str]:
    """The follower's command line."""
    chain = str(directory / CHAIN_FILE)
    program = [sys.executable, "-m", "assay", "chain", "follow", url, "--chain", chain]
    return [*program, "--producer", producer.hex(), "--json", "--blocks", "--child"]


class ChainFollower:
    """Runs the follower and votes. `ask` sends a message to the coordinator and gives its answer;
    `target` says which block it wants votes on."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        signer: Signer,
        ask: Ask,
        target: Callable[[], int | None],
    ) -> None:
        self._command, self._path = list(command), directory / VOTED_FILE
        self._signer, self._ask, self._target = signer, ask, target
        self._chain_id: int | None = None
        self._voter = Voter(read_voted(self._path))

    @property
    def head(self) -> int:
        """The newest block that was executed here."""
        return self._voter.head

    async def run(self) -> None:
        """Until cancelled, or until a block differs: then it says so and returns."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._vote_loop)
            await self._follow_loop()
            nursery.cancel_scope.cancel()

    async def _follow_loop(self) -> None:
        wait, longest = RESTART_SECONDS
        while not await self._follow_once():
            log.warning("follower_stopped", wait_seconds=wait)
            await trio.sleep(wait)
            wait = min(2 * wait, longest)

    async def _follow_once(self) -> bool:
        """One run of the process; whether it found a difference."""
        differs = False
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process, self._command, stdout=subprocess.PIPE, stdin=b"", check=False
            )
            process = await nursery.start(run)
            async with process.stdout:
                async for event in _events(process.stdout):
                    differs |= self._heard(event)
        return differs

    def _heard(self, event: dict[str, Any]) -> bool:
        match event:
            case {"event": "started", "chain_id": int(chain_id)}:
                self._chain_id = chain_id
            case {"event": "block", "block": int(number), "hash": str(digest)}:
                self._voter.executed(number, bytes.fromhex(digest))
            case {"event": "caught_up", "block": int(number)}:
                log.info("chain_followed", block=number)
            case {"event": "difference", "block": int(number)}:
                evidence = json.dumps(event.get("evidence"))
                log.error("chain_differs", block=number, why=event.get("why"), evidence=evidence)
                return True
        return False

    async def _vote_loop(self) -> None:
        while True:
            await trio.sleep(VOTE_SECONDS)
            due = self._voter.due(self._target())
            if due is not None and self._chain_id is not None:
                await self._vote(self._chain_id, due)

    async def _vote(self, chain_id: int, due: Voted) -> None:
        try:
            await trio.to_thread.run_sync(write_voted, self._path, due)
        except OSError as error:
            log.error("vote_not_written", reason=error.strerror)
            return
        self._voter.sealed(due)
        seal = seal_block(self._signer, chain_id, due.number, due.hash)
        try:
            await self._ask(VoteBlock(seal=seal))
        except AssayError as error:
            log.warning("vote_refused", block=due.number, code=error.code)
            if error.code in _AGAIN:
                return
        self._voter.answered(due.number)


async def _events(stdout: trio.abc.ReceiveStream) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects a process prints, line by line; what is none is left out."""
    buffer = bytearray()
    async for chunk in stdout:
        buffer += chunk
        *lines, rest = buffer.split(b"\n")
        buffer = bytearray(rest[:LINE_BYTES_MAX])
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def read_voted(path: Path) -> Voted:
    """The highest vote on disk. Raises AssayError("storage_failed") if the file cannot be read:
    without it this key must not vote."""
    try:
        found = json.loads(path.read_bytes())
        return Voted(int(found["block"]), bytes.fromhex(found["hash"]))
    except FileNotFoundError:
        return Voted()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssayError("storage_failed", f"{path} cannot be read: {error}") from error


def write_voted(path: Path, voted: Voted) -> None:
    """Durable when it returns."""
    write_durably(path, json.dumps({"block": voted.number, "hash": voted.hash.hex()}).encode())
