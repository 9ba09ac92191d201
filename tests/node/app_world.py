"""A node process's insides on an in-memory network: a small coordinator and a client."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from assay_network.host import Host, open_host
from assay_network.memory import MemoryNetwork
from assay_network.session import Session, serve_sessions
from assay_node.app import run_node
from assay_node.config import Settings
from assay_node.core.parameters import Parameters
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.loading import Prepared
from assay_protocol.codec import decode, encode
from assay_protocol.hashing import nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.links import JOB, SESSION
from assay_protocol.messages import (
    Done,
    Heartbeat,
    HeartbeatAck,
    Part,
    Receipt,
    ReceiptBooked,
    Register,
    Registered,
    Sampler,
    SubmitReceipt,
    Ticket,
)
from assay_protocol.signing import Identity, peek, seal
from assay_protocol.streams import ClientStream

COORDINATOR, CLIENT = Identity(b"\x03" * 32), Identity(b"\x02" * 32)
SAMPLER = Sampler(temperature=0.8, top_k=0, top_p=1.0, min_p=0.0)
QUICK = Parameters(tick_us=10_000, retry_base_us=20_000, final_ack_us=200_000)
PROMPT = (5, 6, 7)
Answer = Callable[[Session, object], object | None]


@dataclass
class FakeCoordinator:
    """Registers nodes, books receipts, and keeps what nodes say."""

    host: Host
    books: bool = True
    beats: bool = True
    heard: list[object] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    stirred: trio.Event = field(default_factory=trio.Event)
    document: bytes = b""
    rules: bytes | None = None  # the digest it tells with every heartbeat

    def __post_init__(self) -> None:
        serve_sessions(self.host, SESSION, self._open, lambda session: None)

    def _open(self, session: Session) -> Callable[[Session, int, bytes], None]:
        self.sessions.append(session)
        return self._on_frame

    def _on_frame(self, session: Session, request: int, body: bytes) -> None:
        message = decode(body)
        self.heard.append(message)
        self.stirred.set()
        self.stirred = trio.Event()
        answer = self._answer(message)
        if request and answer is not None:
            session.reply(request, encode(answer))

    def _answer(self, message: Any) -> object | None:
        match message:
            case Register():
                return Registered(heartbeat_ms=50, lease_ms=60_000, state="active", now_at=0)
            case Heartbeat() if not self.beats:
                return None
            case Heartbeat():
                zero = {"audits_passed": 0, "audits_failed": 0, "earned": 5, "escrow": 0}
                return HeartbeatAck(state="active", **zero, rules=self.rules)
            case SubmitReceipt() if self.books:
                ticket = peek(Receipt, message.receipt).ticket
                return ReceiptBooked(ticket=ticket, charged=9)
            case SubmitReceipt():
                return None
        part = self.document[message.offset : message.offset + 100] if self.document else b""
        return Part(total=len(self.document), data=part) if part else Done()

    async def hear(self, kind: type, count: int = 1) -> Any:
        """The newest message of a kind, once `count` have come."""
        with trio.fail_after(20):
            while len(found := [m for m in self.heard if isinstance(m, kind)]) < count:
                await self.stirred.wait()
        return found[-1]


@dataclass
class World:
    """One coordinator, one client, and nodes that can be started on `directory`."""

    network: MemoryNetwork
    nursery: trio.Nursery
    coordinator: FakeCoordinator
    client: Host
    directory: Path

    def settings(self, **changes: Any) -> Settings:
        fields: dict[str, Any] = {
            "coordinator": f"{COORDINATOR.public_key.hex()}@{self.coordinator.host.addresses[0]}",
            "data_dir": str(self.directory),
            "listen": (self.network.address(),),
            "engine": "scripted",
            "status_interval": 1,
        }
        return Settings(**(fields | changes))

    def host(self, seed: bytes, listen: tuple[str, ...]) -> AbstractAsyncContextManager[Host]:
        return memory_host(self.network, seed, listen)

    @asynccontextmanager
    async def node(
        self, script: Script | None = None, settings: Settings | None = None, **options: Any
    ) -> AsyncIterator[NodeTask]:
        """A running, registered node; drained on leaving."""
        task = NodeTask()

        def engine(settings: Settings, prepared: Prepared) -> AbstractAsyncContextManager[Engine]:
            return open_scripted_engine(script, slots=settings.slots, context=settings.context)

        async def run() -> None:
            task.code = await run_node(
                settings or self.settings(),
                host_factory=self.host,
                stop=task.stop,
                **({"engine_factory": engine, "parameters": QUICK} | options),
            )
            task.ended.set()

        registered = sum(isinstance(m, Register) for m in self.coordinator.heard)
        self.nursery.start_soon(run)
        await self.coordinator.hear(Heartbeat)
        task.register = await self.coordinator.hear(Register, registered + 1)
        yield task
        task.stop.set()
        with trio.fail_after(20):
            await task.ended.wait()

    def ticket(self, register: Register, number: int, **changes: Any) -> Ticket:
        nonce, packed = nonce_of(number), pack_tokens(PROMPT)
        fields: dict[str, Any] = {
            "ticket": number.to_bytes(16, "big"),
            "client": CLIENT.public_key,
            "node": node_key(self.directory),
            "model": register.offers[0].model,
            "prompt_hash": prompt_hash(nonce, packed),
            "n_in": len(PROMPT),
            "sampler": SAMPLER,
            "max_tokens": 100,
            "start": 0,
            "nonce_commitment": nonce_commitment(nonce),
            "seed_ticket": number.to_bytes(16, "big"),
            "price_in": 100,
            "price_out": 400,
            "issued_at": 0,
            "expires_at": (1 << 62),
            "epoch": 1,
        }
        return Ticket(**(fields | changes))

    async def run_job(
        self, ticket: Ticket, register: Register, grammar: bytes | None = None
    ) -> ClientStream:
        """Stream one answer to its receipt; RemoteError if the node refuses or fails."""
        end = ClientStream(ticket, nonce_of(int.from_bytes(ticket.ticket, "big")), CLIENT)
        first = end.start(seal(COORDINATOR, ticket), pack_tokens(PROMPT), grammar)
        async with self.client.open(
            ticket.node, JOB, first, 5.0, addresses=register.addresses
        ) as frames:
            while end.receipt_blob is None:
                step = end.receive(await frames.receive(5.0))
                if step.reply is not None:
                    await frames.send(step.reply)
            await frames.finish()
        return end


@dataclass
class NodeTask:
    """A node under test: its exit code once it has ended."""

    code: int | None = None
    register: Any = None
    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)


def memory_host(
    network: MemoryNetwork, seed: bytes, listen: tuple[str, ...]
) -> AbstractAsyncContextManager[Host]:
    transport = network.transport(Identity(seed).public_key)
    return open_host(seed, listen, transports=[transport])


def nonce_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def node_key(directory: Path) -> bytes:
    from assay_network.keystore import load_key

    return Identity(load_key(directory / "node.key")).public_key


@asynccontextmanager
async def open_world(directory: Path) -> AsyncIterator[World]:
    network = MemoryNetwork()
    async with (
        memory_host(network, COORDINATOR.seed, (network.address(),)) as coordinator,
        memory_host(network, CLIENT.seed, ()) as client,
        trio.open_nursery() as nursery,
    ):
        yield World(network, nursery, FakeCoordinator(coordinator), client, directory)
        nursery.cancel_scope.cancel()
