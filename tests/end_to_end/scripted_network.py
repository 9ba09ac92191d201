"""A coordinator and scripted nodes as processes, and a client that speaks the job stream itself."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from assay.events import JobLimits
from assay_coordinator.operator import ask
from assay_network.frames import Frames
from assay_network.host import open_host
from assay_network.keystore import load_key
from assay_node.engine.interface import Generate
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_protocol import messages as m
from assay_protocol.hashing import job_seed, nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.links import JOB
from assay_protocol.signing import Identity, peek, seal
from assay_protocol.streams import ClientStream
from assay_simnet.drivers.real import RealNetwork, real_network
from end_to_end.places import scripted_card, write_card
from free_ports import free_port

CLIENT = Identity(b"\x2c" * 32)
PROMPT = (5, 6, 7, 8)
NONCE = b"\x4e" * 32
SAMPLER = m.Sampler(temperature=0.8, top_k=0, top_p=1.0, min_p=0.0)
FAUCET = 1 << 40
# No job is drawn: a network of one node has no auditor, and a node whose job is under audit drains
# until its time to drain is over.
POLICY = (
    "probation_audits = 0\naudit_bps_min = 0\ngain_bps = 0\n"
    "heartbeat_us = 500000\nround_us = 200000\n"
)
PATIENT = 30.0  # seconds, as in production
# Of a client on a machine with other work: what a node cannot do at once it is asked for again.
UNHURRIED = JobLimits(attempts_max=64, first_token_us=180_000_000, stall_us=60_000_000)


@asynccontextmanager
async def scripted_network(folder: Path) -> AsyncIterator[RealNetwork]:
    """A running coordinator whose catalogue is the scripted model; no nodes yet."""
    async with real_network(folder) as network:
        network.address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/"
        await start_coordinator(network)
        yield network


async def start_coordinator(network: RealNetwork) -> None:
    await network.start_coordinator(POLICY, write_card(network.folder), FAUCET)


async def start_paced(
    network: RealNetwork, name: str, pace: float, patience: float = PATIENT, **more: str
) -> None:
    """A node that draws a token every `pace` seconds; returns when it is registered."""
    flags = {
        "coordinator": network.address,
        "data_dir": network.folder / name,
        "listen": "/ip4/127.0.0.1/tcp/0",
        "engine": "scripted",
        **more,
    }
    program = [sys.executable, str(Path(__file__).with_name("paced_node.py"))]
    words = [f"{key}={value}" for key, value in flags.items()]
    await network.spawn(name, [*program, str(pace), str(patience), *words])
    await network.wait_present([name])


async def granted(network: RealNetwork, max_tokens: int, **changes: Any) -> m.TicketGrant:
    """A ticket of CLIENT for PROMPT."""
    fields: dict[str, Any] = {
        "model": scripted_card().digest,
        "prompt_hash": prompt_hash(NONCE, pack_tokens(PROMPT)),
        "n_in": len(PROMPT),
        "sampler": SAMPLER,
        "max_tokens": max_tokens,
        "nonce_commitment": nonce_commitment(NONCE),
        "exclude": (),
        "only": (),
    }
    return await ask(CLIENT.seed, network.address, m.SubmitJob(**(fields | changes)), m.TicketGrant)


def signed(network: RealNetwork, grant: m.TicketGrant, **changes: Any) -> m.TicketGrant:
    """The granted ticket with `changes`, signed by the coordinator's key all the same."""
    coordinator = Identity(load_key(network.folder / "coordinator" / "coordinator.key"))
    ticket = replace(peek(m.Ticket, grant.ticket), **changes)
    return replace(grant, ticket=seal(coordinator, ticket))


class RawJob:
    """One job stream of CLIENT, frame by frame."""

    def __init__(self, grant: m.TicketGrant) -> None:
        self.ticket = peek(m.Ticket, grant.ticket)
        self.stream = ClientStream(self.ticket, NONCE, CLIENT)
        self.first = self.stream.start(grant.ticket, pack_tokens(PROMPT))
        self.route = grant.route

    @asynccontextmanager
    async def open(self, first: bytes | None = None) -> AsyncIterator[Frames]:
        async with (
            open_host(CLIENT.seed) as host,
            host.open(
                self.route.node,
                JOB,
                self.first if first is None else first,
                PATIENT,
                addresses=self.route.addresses,
            ) as frames,
        ):
            yield frames

    async def read(self, frames: Frames, tokens: int | None = None) -> None:
        """Read and acknowledge until `tokens` have come, or the receipt."""
        with trio.fail_after(60):
            while self.stream.receipt_blob is None and (
                tokens is None or len(self.stream.tokens) < tokens
            ):
                step = self.stream.receive(await frames.receive())
                if step.reply is not None:
                    await frames.send(step.reply)

    async def whole(self, first: bytes | None = None) -> m.Receipt:
        """The receipt of the whole answer; RemoteError if the node refuses."""
        async with self.open(first) as frames:
            await self.read(frames)
            await frames.finish()
        assert self.stream.receipt_blob is not None
        return peek(m.Receipt, self.stream.receipt_blob)


async def wait_booked(network: RealNetwork, jobs: int) -> None:
    """Until the coordinator has booked so many receipts."""
    with trio.fail_after(60):
        while (await network.status()).jobs < jobs:
            await trio.sleep(0.1)


async def unbroken(
    prompt: tuple[int, ...], max_tokens: int, seed: bytes, sampler: m.Sampler
) -> list[int]:
    """The answer as one paced node's engine gives it without a break."""
    request = Generate(prompt=prompt, start=0, max_tokens=max_tokens, sampler=sampler, seed=seed)
    tokens: list[int] = []
    script = Script(end_bias=-100.0)
    async with open_scripted_engine(script) as engine, engine.generate(request) as chunks:
        async for chunk in chunks:
            tokens += chunk.tokens
    return tokens


def seed_of(ticket: m.Ticket, nonce: bytes) -> bytes:
    return job_seed(ticket.seed_ticket, nonce)


def fresh(number: int) -> bytes:
    """32 bytes of a name."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()
