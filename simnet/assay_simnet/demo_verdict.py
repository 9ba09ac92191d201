"""The demo's trial: an alarm, the auditors, the transcript anybody can check, what was forfeited.

The cheat's first answers are replayed by auditors of other operators. Two who agree that an answer
is not the model's make the inquiry; two such answers make the conviction. The clients get back what
the cheat was to be paid.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from assay_coordinator.operator import ask
from assay_network.keystore import load_key
from assay_protocol.messages import (
    Account,
    AuditStatement,
    GetAccount,
    GetVerdict,
    JobVerdict,
    Ticket,
)
from assay_protocol.signing import peek
from assay_simnet.demo_client import Failed
from assay_simnet.drivers.real import POLL_SECONDS, RealNetwork

TRIAL_SECONDS_MAX: Final = 90.0
TAKEN_FOR_CHEATS: Final = ("inquiry", "suspended", "convicted")


async def found_out(
    network: RealNetwork, cheat: str, honest: Sequence[str], tickets: Sequence[Ticket]
) -> dict[str, Any]:
    """Wait for the conviction and show what it rests on; `tickets` are of the client `crowd`.

    Raises Failed unless the cheat and nobody else is convicted, the verdicts hold when checked
    again, and what the client paid it has been refunded.
    """
    path = await _convicted(network, cheat)
    states = {name: (await _status(network, name)).state for name in (*honest, cheat)}
    if any(states[name] in TAKEN_FOR_CHEATS for name in honest):
        raise Failed(f"an honest node was taken for a cheat: {states}")
    mine = [one for one in tickets if one.node == network.key_of(cheat)]
    verdicts = [await _verdict(network, one.ticket) for one in mine]
    named = {network.key_of(name): name for name in (*honest, cheat)}
    wrong = [one for one in verdicts if one.outcome == "failed"]
    for one in verdicts:
        auditors = ", ".join(named[key] for key in one.auditors or ()) or "nobody any more"
        _say(f"ticket {one.ticket.hex()}: {one.outcome}, {one.state}; found by {auditors}")
    if len(wrong) < 2 or any(one.state != "refunded" for one in verdicts):
        raise Failed(f"not every answer of the cheat was refunded: {verdicts}")
    await _shown(network, wrong[0])
    return {
        "node": cheat,
        "states": states,
        "path": path,
        "jobs_failed": len(wrong),
        "auditors": len({key for one in wrong for key in one.auditors or ()}),
        "statements": sum(len(one.statements) for one in wrong),
        "refunded": len(verdicts),
        **await _forfeited(network, cheat),
    }


async def _convicted(network: RealNetwork, cheat: str) -> list[str]:
    """The states the cheat goes through, up to its conviction."""
    path: list[str] = []
    with trio.move_on_after(TRIAL_SECONDS_MAX):
        while not path or path[-1] != "convicted":
            node = await network.node(cheat)
            if node is not None and (not path or node.state != path[-1]):
                path.append(node.state)
                _say(f"{cheat}: {node.state}")
            await trio.sleep(POLL_SECONDS)
    if not path or path[-1] != "convicted":
        raise Failed(f"the cheat was not convicted: {path}")
    return path


async def _status(network: RealNetwork, name: str) -> Any:
    node = await network.node(name)
    assert node is not None, "it has registered"
    _say(f"{name}: {node.state}, {node.jobs} jobs, {node.audits_passed} audits passed")
    return node


async def _verdict(network: RealNetwork, ticket: bytes) -> JobVerdict:
    """How the job ended; each auditor's statement is of this ticket."""
    seed = load_key(network.folder / "crowd.key")
    told = await ask(seed, network.address, GetVerdict(ticket=ticket), JobVerdict)
    if any(peek(AuditStatement, said).ticket != ticket for said in told.statements):
        raise Failed("a statement is of another ticket")
    return told


async def _shown(network: RealNetwork, verdict: JobVerdict) -> None:
    """`assay audit show`: signatures, leaves and commitments of the transcript, checked again."""
    command = [sys.executable, "-m", "assay", "audit", "show", verdict.ticket.hex()]
    command += ["--coordinator", network.address]
    _say("$ assay " + " ".join(command[3:]))
    done = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    _say(done.stdout.decode().rstrip())
    if done.returncode:
        raise Failed("the transcript does not hold")


async def _forfeited(network: RealNetwork, cheat: str) -> dict[str, int]:
    """The cheat has nothing left in escrow and earned nothing."""
    node = await network.node(cheat)
    assert node is not None
    seed = load_key(network.folder / "crowd.key")
    account = await ask(seed, network.address, GetAccount(), Account)
    _say(f"{cheat} earned {node.earned}, in escrow {node.escrow}; reserved {account.reserved}")
    if node.earned or node.escrow:
        raise Failed("the cheat was paid")
    return {"earned": node.earned, "escrow": node.escrow}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
