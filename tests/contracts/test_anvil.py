"""The outbox and the follower on a real node that others wrote: anvil, mining by the clock.

anvil loses transactions that wait when it ends, forgets what it was not told to dump, and can be
told to re-organise: what a public chain does once a year it does here within seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import Engine

from assay_contracts.adapters.follower import Change, Follower
from assay_contracts.adapters.follower_core import Mark
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.outbox import Outbox, Request
from assay_contracts.adapters.outbox_core import Alarm, Patience
from assay_contracts.adapters.rpc_chain import Ask, RpcChain
from assay_contracts.adapters.wallet import show_address
from assay_contracts.artefact import CONTRACTS
from assay_contracts.credit import ledger_abi
from assay_contracts.deploy.plan import Plan
from assay_protocol.errors import AssayError
from contracts.test_outbox import WALLET, header, note, opened, post
from free_ports import free_port

pytestmark = [pytest.mark.interop, pytest.mark.slow]

VERSION = "1.7.1"
INSTALL_SECONDS_MAX = 240
CONFIRMATIONS = 2
CHAIN_ID = 31_337
# Our own launcher is called `node` inside the virtual environment: look past it.
PATH = os.pathsep.join(
    folder
    for folder in os.environ.get("PATH", "").split(os.pathsep)
    if Path(folder).resolve() != Path(sys.prefix, "bin").resolve()
)
NPM = shutil.which("npm", path=PATH)
needs_npm = pytest.mark.skipif(not NPM, reason="npm is not installed")


@pytest.fixture(scope="module")
def anvil() -> str:
    """The program, installed once per version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "assay"
    folder = cache / f"anvil-{VERSION}"
    if not (folder / "installed").exists():
        assert NPM is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"name": "anvil-of-assay", "private": true}')
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(
            [NPM, "install", *options, f"@foundry-rs/anvil@{VERSION}"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS_MAX,
            env={**os.environ, "PATH": PATH},
        )
        (folder / "installed").touch()
    (program,) = folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil")
    return str(program)


@asynccontextmanager
async def running(program: str, port: int, state: Path | None = None) -> AsyncIterator[RpcChain]:
    """One anvil that mines each second; from a dumped `state` if there is one."""
    command = [program, "--port", str(port), "--block-time", "1", "--silent"]
    if state is not None:
        command += ["--load-state", str(state)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, command)
        chain = RpcChain(f"http://127.0.0.1:{port}/")
        with trio.fail_after(60):
            while True:
                try:
                    await chain.head()
                    break
                except AssayError:
                    await trio.sleep(0.05)
        try:
            yield chain
        finally:
            with trio.CancelScope(shield=True):
                await chain.aclose()
                process.terminate()
                await process.wait()
                nursery.cancel_scope.cancel()


async def deployed(chain: RpcChain, outbox: Outbox) -> bytes:
    """Funds the poster and deploys through the outbox; returns the ledger's address."""
    await chain.ask_all([Ask("anvil_setBalance", (show_address(WALLET.address), hex(10**21)))])
    plan = Plan(WALLET.address, bytes(32), WALLET.address, CHAIN_ID)
    for creation in plan.creations():
        request = Request(key=creation.contract, call=Call(None, creation.code), keep=True)
        await outbox.submit(request)
    await settled(outbox, list(CONTRACTS))
    return plan.addresses["CreditLedger"]


async def settled(outbox: Outbox, keys: list[str]) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            for key in keys:
                settlement = await outbox.settled(key)
                assert settlement.place is not None, settlement
            nursery.cancel_scope.cancel()


def outbox_on(chain: RpcChain, engine: Engine, alarms: list[Alarm]) -> Outbox:
    patience = Patience(confirmations=CONFIRMATIONS, has_pool=True)
    return Outbox(engine, chain, WALLET, patience, on_alarm=alarms.append)


async def head_of(chain: RpcChain, ledger: bytes) -> int:
    return ledger_abi.decode_number(await chain.call(ledger, ledger_abi.head_call()))


@needs_npm
async def test_epochs_survive_a_reorganisation_and_an_older_state(
    anvil: str, tmp_path: Path
) -> None:
    engine = opened(f"sqlite:///{tmp_path / 'outbox.db'}")
    alarms: list[Alarm] = []
    port, state = free_port(), tmp_path / "state"
    history: list[Mark] = []
    backs = 0

    async def keep(change: Change) -> None:
        nonlocal backs
        if change.applied:
            history.append(change.mark)
        else:
            assert history.pop() == change.mark
            backs += 1

    async with running(anvil, port) as chain:
        outbox = outbox_on(chain, engine, alarms)
        ledger = await deployed(chain, outbox)
        follower = Follower(chain, (ledger,), keep)
        for epoch in (1, 2):
            await outbox.submit(post(ledger, epoch))
        await settled(outbox, ["epoch-1", "epoch-2"])
        await follower.poll()
        (dump,) = await chain.ask_all([Ask("anvil_dumpState")])
        await outbox.submit(post(ledger, 3))
        await outbox.submit(note(1))
        await settled(outbox, ["epoch-3", "note-1"])
        await follower.poll()
        await chain.ask_all([Ask("anvil_reorg", (CONFIRMATIONS, []))])
        await follower.poll()
        assert backs == CONFIRMATIONS
        await chain.ask_all([Ask("anvil_reorg", (6, []))])  # deeper than anybody believed
        for number in (4, 5):
            await outbox.submit(post(ledger, number))
        await settled(outbox, ["epoch-4", "epoch-5"])
        assert await head_of(chain, ledger) == 5
        await follower.poll()
        blocks = await chain.blocks(0, min(256, len(history)))
        assert history[: len(blocks)] == [Mark(block.number, block.hash) for block in blocks]
    state.write_bytes(_state_of(dump))
    async with running(anvil, port, state) as chain:
        assert await head_of(chain, ledger) == 2, "it was restored from an older state"
        again = outbox_on(chain, engine, alarms)
        await again.submit(post(ledger, 6))
        await settled(again, ["epoch-6"])
        assert await head_of(chain, ledger) == 6
        for epoch in range(1, 7):
            told = await chain.call(ledger, ledger_abi.epochs_call(epoch))
            posted = ledger_abi.decode_epoch(told)
            assert posted is not None
            assert posted.root == header(epoch).root
    assert "chain_mismatch" in {alarm.code for alarm in alarms}
    engine.dispose()


@needs_npm
async def test_a_transaction_that_offers_too_little_is_raised(anvil: str, tmp_path: Path) -> None:
    engine = opened(f"sqlite:///{tmp_path / 'outbox.db'}")
    async with running(anvil, free_port()) as chain:
        await chain.ask_all(
            [
                Ask("anvil_setBalance", (show_address(WALLET.address), hex(10**21))),
                Ask("anvil_setNextBlockBaseFeePerGas", (hex(10**9),)),
            ]
        )
        patience = Patience(confirmations=1, has_pool=True, bump_us=500_000)
        outbox = Outbox(engine, chain, WALLET, patience)
        await outbox.submit(note(1))
        with trio.fail_after(60):
            await outbox.pump()
            dear: Any = hex(40 * 10**9)
            await chain.ask_all([Ask("anvil_setNextBlockBaseFeePerGas", (dear,))])
            await settled(outbox, ["note-1"])
    with engine.connect() as connection:
        offers = connection.exec_driver_sql("select fee from chain_attempts order by number").all()
    assert len(offers) > 1
    assert all(b.fee > a.fee * 9 // 8 for a, b in pairwise(offers))
    engine.dispose()


@needs_npm
async def test_an_empty_account_is_told_apart(anvil: str, tmp_path: Path) -> None:
    engine = opened(f"sqlite:///{tmp_path / 'outbox.db'}")
    alarms: list[Alarm] = []
    async with running(anvil, free_port()) as chain:
        outbox = outbox_on(chain, engine, alarms)
        await outbox.submit(note(1))
        for _ in range(3):
            await outbox.pump()
        assert {alarm.code for alarm in alarms} == {"gas_too_low"}
    engine.dispose()


def _state_of(dump: Any) -> bytes:
    """`anvil_dumpState` answers gzip in hex; `--load-state` reads the JSON inside."""
    import gzip

    return gzip.decompress(bytes.fromhex(dump[2:]))
