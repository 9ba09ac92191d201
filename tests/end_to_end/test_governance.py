"""Governance from end to end, with real processes: who earned credit denies a model by vote, and
the node refuses it; then allows it again, under a moderation policy.

Every step is a command that a person could type. Only the parameters of the contracts are short.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_contracts import calls
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.rpc_chain import RpcChain
from assay_contracts.adapters.transact import transact
from assay_contracts.adapters.wallet import Wallet, read_address
from assay_contracts.ed25519_hints import signed as hinted
from assay_contracts.govern.governance import Governance
from assay_coordinator.moderation_command import read_policy_file
from assay_coordinator.operator import ask
from assay_network.keystore import load_key
from assay_protocol import messages as m
from assay_protocol.errors import RemoteError
from assay_protocol.moderation import pack_policy, policy_digest
from assay_protocol.signing import Identity
from assay_simnet.drivers.real import RealNetwork, real_network
from end_to_end.places import scripted_card, write_card
from end_to_end.scripted_network import FAUCET, POLICY, RawJob, granted, start_paced, wait_booked
from free_ports import free_port

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
MODEL = scripted_card().digest
VOTE_SECONDS = 60  # for two commands, each of which starts a program, on a busy machine
CONTRACTS = {
    "window": 1,
    "demand_seconds": 1,
    "span": 2,
    "voting_delay": 1,
    "voting_period": VOTE_SECONDS,
    "timelock_delay": 1,
}
HEARTBEAT_SECONDS = 0.5  # of POLICY
SLACK_SECONDS = 10.0  # for processes that share a machine with others
FORBIDDEN = "\x06\x07"  # stands in scripted_network.PROMPT; each token is a byte
AUTHOR = Identity(b"\x09" * 32)


async def test_what_is_voted_is_obeyed(tmp_path: Path) -> None:
    file = tmp_path / "policy.bin"
    policy = m.ModerationPolicy(name="first", version=1, issued_at=1, phrases=(FORBIDDEN,))
    file.write_bytes(pack_policy(AUTHOR, policy))
    async with real_network(tmp_path) as network:
        await _start(network, file)
        await _earn(network)
        await _bind(network)
        ticket = await granted(network, 4)

        denying = await _propose(network, "--deny", MODEL.hex(), "--description", "not this one")
        allowing = await _propose(network, "--allow", MODEL.hex(), "--moderation", str(file))
        for number in (denying, allowing):  # at once: what passed and is not queued expires
            await _queue(network, number)
        await _execute(network, denying)
        await _until_in_force(network, 1)
        assert await _refused_by_coordinator(network) == "model_denied"
        with pytest.raises(RemoteError, match="model_denied"):  # though the ticket is good
            await RawJob(ticket).whole()
        assert _delay(network, 1) <= HEARTBEAT_SECONDS + SLACK_SECONDS

        await _execute(network, allowing)
        await _until_in_force(network, 3)
        with pytest.raises(RemoteError, match="prompt_refused"):
            await RawJob(await granted(network, 4)).whole()
        told = await ask(_stranger(), network.address, _rules_question(), m.Part)
        assert policy_digest(read_policy_file(file).blob) in told.data
        log = (network.folder / "node.log").read_text()
        assert FORBIDDEN not in json.loads(json.dumps(log))
        assert "\\u0006" not in log


async def _start(network: RealNetwork, policy: Path) -> None:
    network.address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/"
    words = [f"{name}={number}" for name, number in CONTRACTS.items()]
    more = [word for one in words for word in ("--contracts", one)]
    more += ["--moderation", str(policy)]
    rules = POLICY + "holdback_jobs = 0\n"
    await network.start_coordinator(rules, write_card(network.folder), FAUCET, more)
    registry = network.contracts["ModelRegistry"].removeprefix("0x")
    await start_paced(network, "node", 0.0, chain=_url(network), registry=registry)


async def _earn(network: RealNetwork) -> None:
    """One job, paid; an epoch with it, final."""
    await RawJob(await granted(network, 8)).whole()
    await wait_booked(network, 1)
    operator = network.operator_seed()
    with trio.fail_after(60):
        while not (await network.status()).nodes[0].earned:
            await trio.sleep(0.2)
    await ask(operator, network.address, m.CloseEpoch(), m.EpochClosed)
    ledger, chain = read_address(network.contracts["CreditLedger"]), RpcChain(_url(network))
    with trio.fail_after(60):
        while not calls.decode(
            "CreditLedger", "isFinal", await chain.call(ledger, _call("CreditLedger", "isFinal", 1))
        )[0]:
            await trio.sleep(0.5)
    await chain.aclose()


async def _bind(network: RealNetwork) -> None:
    """The node's key says that its wallet gets its pay, and so has its vote."""
    seed = load_key(network.folder / "node" / "node.key")
    wallet, identity = Wallet.of_seed(seed), Identity(seed)
    registry, chain = read_address(network.contracts["NodeRegistry"]), RpcChain(_url(network))
    chain_id = await chain.chain_id()
    message = b"".join(
        (b"assay/1/Bind\0", chain_id.to_bytes(32), registry, wallet.address, bytes(32))
    )
    data = _call(
        "NodeRegistry", "bind", identity.public_key, wallet.address, hinted(identity, message)
    )
    await transact(chain, wallet, Call(registry, data))
    await chain.aclose()


