"""Real hosts over the in-memory transport: a coordinator and nodes for the clients' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from assay_network.frames import Frames
from assay_network.host import open_host
from assay_network.memory import MemoryNetwork
from assay_network.session import Session, serve_sessions
from assay_protocol import messages as m
from assay_protocol.cards import ModelCard, card_digest, decode_card, encode_card
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError
from assay_protocol.links import JOB, SESSION
from assay_protocol.signing import Identity, peek
from sdk.client_world import COORDINATOR, END, MODEL, VOCABULARY, FakeCoordinator, FakeNode

CARD = ModelCard(
    name="toy",
    digest=MODEL,
    size_bytes=1,
    architecture="toy",
    quantization="none",
    context=4_096,
    n_vocab=VOCABULARY,
    bos=None,
    eos=END,
    add_bos=False,
    eog=(END,),
    tokenizer_model="none",
    tokenizer_pre="none",
    pieces=tuple(b"" if i == END else f"{i} ".encode() for i in range(VOCABULARY)),
    token_types=bytes(3 if i == END else 1 for i in range(VOCABULARY)),
    merges=(),
    texts=((END, "<end>"),),
    chat_template="",
    license="none",
    source=None,
    price_in=1_000,
    price_out=2_000,
)
PART_BYTES = 1_000


@dataclass(slots=True)
class FakeNetwork:
    """`lose_after[i]`: the i-th node cuts each stream after so many tokens. `deviate[i]`: it draws
    another token there. `says`: the tokens that follow a prompt. `record` and `credit`: the bytes
    of the parts "verdict" and "credit"."""

    coordinator: FakeCoordinator = field(default_factory=FakeCoordinator)
    lose_after: dict[int, int] = field(default_factory=dict)
    deviate: dict[int, int] = field(default_factory=dict)
    record: bytes = b""
    credit: bytes | None = None
    pause: float = 0.01
    card: bytes = encode_card(CARD)
    card_name: bytes = card_digest(encode_card(CARD))
    end_at: int | None = None
    says: Callable[[tuple[int, ...]], Sequence[int]] | None = None
    parts: int = 0
    firsts: list[bytes] = field(default_factory=list)  # each job's first frame
    sessions: list[Session] = field(default_factory=list)
    address: str = ""
    node_addresses: dict[bytes, tuple[str, ...]] = field(default_factory=dict)

    def on_open(self, session: Session):  # type: ignore[no-untyped-def]  # a frame handler
        self.sessions.append(session)
        return self.on_frame

    def on_frame(self, session: Session, request: int, body: bytes) -> None:
        try:
            answer = self.answer(session.peer, decode(body))
        except AssayError as error:
            answer = m.Error(
                code=error.code, detail=error.message, retry_after_ms=error.retry_after_ms
            )
        session.reply(request, encode(answer))

    def answer(self, peer: bytes, message: object) -> object:
        match message:
            case m.SubmitJob():
                grant = self.coordinator.grant(message, client=peer)
                node = grant.route.node
                return replace(grant, route=m.Route(node=node, addresses=self.node_addresses[node]))
            case m.SubmitReceipt():
                self.coordinator.take(message)
                ticket = peek(m.Receipt, message.receipt).ticket
                return m.ReceiptBooked(ticket=ticket, charged=1)
            case m.AbandonJob():
                self.coordinator.take(message)
                return m.Done()
            case m.GetModels():
                return m.Models(models=(self.summary(),))
            case m.GetAccount():
                return m.Account(key=peer, available=7, reserved=0, escrow=0, earned=0)
            case m.GetNetwork():
                return m.Network(nodes=(), jobs=3, audits=1, epoch=2, epoch_root=b"", treasury=0)
            case m.GetVerdict():
                return self.coordinator.verdict(message.ticket)
            case m.GetPart(what="verdict"):
                data = self.record[message.offset : message.offset + PART_BYTES]
                return m.Part(total=len(self.record), data=data)
            case m.GetPart(what="credit"):
                if self.credit is None:
                    raise AssayError("proof_invalid", "no epoch is on the chain yet")
                data = self.credit[message.offset : message.offset + PART_BYTES]
                return m.Part(total=len(self.credit), data=data)
            case m.GetPart():
                self.parts += 1
                data = self.card[message.offset : message.offset + PART_BYTES]
                return m.Part(total=len(self.card), data=data)
        raise AssayError("unexpected_message")

    def summary(self) -> m.ModelSummary:
        card = decode_card(self.card)
        return m.ModelSummary(
            name="toy",
            model=card.model,
            card=self.card_name,
            context=4_096,
            price_in=1_000,
            price_out=2_000,
            nodes=2,
            free_slots=2,
            image_tokens=None if card.vision is None else card.vision.tokens,
        )

    async def serve_job(self, index: int, peer: bytes, frames: Frames) -> None:
        first = await frames.receive(10)
        self.firsts.append(first)
        deviate = self.deviate.get(index)
        node = FakeNode(first, self.end_at, client=peer, deviate_at=deviate, says=self.says)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_take, node, frames)
            while node.receipt is None:
                after = self.lose_after.get(index)
                if after is not None and node.stream.count >= after:
                    raise AssayError("engine_failed")
                if not node.stream.room:
                    await trio.sleep(self.pause)
                    continue
                await frames.send(node.step())
                await trio.sleep(self.pause)
            await frames.finish()
            await trio.sleep(self.pause)
            nursery.cancel_scope.cancel()


async def _take(node: FakeNode, frames: Frames) -> None:
    try:
        while True:
            node.stream.receive(await frames.receive())
    except AssayError:
        return


@asynccontextmanager
async def running(
    fake: FakeNetwork, memory: MemoryNetwork | None, nodes: list[Identity]
) -> AsyncIterator[FakeNetwork]:
    """Hosts in memory, or on loopback without a MemoryNetwork."""

    def where(key: Identity) -> tuple[list[str], list[object] | None]:
        if memory is None:
            return ["/ip4/127.0.0.1/tcp/0"], None
        return [memory.address()], [memory.transport(key.public_key)]

    listen, transports = where(COORDINATOR)
    async with open_host(COORDINATOR.seed, listen, transports=transports) as host:
        fake.address = host.addresses[0]
        serve_sessions(host, SESSION, fake.on_open, lambda _: None)
        async with _nodes(fake, nodes, where):
            yield fake


@asynccontextmanager
async def _nodes(fake: FakeNetwork, nodes: list[Identity], where) -> AsyncIterator[None]:  # type: ignore[no-untyped-def]  # a local function
    if not nodes:
        yield
        return
    index = len(fake.node_addresses)
    listen, transports = where(nodes[0])
    async with open_host(nodes[0].seed, listen, transports=transports) as host:
        fake.node_addresses[host.public_key] = host.addresses
        host.serve(JOB, lambda peer, frames: fake.serve_job(index, peer, frames))
        async with _nodes(fake, nodes[1:], where):
            yield
