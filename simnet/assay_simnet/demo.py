"""The demo: one coordinator, four nodes (one cheats), two clients, all separate processes.

Each step checks what it shows; a step that fails fails the demo. Honest nodes serve SmolLM2-135M
as shipped (Q4_1); the cheat serves it re-quantized to Q2_K under the same name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import trio

from assay.records import ReceiptRecord
from assay_coordinator.operator import ask
from assay_node.engine.interface import Generate
from assay_node.engine.library import engines
from assay_node.engine.supervisor import open_llama_engine
from assay_node.engine.trials import choose
from assay_protocol.errors import AssayError
from assay_protocol.hashing import job_seed
from assay_protocol.messages import CloseEpoch, EpochClosed, Ticket
from assay_protocol.signing import peek
from assay_simnet.demo_client import Chatter, Failed
from assay_simnet.demo_verdict import found_out
from assay_simnet.drivers.real import POLL_SECONDS, RealNetwork, real_network
from assay_simnet.drivers.real_model import cheaper, prepare
from assay_simnet.prompts import PROMPTS

HONEST: Final = ("node-a", "node-b", "node-c")
CHEAT: Final = "node-d"
CROWD: Final = 8  # chats at once, so that the cheat has answered more than one when it is found out
CHAT_TOKENS: Final = 48
LONG_TOKENS: Final = 192
KILL_AFTER: Final = 64  # tokens of the long answer
SETTLE_SECONDS_MAX: Final = 60.0
FAUCET: Final = 100_000_000
POLICY: Final = "audit_alone_us = 5000000\nround_us = 1000000\n"


@dataclass
class Report:
    """What the demo saw; written as demo-report.json."""

    ok: bool = False
    failure: str = ""
    seconds: float = 0.0
    chats: int = 0
    tokens: int = 0
    ttft_ms_p50: float = 0.0
    tokens_per_s_p50: float = 0.0
    receipts_verified: int = 0
    cheat: dict[str, Any] = field(default_factory=dict)
    resume: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    epoch: dict[str, Any] = field(default_factory=dict)
    credit: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, Any] = field(default_factory=dict)


def run_demo(report_path: Path, keep: Path | None) -> int:
    """Run it; write the report; 0 if everything happened."""
    report, began = Report(), time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="assay-demo-") as temporary:
            folder = keep or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            trio.run(_story, folder, report)
        report.ok = True
    except* (Failed, AssayError, trio.TooSlowError) as group:
        report.failure = "; ".join(str(error) or repr(error) for error in _leaves(group))
    report.seconds = round(time.perf_counter() - began, 1)
    report_path.write_text(json.dumps(asdict(report), indent=2) + "\n")
    _say("")
    _say("demo passed" if report.ok else f"demo FAILED: {report.failure}")
    _say(f"report: {report_path}  ({report.seconds} s)")
    return 0 if report.ok else 1


async def _story(folder: Path, report: Report) -> None:
    made = await trio.to_thread.run_sync(lambda: prepare(folder, price_in=100, price_out=400))
    cheap = await trio.to_thread.run_sync(cheaper, made)
    model, card = made.file, made.card_file
    async with real_network(folder) as network:
        _title("a coordinator and four nodes; one of them serves a cheaper model")
        await network.start_coordinator(POLICY, card, FAUCET)
        for name in HONEST:
            await network.start_node(name, card, model)
        await network.start_cheat(CHEAT, card, model, cheap)
        await network.wait_present([*HONEST, CHEAT])
        asked = await _crowd(network)
        _title("the cheat is found out, and nobody else")
        report.cheat = await found_out(network, CHEAT, HONEST, asked)
        client = await Chatter.start(network, "client")
        await _chats(client, report)
        await _resumed(network, client, model, report)
        await network.start_node(report.resume["killed"], card, model)
        await network.wait_present(HONEST)
        await _settled(network, report)
        await _anchored(network, report)
        await trio.to_thread.run_sync(_credit, network, report)
        await trio.to_thread.run_sync(_drawn_again, network, report)


async def _crowd(network: RealNetwork) -> list[Ticket]:
    """Some chats at once; the tickets they were answered under."""
    _title(f"{CROWD} chats at once")
    crowd = await Chatter.start(network, "crowd")
    done = await crowd.together(PROMPTS[:CROWD], CHAT_TOKENS)
    await crowd.close()
    _say(f"{sum(len(one['tokens']) for one in done)} tokens")
    records = [ReceiptRecord.decode(bytes.fromhex(r)) for one in done for r in one["receipts"]]
    return [peek(Ticket, record.ticket) for record in records]


async def _chats(client: Chatter, report: Report) -> None:
    _title(f"{len(PROMPTS)} chats, straight from the nodes")
    done = [await client.chat(prompt, CHAT_TOKENS) for prompt in PROMPTS]
    report.chats = len(done)
    report.tokens = sum(len(one["tokens"]) for one in done)
    report.ttft_ms_p50 = round(median(one["ttft"] for one in done) * 1e3, 1)
    rates = [len(one["tokens"]) / one["seconds"] for one in done]
    report.tokens_per_s_p50 = round(median(rates), 1)
    report.receipts_verified = sum(one["verified"] for one in done)
    if report.receipts_verified != len(done):
        raise Failed("a receipt did not verify")


async def _resumed(network: RealNetwork, client: Chatter, model: Path, report: Report) -> None:
    _title("a node is killed in the middle of an answer")
    names = {network.key_of(name).hex(): name for name in HONEST}
    killed: list[str] = []

    def kill(event: dict[str, Any]) -> None:
        if event["count"] >= KILL_AFTER and not killed:
            killed.append(names[event["node"]])
            network.kill(killed[0])
            sys.stdout.write(f" [{killed[0]} killed] ")

    prompt = "Write a long story about a lighthouse keeper and a whale."
    done = await client.chat(prompt, LONG_TOKENS, kill)
    if not killed or done["resumed"] is None:
        raise Failed("the answer was not resumed on another node")
    unbroken = await _unbroken(model, done)
    same = unbroken == done["tokens"]
    report.resume = {
        "killed": killed[0],
        "at_token": done["resumed"]["at"],
        "tokens": len(done["tokens"]),
        "token_exact": same,
    }
    _say(f"\nresumed at token {done['resumed']['at']} of {len(done['tokens'])}")
    _say(f"the same tokens as an unbroken answer: {'yes' if same else 'NO'}")
    if not same:
        raise Failed("the resumed answer is not the one the first node would have given")


async def _unbroken(model: Path, done: dict[str, Any]) -> list[int]:
    """The answer as one engine gives it without a break, from the receipt's own seed."""
    record = ReceiptRecord.decode(bytes.fromhex(done["receipts"][-1]))
    ticket = peek(Ticket, record.ticket)
    prompt = record.prompt_tokens[: ticket.n_in - ticket.start]
    request = Generate(
        prompt=prompt,
        start=0,
        max_tokens=LONG_TOKENS,
        sampler=ticket.sampler,
        seed=job_seed(ticket.seed_ticket, record.nonce),
    )
    tokens: list[int] = []
    profile = await trio.to_thread.run_sync(  # that of the nodes, which is remembered
        lambda: choose(model, ticket.model, "exact", threads=1, directory=engines())
    )
    async with (
        open_llama_engine(model, ticket.model, slots=1, threads=1, profile=profile) as engine,
        engine.generate(request) as chunks,
    ):
        async for chunk in chunks:
            tokens += chunk.tokens
    return tokens


