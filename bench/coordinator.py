"""Jobs per second of one coordinator process: ticket + receipt, durable, over libp2p.

A real `coordinator start` (SQLite, synchronous FULL) in a process of its own; this process plays
clients and nodes over kept sessions: it asks for a ticket, signs the receipt a node would sign and
hands it in, with a fixed number of jobs under way. No model runs and no token travels: this is
the coordinator's own cost. Audits are drawn at the steady rate of 5 % and left unanswered.

Ends with one JSON line: jobs_per_s (median of the rounds), p50/p95 of both calls in ms, CPU
microseconds of the coordinator per job, and where its time goes by package (a second, profiled
run).
"""

from __future__ import annotations

import argparse
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import trio

from assay_network.host import open_host
from assay_network.identity import split_address
from assay_network.session import Session, open_session
from assay_protocol import messages as m
from assay_protocol.cards import ModelCard, encode_card
from assay_protocol.codec import decode, encode
from assay_protocol.hashing import nonce_commitment, prompt_hash
from assay_protocol.links import SESSION
from assay_protocol.signing import Identity, peek, seal

CLIENTS, NODES = 4, 4
SAMPLER = m.Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
MODEL = b"\x07" * 32
POLICY = "probation_audits = 0\nholdback_us = 0\nopen_tickets_max = 100000\nqueue_per_slot = 1000\n"


@dataclass
class Timings:
    """Seconds of each call."""

    submit: list[float] = field(default_factory=list)
    book: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--under-way", type=int, default=64)
    args = parser.parse_args()
    rates, timings, cpu = trio.run(measure, args, None)
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        trio.run(measure, argparse.Namespace(**{**vars(args), "rounds": 1}), profile)
        shares = where(profile)
    for name, value in (("submit", timings.submit), ("book", timings.book)):
        cut = quantiles(value, n=20)
        print(f"{name}: p50 {cut[9] * 1e3:.1f} ms, p95 {cut[18] * 1e3:.1f} ms")
    print("profile:", ", ".join(f"{name} {share} %" for name, share in shares.items()))
    figures = {
        "jobs_per_s": round(median(rates), 1),
        "rounds": [round(rate, 1) for rate in rates],
        "submit_ms_p50": round(median(timings.submit) * 1e3, 2),
        "book_ms_p50": round(median(timings.book) * 1e3, 2),
        "coordinator_cpu_us_per_job": round(cpu),
        "profile_pct": shares,
    }
    print(json.dumps(figures))


