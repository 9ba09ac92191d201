"""A small pure world for the SDK's tests: a coordinator that issues tickets and nodes that draw.

The "model" is a function of (seed, position, whole context), so a resumed answer equals the
unbroken one only if prompt, seed and position were all carried over exactly.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from assay.events import Job
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.hashing import (
    commitment,
    job_seed,
    unpack_tokens,
)
from assay_protocol.messages import (
    AbandonJob,
    AuditReveal,
    AuditStatement,
    FindingRecord,
    JobVerdict,
    LeavesOpened,
    Progress,
    Receipt,
    Route,
    Sampler,
    Standing,
    StartJob,
    SubmitJob,
    SubmitReceipt,
    Ticket,
    TicketGrant,
    VerdictRecord,
)
from assay_protocol.signing import Identity, open_signed, peek, seal
from assay_protocol.streams import NodeStream, Times
from assay_protocol.tickets import check_start, open_ticket
from told_cases import told_of

COORDINATOR = Identity(b"\x01" * 32)
CLIENT = Identity(b"\x02" * 32)
AUDITOR, SECOND_AUDITOR = Identity(b"\x09" * 32), Identity(b"\x0a" * 32)
STANDING = Standing(
    state="active",
    audits_passed=300,
    audits_failed=0,
    audit_bps=500,
    at_risk=1_500_000,
    class_id="test/cpu",
    exact=False,
)
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
    """Issues tickets in turn for the nodes not excluded, and keeps what is handed in.

    It tells a verdict once it was asked `undecided` times: that of `outcomes`, or that it passed.
    """

    nodes: int = 4
    standing: Standing | None = STANDING
    undecided: int = 2
    outcomes: dict[bytes, str] = field(default_factory=dict)
    false_statement: bool = False  # its auditor spoke about another answer
    questions: list[bytes] = field(default_factory=list)
    changes: dict[int, dict[str, object]] = field(default_factory=dict)  # by ticket number from 1
    tickets: dict[bytes, Ticket] = field(default_factory=dict)
    asked: list[SubmitJob] = field(default_factory=list)
    handed_in: list[SubmitReceipt | AbandonJob] = field(default_factory=list)

    def grant(self, asked: SubmitJob, client: bytes = CLIENT.public_key) -> TicketGrant:
        self.asked.append(asked)
        keys = [node_key(i).public_key for i in range(self.nodes)]
        free = [key for key in keys if key not in asked.exclude]
        if asked.only:
            free = [key for key in free if key in asked.only]
        if not free:
            raise AssayError("no_capacity", retry_after_ms=500)
        ticket_id = len(self.asked).to_bytes(16, "big")
        start, seed_ticket = 0, ticket_id
        if asked.resume is not None:
            start, seed_ticket = self._resumed(asked)
        elif asked.twin is not None:
            seed_ticket, free = self._twin(asked, free)
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
        blob = seal(COORDINATOR, ticket)
        return TicketGrant(ticket=blob, route=route, standing=self.standing)

    def verdict(self, ticket: bytes) -> JobVerdict:
        self.questions.append(ticket)
        state = JobVerdict(ticket=ticket, state="drawn", outcome="", statements=())
        receipt = self.receipt_of(ticket)
        if receipt is None or self.questions.count(ticket) <= self.undecided:
            return state
        outcome = self.outcomes.get(ticket, "passed")
        if outcome != "passed":
            return replace(state, outcome=outcome)
        about = peek(Receipt, receipt)
        if self.false_statement:
            about = replace(about, output_hash=bytes(32))
        told = statement(AUDITOR, about, b"\x05" * 32)
        return replace(state, outcome=outcome, statements=(told,), auditors=(AUDITOR.public_key,))

    def receipt_of(self, ticket: bytes) -> bytes | None:
        taken = [one.receipt for one in self.handed_in if isinstance(one, SubmitReceipt)]
        return next((one for one in taken if peek(Receipt, one).ticket == ticket), None)

    def take(self, body: SubmitReceipt | AbandonJob) -> None:
        self.handed_in.append(body)

    def _twin(self, asked: SubmitJob, free: list[bytes]) -> tuple[bytes, list[bytes]]:
        """What the real one checks: the same job of the same client, elsewhere."""
        assert asked.twin is not None
        first = self.tickets[asked.twin]
        for name in ("model", "prompt_hash", "n_in", "sampler", "max_tokens", "nonce_commitment"):
            assert getattr(first, name) == getattr(asked, name), name
        elsewhere = [key for key in free if key != first.node]
        if not elsewhere:
            raise AssayError("no_capacity", retry_after_ms=500)
        return first.seed_ticket, elsewhere

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
        deviate_at: int | None = None,
        says: Callable[[tuple[int, ...]], Sequence[int]] | None = None,
        lie: float = 0.0,
        class_id: str = "test/cpu",
    ) -> None:
        start = decode_as(StartJob, first)
        ticket = open_ticket(start.ticket, COORDINATOR.public_key)
        self.key = next(k for k in map(node_key, range(32)) if k.public_key == ticket.node)
        prompt = check_start(ticket, start, node=self.key.public_key, client=client, now_us=1)
        self.stream = NodeStream(ticket, start.nonce, self.key, class_id)
        self._prompt, self._lie = prompt, lie
        self.ticket, self._context, self._end_at, self._chunk = ticket, list(prompt), end_at, chunk
        self._seed = job_seed(ticket.seed_ticket, start.nonce)
        self._said = None if says is None else says(tuple(prompt))  # in the place of draws
        if self._said is not None:
            self._end_at = len(self._said)
        self._deviate_at = deviate_at
        self.reason: str | None = None
        self.receipt: bytes | None = None

    def step(self, most: int | None = None) -> bytes:
        """The next frame: up to `most` tokens, or the receipt."""
        if self.stream.cancelled:
            self.reason = "cancelled"
        if self.stream.untold and not self.stream.cancelled:
            begin = len(self._prompt) - self.stream.untold
            end = min(begin + (most or self._chunk), len(self._prompt))
            rivals = self.ticket.sampler.prompt_logprobs
            assert rivals is not None
            return self.stream.tell(told_of(self._prompt[begin:end], rivals, self._lie))
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
            if ended or self._said is None:
                token = END if ended else draw(self._seed, position, tuple(self._context))
            else:
                token = self._said[position]
            if position == self._deviate_at:
                token = 8 if token != 8 else 9
            self._context.append(token)
            tokens.append(token)
            if ended:
                self.reason = "stop"
            elif self.stream.count + len(tokens) == self.ticket.max_tokens:
                self.reason = "length"
        return tokens


def statement(auditor: Identity, receipt: Receipt, bound: bytes, audit: bytes = bytes(16)) -> bytes:
    """An auditor's signed word on the answer of `receipt`, bound to the commitment `bound`."""
    said = AuditStatement(
        audit=audit,
        ticket=receipt.ticket,
        output_hash=receipt.output_hash,
        commitment=bound,
    )
    return seal(auditor, said)


def verdict_record(
    ticket: bytes, receipt: bytes, opened: LeavesOpened, reveals: dict[Identity, AuditReveal]
) -> VerdictRecord:
    """The record of an answer that passed, with what each auditor revealed."""
    about, findings = peek(Receipt, receipt), []
    for auditor, reveal in reveals.items():
        bound = commitment(reveal.nonce, encode(reveal))
        said = statement(auditor, about, bound, reveal.audit)
        findings.append(
            FindingRecord(auditor=auditor.public_key, statement=said, reveal=encode(reveal))
        )
    return VerdictRecord(
        ticket=ticket,
        receipt=receipt,
        outcome="passed",
        findings=tuple(findings),
        opened=encode(opened),
    )


def tokens_of(data: bytes) -> tuple[int, ...]:
    return unpack_tokens(data)