async def _settled(network: RealNetwork, report: Report) -> None:
    """Every audit of the honest nodes has its verdict: nothing is left in escrow."""
    with trio.move_on_after(SETTLE_SECONDS_MAX):
        while any(node.escrow for node in (await network.status()).nodes):
            await trio.sleep(POLL_SECONDS)
    for name in (*HONEST, CHEAT):
        node = await network.node(name)
        assert node is not None
        report.nodes[name] = {
            "key": node.node.hex(),
            "state": node.state,
            "jobs": node.jobs,
            "audits_passed": node.audits_passed,
            "audits_failed": node.audits_failed,
            "earned": node.earned,
            "escrow": node.escrow,
        }


async def _anchored(network: RealNetwork, report: Report) -> None:
    _title("the epoch closes; its root goes on the chain")
    closed = await ask(network.operator_seed(), network.address, CloseEpoch(), EpochClosed)
    report.epoch = {
        "epoch": closed.epoch,
        "root": closed.root.hex(),
        "total": closed.total,
        "accounts": closed.accounts,
    }
    _say(f"epoch {closed.epoch}: {closed.total} micro-credits, {closed.accounts} accounts")
    _say(f"root {closed.root.hex()}")
    await trio.sleep(2)  # one transaction; verification below fails if it is not there


def _credit(network: RealNetwork, report: Report) -> None:
    _title("an honest node checks its credit, trusting nobody")
    name = next(name for name in HONEST if name != report.resume["killed"])
    key = network.key_of(name).hex()
    command = [sys.executable, "-m", "assay", "credit", "verify", "--account", key]
    command += ["--coordinator", network.address, "--chain", network.rpc]
    _say("$ assay " + " ".join(command[3:]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    _say(done.stdout.rstrip())
    report.credit = {"node": name, "exit_code": done.returncode}
    if done.returncode:
        raise Failed(f"credit did not verify: {done.stdout}{done.stderr}")


def _drawn_again(network: RealNetwork, report: Report) -> None:
    _title("anybody draws the audit lottery again")
    command = [sys.executable, "-m", "assay", "audit", "recheck", "--rounds", "1..", "--verdicts"]
    command += ["--coordinator", network.address, "--chain", network.rpc]
    _say("$ assay " + " ".join(command[3:]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    _say(done.stdout.rstrip())
    report.draws = {"rounds": done.stdout.count("holds:"), "exit_code": done.returncode}
    if done.returncode:
        raise Failed(f"the draws do not hold: {done.stdout}{done.stderr}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _title(text: str) -> None:
    _say(f"\n== {text}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
