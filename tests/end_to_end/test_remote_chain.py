"""A coordinator on a chain that others mine, which is down when it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit import ledger_abi
from assay_contracts.deploy.deployment_record import Record
from assay_contracts.local.genesis import poster_key
from assay_coordinator.adapters.check import check_books
from assay_coordinator.operator import ask
from assay_network.keystore import load_or_create_key
from assay_protocol.messages import Account, CloseEpoch, EpochClosed, Grant
from assay_protocol.signing import Identity
from contracts.rpc_node import RpcNode
from end_to_end.load_driver import database
from end_to_end.places import write_card
from end_to_end.rpc_server import plan_of, serve_node

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

START_SECONDS_MAX = 60
POST_SECONDS_MAX = 60


@asynccontextmanager
async def started(
    data: Path, card: Path, operator: bytes, options: Sequence[str]
) -> AsyncIterator[dict[str, Any]]:
    """A coordinator process; yields what it says when it is ready."""
    command = [sys.executable, "-m", "assay_coordinator", "start", "--data-dir", str(data)]
    command += ["--listen", "/ip4/127.0.0.1/tcp/0", "--catalogue", str(card), *options]
    command += ["--operator", Identity(operator).public_key.hex()]
    async with trio.open_nursery() as nursery:
        running = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        process = await nursery.start(running)
        with trio.fail_after(START_SECONDS_MAX):
            line = await process.stdout.receive_some()
        yield json.loads(line)
        process.terminate()
        with trio.fail_after(START_SECONDS_MAX):
            assert await process.wait() == 0


def head_of(node: RpcNode, ledger: bytes) -> int:
    return ledger_abi.decode_number(node.chain.call(ledger, ledger_abi.head_call()))


async def posted(node: RpcNode, ledger: bytes, epochs: int) -> None:
    """Mines until the ledger's head is that far."""
    with trio.fail_after(POST_SECONDS_MAX):
        while True:
            if head_of(node, ledger) == epochs:
                return
            node.mine()
            await trio.sleep(0.2)


async def test_what_closes_while_the_chain_is_down_is_posted_when_it_is_back(
    tmp_path: Path,
) -> None:
    data, operator = tmp_path / "coordinator", bytes(range(32))
    for folder in (data, tmp_path / "node"):
        folder.mkdir()
    poster = Wallet(poster_key(load_or_create_key(data / "coordinator.key")))
    plan, record = plan_of(poster), tmp_path / "record.json"
    record.write_text(Record(plan).encode())
    card = write_card(tmp_path)
    async with trio.open_nursery() as nursery:
        node, url = await serve_node(nursery, tmp_path / "node", poster)
        node.fault = lambda asked: httpx.Response(503)
        options = ["--chain", url, "--deployment", str(record), "--confirmations", "1"]
        async with started(data, card, operator, options) as ready:
            account = Grant(account=b"\x07" * 32, amount=5)
            told = await ask(operator, ready["address"], account, Account)
            assert told.available == 5, "it serves without its chain"
            closed = [
                await ask(operator, ready["address"], CloseEpoch(), EpochClosed) for _ in range(2)
            ]
            await trio.sleep(1)
            node.fault = lambda asked: None
            ledger = plan.addresses["CreditLedger"]
            await posted(node, ledger, 2)
        node.go_back(1, keep_pool=False)  # while it is away the newest epoch is lost
        assert head_of(node, ledger) == 1
        async with started(data, card, operator, options):
            await posted(node, ledger, 2)
        for epoch in closed:
            call = ledger_abi.epochs_call(epoch.epoch)
            on_chain = ledger_abi.decode_epoch(node.chain.call(ledger, call))
            assert on_chain is not None
            assert (on_chain.root, on_chain.total_cum) == (epoch.root, epoch.total)
        nursery.cancel_scope.cancel()
    node.close()
    assert check_books(database(data)) == []


async def test_a_deployment_for_another_poster_is_refused(tmp_path: Path) -> None:
    data, record = tmp_path / "coordinator", tmp_path / "record.json"
    record.write_text(Record(plan_of(Wallet(b"\x55" * 32))).encode())
    command = [sys.executable, "-m", "assay_coordinator", "start", "--data-dir", str(data)]
    command += ["--catalogue", str(write_card(tmp_path)), "--chain", "http://127.0.0.1:9/"]
    refused = await trio.run_process(
        [*command, "--deployment", str(record)], capture_stderr=True, check=False
    )
    assert refused.returncode == 1
    assert b"config_invalid" in refused.stderr
    missing = await trio.run_process(command, capture_stderr=True, check=False)
    assert (missing.returncode, b"config_invalid" in missing.stderr) == (1, True)