async def measure(
    args: argparse.Namespace, profile: Path | None
) -> tuple[list[float], Timings, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with coordinator(Path(folder), profile) as (process, address):
            return await drive(args, address, psutil.Process(process.pid))


@asynccontextmanager
async def coordinator(folder: Path, profile: Path | None) -> AsyncIterator[tuple[Any, str]]:
    (folder / "catalogue").mkdir()
    (folder / "catalogue" / "bench.card").write_bytes(encode_card(card()))
    (folder / "policy.toml").write_text(POLICY)
    run = ["-m", "cProfile", "-o", str(profile)] if profile else []
    command = [sys.executable, *run, "-m", "assay_coordinator", "start"]
    command += ["--data-dir", str(folder), "--listen", "/ip4/127.0.0.1/tcp/0"]
    command += ["--policy", str(folder / "policy.toml"), "--faucet", str(1 << 40)]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        ready = json.loads(await process.stdout.receive_some(65_536))
        yield process, ready["address"]
    finally:
        process.terminate()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
            await process.wait()


async def drive(
    args: argparse.Namespace, address: str, process: psutil.Process
) -> tuple[list[float], Timings, float]:
    nodes = {i.public_key: i for i in (Identity(bytes([1, i]) * 16) for i in range(NODES))}
    timings, rates = Timings(), []
    async with trio.open_nursery() as nursery:
        sessions: list[Session] = []
        for identity in nodes.values():
            session = await nursery.start(keep_session, identity.seed, address)
            await ask(session, registration(identity))
            nursery.start_soon(beat, session)
        for i in range(CLIENTS):
            sessions.append(await nursery.start(keep_session, bytes([2, i]) * 16, address))
        await one_round(1.0, args.under_way, sessions, nodes, Timings())  # warm-up
        cpu, done = sum(process.cpu_times()[:2]), 0
        for _ in range(args.rounds):
            count = await one_round(args.seconds, args.under_way, sessions, nodes, timings)
            rates.append(count / args.seconds)
            done += count
        cpu = sum(process.cpu_times()[:2]) - cpu
        nursery.cancel_scope.cancel()
    return rates, timings, cpu / done * 1e6


async def one_round(
    seconds: float,
    under_way: int,
    sessions: list[Session],
    nodes: dict[bytes, Identity],
    timings: Timings,
) -> int:
    done = 0

    async def worker(session: Session) -> None:
        nonlocal done
        while True:
            await job(session, nodes, timings)
            done += 1

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for i in range(under_way):
                nursery.start_soon(worker, sessions[i % len(sessions)])
    return done


async def job(session: Session, nodes: dict[bytes, Identity], timings: Timings) -> None:
    nonce = time.perf_counter_ns().to_bytes(32, "big")
    prompt = prompt_hash(nonce, bytes(40))
    wanted = m.SubmitJob(
        model=MODEL,
        prompt_hash=prompt,
        n_in=10,
        sampler=SAMPLER,
        max_tokens=64,
        nonce_commitment=nonce_commitment(nonce),
        exclude=(),
        only=(),
    )
    began = time.perf_counter()
    grant = await ask(session, wanted)
    timings.submit.append(time.perf_counter() - began)
    assert isinstance(grant, m.TicketGrant), grant
    receipt = seal(nodes[grant.route.node], receipt_of(peek(m.Ticket, grant.ticket)))
    began = time.perf_counter()
    booked = await ask(session, m.SubmitReceipt(receipt=receipt))
    timings.book.append(time.perf_counter() - began)
    assert isinstance(booked, m.ReceiptBooked), booked


def receipt_of(ticket: m.Ticket) -> m.Receipt:
    return m.Receipt(
        ticket=ticket.ticket,
        class_id="bench",
        output_hash=bytes(32),
        root=bytes(32),
        n_in=ticket.n_in,
        n_out=64,
        finish="length",
        started_at=ticket.issued_at,
        first_at=ticket.issued_at,
        ended_at=ticket.issued_at,
    )


def registration(identity: Identity) -> m.Register:
    offer = m.Offer(
        model=MODEL,
        class_id="bench",
        slots=100,
        context=2048,
        prefill_rate=1_000_000,
        decode_rate=100_000,
    )
    return m.Register(
        operator=identity.public_key,
        offers=(offer,),
        addresses=("/ip4/127.0.0.1/tcp/1",),
        software="bench",
        device="none",
    )


async def beat(session: Session) -> None:
    while True:
        await trio.sleep(1)
        await ask(session, m.Heartbeat(running=0, waiting=0, free_slots=100, draining=False))


async def ask(session: Session, message: object) -> Any:
    return decode(await session.request(encode(message), 30))


async def keep_session(
    seed: bytes, address: str, task_status: Any = trio.TASK_STATUS_IGNORED
) -> None:
    key = split_address(address)
    async with (
        open_host(seed) as host,
        open_session(host, key, [address], SESSION, lambda s, r, b: None) as session,
    ):
        task_status.started(session)
        await trio.sleep_forever()


def card() -> ModelCard:
    return ModelCard(
        name="bench",
        digest=MODEL,
        size_bytes=1,
        architecture="none",
        quantization="none",
        context=2048,
        n_vocab=2,
        bos=None,
        eos=1,
        add_bos=False,
        eog=(1,),
        tokenizer_model="gpt2",
        tokenizer_pre="gpt-2",
        pieces=(b"a", b""),
        token_types=bytes([1, 3]),
        merges=(),
        texts=((1, "<end>"),),
        chat_template="",
        license="none",
        source=None,
        price_in=100,
        price_out=200,
    )


def where(profile: Path) -> dict[str, int]:
    """Own time by package, in percent of the time not spent waiting."""
    spent: Counter[str] = Counter()
    for (file, _, name), row in pstats.Stats(str(profile)).stats.items():  # type: ignore[attr-defined]
        if "epoll" not in name and "acquire" not in name:
            spent[_package(file, name)] += row[2]
    total = sum(spent.values())
    top = {name: round(100 * value / total) for name, value in spent.most_common(10)}
    return {name: share for name, share in top.items() if share}


def _package(file: str, name: str) -> str:
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    for part in parts:
        if part.startswith("assay_"):
            return part
    for word in ("sqlite3", "sign", "msgpack", "socket", "ChaCha", "sha", "Hash"):
        if word.lower() in name.lower():
            return word
    return "python"


if __name__ == "__main__":
    main()
