"""A node core on the bench: honest tickets, a scripted engine's results, no I/O."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.node import Node, Profile
from assay_node.core.parameters import Parameters, Served
from assay_node.engine.interface import Chunk, Replayed
from assay_protocol.codec import decode, encode
from assay_protocol.hashing import nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.messages import (
    Error,
    HeartbeatAck,
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

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
MODEL = b"m" * 32
END = 0
NODE, CLIENT, COORDINATOR = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
SAMPLER = Sampler(temperature=0.7, top_k=0, top_p=1.0, min_p=0.05)
SERVED = Served(MODEL, "scripted", 2, 64, 100, frozenset({END}), 1000, 1000)
PROFILE = Profile(NODE.public_key, ("/ip4/127.0.0.1/tcp/1",), "test", "scripted")


def nonce_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def make_ticket(number: int, prompt: tuple[int, ...] = (5, 6, 7), **changes: Any) -> Ticket:
    nonce, packed = nonce_of(number), pack_tokens(prompt)
    fields: dict[str, Any] = {
        "ticket": number.to_bytes(16, "big"),
        "client": CLIENT.public_key,
        "node": NODE.public_key,
        "model": MODEL,
        "prompt_hash": prompt_hash(nonce, packed),
        "n_in": len(prompt),
        "sampler": SAMPLER,
        "max_tokens": 8,
        "start": 0,
        "nonce_commitment": nonce_commitment(nonce),
        "seed_ticket": number.to_bytes(16, "big"),
        "price_in": 100,
        "price_out": 400,
        "issued_at": NOW,
        "expires_at": NOW + 600 * SECOND,
        "epoch": 1,
    }
    return Ticket(**(fields | changes))


@dataclass
class Bench:
    """A registered node, its effects so far, and a client for every job."""

    node: Node
    now: int = NOW
    done: list[do.Effect] = field(default_factory=list)

    def post(self, event: on.Event) -> list[do.Effect]:
        effects = self.node.handle(self.now, event)
        self.done += effects
        return effects

    def later(self, microseconds: int) -> list[do.Effect]:
        self.now += microseconds
        return self.post(on.Tick())

    def register(self, heartbeat_ms: int = 5_000) -> None:
        [request] = self.requests(self.post(on.SessionUp()), Register)
        answer = Registered(
            heartbeat_ms=heartbeat_ms, lease_ms=20_000, state="active", now_at=self.now
        )
        self.post(on.Answered(request.request, encode(answer)))

    def answer_heartbeat(self, effects: list[do.Effect], **changes: Any) -> None:
        for effect in effects:
            if isinstance(effect, do.Request) and type(decode(effect.body)).__name__ == "Heartbeat":
                standing: dict[str, Any] = {
                    "state": "active",
                    "audits_passed": 0,
                    "audits_failed": 0,
                }
                ack = HeartbeatAck(**(standing | {"earned": 0, "escrow": 0} | changes))
                self.post(on.Answered(effect.request, encode(ack)))

    def start(self, stream: int, ticket: Ticket, prompt: tuple[int, ...] = (5, 6, 7)) -> Client:
        number = int.from_bytes(ticket.ticket, "big")
        client = Client(self, stream, ClientStream(ticket, nonce_of(number), CLIENT))
        blob = seal(COORDINATOR, ticket)
        frame = client.end.start(blob, pack_tokens(prompt))
        client.hear(self.post(on.StreamOpened(stream, CLIENT.public_key, frame)))
        return client

    @staticmethod
    def requests(effects: list[do.Effect], kind: type) -> list[do.Request]:
        found = [effect for effect in effects if isinstance(effect, do.Request)]
        return [request for request in found if isinstance(decode(request.body), kind)]

    def of(self, kind: type, effects: list[do.Effect] | None = None) -> list[Any]:
        return [e for e in (self.done if effects is None else effects) if isinstance(e, kind)]

    def save_all(self) -> list[do.Effect]:
        """Report every save not yet reported."""
        saves = self.of(do.SaveReceipt)
        self.done = [e for e in self.done if not isinstance(e, do.SaveReceipt)]
        return [e for save in saves for e in self.post(on.ReceiptSaved(save.ticket))]

    def book(self, effects: list[do.Effect]) -> list[do.Effect]:
        booked: list[do.Effect] = []
        for request in self.requests(effects, SubmitReceipt):
            message = decode(request.body)
            assert isinstance(message, SubmitReceipt)
            ticket = peek(Receipt, message.receipt).ticket
            answer = encode(ReceiptBooked(ticket=ticket, charged=7))
            booked += self.post(on.Answered(request.request, answer))
        return booked

    def notices(self, effects: list[do.Effect]) -> list[Any]:
        return [decode(effect.body) for effect in effects if isinstance(effect, do.Notify)]


@dataclass
class Client:
    """The client's end of one stream; `hear` gives it what the node sent."""

    bench: Bench
    stream: int
    end: ClientStream
    replies: list[bytes] = field(default_factory=list)

    def hear(self, effects: list[do.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, do.SendFrame) and effect.stream == self.stream:
                step = self.end.receive(effect.frame)
                if step.reply is not None:
                    self.replies.append(step.reply)

    def draw(self, *tokens: int, finish: Any = None) -> list[do.Effect]:
        asked = self.end.ticket.sampler.logprobs
        told = [] if asked is None else [(t, -1.0, *(t, -1.0) * asked) for t in tokens]
        logprobs = b"".join(struct.pack("<" + "If" * (len(one) // 2), *one) for one in told)
        chunk = Chunk(tokens=tokens, finish=finish, logprobs=logprobs, **numbers_of(tokens))
        effects = self.bench.post(on.Drawn(self.stream, chunk))
        self.hear(effects)
        return effects

    def reply(self) -> list[do.Effect]:
        """Send the acknowledgements that wait."""
        effects: list[do.Effect] = []
        while self.replies:
            effects += self.bench.post(on.StreamFrame(self.stream, self.replies.pop(0)))
        self.hear(effects)
        return effects


def make_bench(registered: bool = True, **changes: Any) -> Bench:
    options: dict[str, Any] = {
        "signer": NODE,
        "coordinator": COORDINATOR.public_key,
        "served": (SERVED,),
        "profile": PROFILE,
        "seed": b"s" * 32,
        "parameters": Parameters(queue_max=1, audits_max=2),
    }
    bench = Bench(Node(**(options | changes)))
    if registered:
        bench.register()
    return bench


def code_of(effects: list[do.Effect]) -> str:
    """Of the one refusal among them."""
    [frame] = [effect for effect in effects if isinstance(effect, do.SendFrame)]
    error = decode(frame.frame)
    assert isinstance(error, Error)
    return error.code


def finished_job(bench: Bench, number: int = 1, stream: int = 1) -> Client:
    """A whole job: five tokens and the end token, acknowledged."""
    client = bench.start(stream, make_ticket(number))
    client.draw(11, 12, 13)
    client.draw(14, 15, END, finish="stop")
    client.reply()
    return client


def numbers_of(tokens: tuple[int, ...]) -> dict[str, bytes]:
    """A logit and a sketch for each token, as an honest engine and its auditor both find them."""
    sketches = b"".join(bytes([token % 128]) * SKETCH_BYTES for token in tokens)
    return {"logits": struct.pack(f"<{len(tokens)}f", *tokens), "sketches": sketches}


def honest_replay(output: tuple[int, ...]) -> Replayed:
    zero = (0.0,) * len(output)
    return Replayed(drawn=output, margins=zero, gaps=zero, **numbers_of(output))
