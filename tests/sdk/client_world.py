"""A small pure world for the SDK's tests: a coordinator that issues tickets and nodes that draw.

The "model" is a function of (seed, position, whole context), so a resumed answer equals the
unbroken one only if prompt, seed and position were all carried over exactly.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field, replace

from assay.events import Job
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.hashing import job_seed, unpack_tokens
from assay_protocol.messages import (
    AbandonJob,
    Progress,
    Route,
    Sampler,
    StartJob,
    SubmitJob,
    SubmitReceipt,
    Ticket,
    TicketGrant,
)
from assay_protocol.signing import Identity, open_signed, seal
from assay_protocol.streams import NodeStream, Times
from assay_protocol.tickets import check_start, open_ticket

COORDINATOR = Identity(b"\x01" * 32)
CLIENT = Identity(b"\x02" * 32)
MODEL = b"\x03" * 32
NONCE = bytes(range(32))
GREEDY = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
VOCABULARY = 512
END = 7


def node_key(index: int) -> Identity:
    return Identity(bytes([100 + index]) * 32)


def make_job(**changes: object) -> Job:
    job = Job(model=MODEL, prompt=(11, 12, 13), sampler=GREEDY, max_tokens=100, nonce=NONCE)
    return replace(job, **changes)  # type: ignore[arg-type]  # tests name real fields


def draw(seed: bytes, position: int, context: tuple[int, ...]) -> int:
    """One token in [8, VOCABULARY), never END."""
    data = seed + position.to_bytes(4, "little") + repr(context).encode()
    return 8 + int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little") % 500


def unbroken(seed_ticket: bytes, job: Job, end_at: int | None = None) -> tuple[int, ...]:
    """The answer of a single node that never fails; END comes at position `end_at`."""
    seed, context = job_seed(seed_ticket, job.nonce), list(job.prompt)
    for position in range(job.max_tokens):
        if position == end_at:
            return (*context[len(job.prompt) :], END)
        context.append(draw(seed, position, tuple(context)))
    return tuple(context[len(job.prompt) :])


@dataclass(slots=True)
class FakeCoordinator:
    """Issues tickets in turn for the nodes not excluded, and keeps what is handed in."""

    nodes: int = 4
    changes: dict[int, dict[str, object]] = field(default_factory=dict)  # by ticket number from 1
    tickets: dict[bytes, Ticket] = field(default_factory=dict)
    asked: list[SubmitJob] = field(default_factory=list)
    handed_in: list[SubmitReceipt | AbandonJob] = field(default_factory=list)

    def grant(self, asked: SubmitJob, client: bytes = CLIENT.public_key) -> TicketGrant:
        self.asked.append(asked)
        keys = [node_key(i).public_key for i in range(self.nodes)]
        free = [key for key in keys if key not in asked.exclude]
        if asked.only:
            free = [key for key in keys if key in asked.only]
        if not free:
            raise AssayError("no_capacity", retry_after_ms=500)
        ticket_id = len(self.asked).to_bytes(16, "big")
        start, seed_ticket = 0, ticket_id
        if asked.resume is not None:
            start, seed_ticket = self._resumed(asked)
        ticket = Ticket(
            ticket=ticket_id,
            client=client,
            node=free[0],
            model=asked.model,
            prompt_hash=asked.prompt_hash,
            n_in=asked.n_in,
            sampler=asked.sampler,
            max_tokens=asked.max_tokens,
            start=start,
            nonce_commitment=asked.nonce_commitment,
            seed_ticket=seed_ticket,
            price_in=1_000,
            price_out=2_000,
            issued_at=0,
            expires_at=1 << 60,
            epoch=1,
        )
        ticket = replace(ticket, **self.changes.get(len(self.asked), {}))  # type: ignore[arg-type]
        self.tickets[ticket.ticket] = ticket
        route = Route(node=free[0], addresses=("/memory/1",))
        return TicketGrant(ticket=seal(COORDINATOR, ticket), route=route)

    def take(self, body: SubmitReceipt | AbandonJob) -> None:
        self.handed_in.append(body)

    def _resumed(self, asked: SubmitJob) -> tuple[int, bytes]:
        """What the real one checks: the resume point is signed for, and the counts add up."""
        assert asked.resume is not None
        before = self.tickets[asked.resume.ticket]
        if asked.resume.progress is not None:
            progress = open_signed(Progress, asked.resume.progress, before.node)
            assert progress.ticket == before.ticket
            assert progress.count <= asked.resume.count
        assert asked.nonce_commitment == before.nonce_commitment
        assert asked.max_tokens == before.max_tokens - asked.resume.count
        assert asked.n_in == before.n_in + asked.resume.count
        return before.start + asked.resume.count, before.seed_ticket


class FakeNode:
    """One job on one node: frames out, frames in."""

    def __init__(
        self,
        first: bytes,
        end_at: int | None = None,
        chunk: int = 3,
        client: bytes = CLIENT.public_key,
    ) -> None:
        start = decode_as(StartJob, first)
        ticket = open_ticket(start.ticket, COORDINATOR.public_key)
        self.key = next(k for k in map(node_key, range(32)) if k.public_key == ticket.node)
        prompt = check_start(ticket, start, node=self.key.public_key, client=client, now_us=1)
        self.stream = NodeStream(ticket, start.nonce, self.key, "test/cpu")
        self.ticket, self._context, self._end_at, self._chunk = ticket, list(prompt), end_at, chunk
        self._seed = job_seed(ticket.seed_ticket, start.nonce)
        self.reason: str | None = None
        self.receipt: bytes | None = None

    def step(self, most: int | None = None) -> bytes:
        """The next frame: up to `most` tokens, or the receipt."""
        if self.stream.cancelled:
            self.reason = "cancelled"
        room = min(most or self._chunk, self.stream.room)
        tokens = [] if self.reason else self._draw(room)
        if tokens:
            asked = self.ticket.sampler.logprobs
            told = [(t, -0.5, *(t, -0.5) * asked) for t in tokens] if asked is not None else []
            logprobs = b"".join(struct.pack("<" + "If" * (len(one) // 2), *one) for one in told)
            count = len(tokens)
            return self.stream.chunk(tuple(tokens), bytes(4 * count), bytes(10 * count), logprobs)
        assert self.reason, "the client does not acknowledge"
        frame, self.receipt = self.stream.finish(self.reason, Times(1, 2, 3))
        return frame

    def _draw(self, room: int) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < room and self.reason is None:
            position = self.ticket.start + self.stream.count + len(tokens)
            ended = position == self._end_at
            token = END if ended else draw(self._seed, position, tuple(self._context))
            self._context.append(token)
            tokens.append(token)
            if ended:
                self.reason = "stop"
            elif self.stream.count + len(tokens) == self.ticket.max_tokens:
                self.reason = "length"
        return tokens


def tokens_of(data: bytes) -> tuple[int, ...]:
    return unpack_tokens(data)
