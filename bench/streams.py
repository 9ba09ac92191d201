"""What the programs here that stream answers share: a run's figures, and a client of a network.

A client holds one session with the coordinator and asks for a ticket per answer, as the SDK does,
but with token ids in and out and nothing else on its clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles

import trio

from assay_network.host import Host, open_host
from assay_network.identity import split_address
from assay_network.session import Session, open_session
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_protocol.hashing import nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.links import JOB, SESSION
from assay_protocol.signing import Identity, peek
from assay_protocol.streams import ClientStream
from assay_simnet.drivers.real import RealNetwork

GREEDY = m.Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
SILENCE_SECONDS_MAX = 120.0

Prompt = tuple[int, ...]
Ticket = tuple[m.TicketGrant, bytes, bytes]  # the grant, the nonce, the packed prompt


@dataclass(frozen=True)
class Run:
    """Answers asked for at once: seconds to each one's first token, and between arrivals after."""

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens per second, all answers together, their prompts' time included."""
        return self.tokens / self.seconds

    @property
    def first_p50(self) -> float:
        return median(self.first)

    @property
    def first_p95(self) -> float:
        return quantiles(self.first, n=20)[18] if len(self.first) > 1 else self.first[0]

    @property
    def gap_p99(self) -> float:
        return quantiles(self.gaps, n=100)[98] if len(self.gaps) > 1 else 0.0


class Clock:
    """Collects a run, one `arrived` for each arrival of tokens."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first: list[float] = []
        self._gaps: list[float] = []
        self._last: dict[int, float] = {}
        self._tokens = 0

    def opened(self, answer: int) -> None:
        self._last[answer] = -time.perf_counter()  # below zero: no token yet

    def arrived(self, answer: int, tokens: int) -> None:
        now, last = time.perf_counter(), self._last[answer]
        if last < 0:
            self._first.append(now + last)
        else:
            self._gaps.append(now - last)
        self._last[answer] = now
        self._tokens += tokens

    def run(self) -> Run:
        return Run(self._first, self._gaps, self._tokens, time.perf_counter() - self._began)


@dataclass
class Client:
    """This process: tickets from the coordinator, tokens from the node."""

    identity: Identity
    host: Host
    session: Session
    model: bytes

    async def ticket(self, prompt: Prompt, tokens: int) -> Ticket:
        nonce, packed = os.urandom(32), pack_tokens(prompt)
        wanted = m.SubmitJob(
            model=self.model,
            prompt_hash=prompt_hash(nonce, packed),
            n_in=len(prompt),
            sampler=GREEDY,
            max_tokens=tokens,
            nonce_commitment=nonce_commitment(nonce),
            exclude=(),
            only=(),
        )
        grant = decode(await self.session.request(encode(wanted)))
        assert isinstance(grant, m.TicketGrant), grant
        await self.host.dial(grant.route.node, grant.route.addresses)
        return grant, nonce, packed

    async def answer(self, ticket: Ticket, number: int, clock: Clock) -> None:
        """One answer, to its receipt."""
        grant, nonce, packed = ticket
        stream = ClientStream(peek(m.Ticket, grant.ticket), nonce, self.identity)
        frame = stream.start(grant.ticket, packed)
        async with self.host.open(grant.route.node, JOB, frame) as frames:
            while stream.receipt_blob is None:
                step = stream.receive(await frames.receive(SILENCE_SECONDS_MAX))
                if step.tokens:
                    clock.arrived(number, len(step.tokens))
                if step.reply is not None:
                    await frames.send(step.reply)

    async def run(self, prompts: list[Prompt], tokens: int, *, tickets_first: bool) -> Run:
        """All prompts at once. With `tickets_first` the clock starts when all tickets are there."""
        ready = [await self.ticket(one, tokens) for one in prompts] if tickets_first else []
        clock = Clock()

        async def one(number: int, prompt: Prompt) -> None:
            clock.opened(number)
            ticket = ready[number] if ready else await self.ticket(prompt, tokens)
            await self.answer(ticket, number, clock)

        async with trio.open_nursery() as nursery:
            for number, prompt in enumerate(prompts):
                nursery.start_soon(one, number, prompt)
        return clock.run()


@asynccontextmanager
async def client_of(network: RealNetwork) -> AsyncIterator[Client]:
    """A client of the first model on the network's list."""
    identity = Identity(os.urandom(32))
    key = split_address(network.address)
    async with (
        open_host(identity.seed) as host,
        open_session(host, key, [network.address], SESSION, lambda s, r, b: None) as session,
    ):
        models = decode(await session.request(encode(m.GetModels())))
        assert isinstance(models, m.Models)
        yield Client(identity, host, session, models.models[0].model)