async def _propose(network: RealNetwork, *wishes: str) -> str:
    """Propose and vote, each by the command; the proposal's number."""
    voter = [*_key(network), "--coordinator", network.address]
    models = ["--models", network.contracts["ModelRegistry"]]
    made = await _command(network, "propose", *wishes, *voter, *models)
    number = str(made["id"])
    await _until(network, number, "active")
    voted = await _command(network, "vote", number, "for", *voter)
    assert voted["yes"] == voted["weight"] >= voted["quorum"] > 0
    return number


async def _queue(network: RealNetwork, number: str) -> None:
    """Wait until it passed; hand it to the timelock by the command."""
    await _until(network, number, "succeeded")
    queued = await _command(network, "execute", number, *_key(network))
    assert queued["state"] == "queued"


async def _execute(network: RealNetwork, number: str) -> None:
    await trio.sleep(CONTRACTS["timelock_delay"] + 1)
    executed = await _command(network, "execute", number, *_key(network))
    assert executed["state"] == "executed"
    listed = (await _command(network, "list"))["proposals"]
    assert [one["state"] for one in listed if str(one["id"]) == number] == ["executed"]


def _key(network: RealNetwork) -> list[str]:
    return ["--key", str(network.folder / "node" / "node.key")]


async def _until(network: RealNetwork, number: str, state: str) -> None:
    """Until the contract says so; then the command must. A program for each question would take the
    processor from those who are waited for."""
    chain = RpcChain(_url(network))
    governance = Governance(chain, read_address(network.contracts["Governance"]))
    with trio.fail_after(3 * VOTE_SECONDS):
        while (await governance.proposal(int(number))).state != state:
            await trio.sleep(0.5)
    await chain.aclose()
    assert (await _command(network, "show", number))["state"] == state


async def _command(network: RealNetwork, verb: str, *words: str) -> dict[str, Any]:
    """What `assay governance` prints as JSON."""
    where = ["--chain", _url(network), "--governance", network.contracts["Governance"], "--json"]
    environment = os.environ | {
        "XDG_DATA_HOME": str(network.folder / "share"),
        "XDG_CACHE_HOME": str(network.folder / "cache"),
    }
    command = [sys.executable, "-m", "assay", "governance", verb, *words, *where]
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _until_in_force(network: RealNetwork, version: int) -> None:
    with trio.fail_after(60):
        while not any(one.get("version") == version for one in _logged(network, "node")):
            await trio.sleep(0.1)


async def _refused_by_coordinator(network: RealNetwork) -> str:
    with pytest.raises(RemoteError) as caught:
        await granted(network, 4)
    return caught.value.code


def _delay(network: RealNetwork, version: int) -> float:
    """Seconds from the coordinator's reading of a version to the node's obeying it."""
    [read] = [_when(o) for o in _logged(network, "coordinator") if o.get("version") == version]
    [obeyed] = [_when(o) for o in _logged(network, "node") if o.get("version") == version]
    return (obeyed - read).total_seconds()


def _logged(network: RealNetwork, name: str) -> list[dict[str, Any]]:
    """Log lines about rules."""
    lines = (network.folder / f"{name}.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [one for one in found if one["event"] in ("rules_read", "rules_in_force")]


def _when(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["timestamp"])


def _rules_question() -> m.GetPart:
    return m.GetPart(what="rules", key=bytes(32), offset=0)


def _stranger() -> bytes:
    return b"\x55" * 32


def _url(network: RealNetwork) -> str:
    return network.rpc if network.rpc.startswith("http") else f"http://{network.rpc}"


def _call(contract: str, function: str, *arguments: object) -> bytes:
    return calls.encode(contract, function, *arguments)
