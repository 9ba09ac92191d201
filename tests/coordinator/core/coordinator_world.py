"""A pure network around the coordinator's core: a store, scripted nodes, auditors and clients.

Everything is a real message with real signatures; only the model is a stand-in: token and logit of
a position are a function of the job's seed, so any node can replay any other. Nodes cheat by
script. The store applies `Save` effects to tables by `KEY` and builds `Stored` back from them, so a
coordinator can crash after any event.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from assay_contracts.credit.readers import MinedNote
from assay_coordinator.core.calibration import Tables
from assay_coordinator.core.coordinator import Coordinator, Listed, Stored
from assay_coordinator.core.epochs import StoredEpochs
from assay_coordinator.core.events import (
    Effect,
    Event,
    Log,
    Notify,
    PeerLost,
    PostEpoch,
    PostRound,
    Received,
    Reply,
    RoundMined,
    Save,
    Tick,
)
from assay_coordinator.core.jobs import OPEN
from assay_coordinator.core.ledger import Purse
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import (
    ROWS,
    AuditRow,
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LeavesRow,
    LineRow,
    NodeRow,
    PostingRow,
    PricingRow,
    RoundRow,
    RulesRow,
)
from assay_coordinator.core.rules import SignedPolicy
from assay_coordinator.core.statements import Statements
from assay_protocol import messages as m
from assay_protocol.classes import holds_logprobs
from assay_protocol.codec import decode, decode_as, encode
from assay_protocol.hashing import (
    commitment,
    job_seed,
    leaf_hashes,
    nonce_commitment,
    pack_tokens,
    prompt_hash,
    unpack_tokens,
)
from assay_protocol.leaves import leaves_of
from assay_protocol.lottery import AnchorNote
from assay_protocol.signing import Identity, seal
from assay_protocol.sketches import sketch
from assay_protocol.streams import ClientStream, NodeStream, Times
from assay_protocol.tickets import open_ticket
from told_cases import tell

COORDINATOR = Identity(b"\x01" * 32)
OPERATOR = Identity(b"\x02" * 32)
MODEL = b"\x03" * 32
GREEDY = m.Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
GAP = 150  # code of every draw's gap: 0.8 logits, which drift hardly ever bridges
SECOND = 1_000_000
START = 1_000_000 * SECOND
SUSPENSION_US = 600 * SECOND
POLICY = Policy(
    probation_audits=4,
    reaudit_bps=0,
    suspension_us=SUSPENSION_US,
    holdback_us=0,
    holdback_jobs=3,
    experienced_audits=8,
    open_tickets_max=64,
    gain_bps=0,  # draws by the record alone
    round_receipts=1,  # every receipt has a round of its own, drawn at once while the chain is up
    links=64,
    operators=frozenset({OPERATOR.public_key}),
)
LISTED = Listed(
    name="pseudo", model=MODEL, card=b"\x04" * 32, context=8_192, price_in=1_000, price_out=2_000
)


def identity(index: int) -> Identity:
    return Identity(index.to_bytes(2, "big") * 16)


def truth(seed: bytes, position: int) -> tuple[int, float]:
    """The model's token at `position` of the job of `seed`, and that token's logit."""
    word = hashlib.blake2b(seed + position.to_bytes(4, "little"), digest_size=8).digest()
    return 8 + int.from_bytes(word[:4], "little") % 500, int.from_bytes(word[4:], "little") / 2**28


def pack_logits(values: Iterable[float]) -> bytes:
    listed = list(values)
    return struct.pack(f"<{len(listed)}f", *listed)


def sketches_of(values: Iterable[float]) -> bytes:
    """As far apart, in their length, as the logits are."""
    listed = np.array(list(values), np.float32)
    pairs = np.zeros((len(listed), 16), np.float32)
    pairs[:, ::2] = listed[:, None]
    return sketch(pairs)


# ---- the store --------------------------------------------------------------------------------


class FakeStore:
    """Tables by row class and primary key."""

    def __init__(self) -> None:
        self.tables: dict[type, dict[tuple[Any, ...], Any]] = {cls: {} for cls in ROWS}

    def apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Save):
                row, table = effect.row, self.tables[type(effect.row)]
                key = tuple(getattr(row, name) for name in row.KEY)
                assert not (
                    isinstance(row, PostingRow | LeavesRow | LineRow | AuditRow) and key in table
                )
                table[key] = row

    def rows(self, cls: type[Any]) -> list[Any]:
        return list(self.tables[cls].values())

    def lines(self, epoch: int) -> list[LineRow]:
        rows: list[LineRow] = [line for line in self.rows(LineRow) if line.epoch == epoch]
        return sorted(rows, key=lambda line: (line.account, line.role, line.position))

    def load(self, now: int) -> Stored:
        epochs = sorted(self.rows(EpochRow), key=lambda row: row.epoch)
        running = epochs[-1].epoch + 1 if epochs else 1
        undrawn = [row for row in self.rows(RoundRow) if row.state != "drawn"]
        rounds = [row.number for row in undrawn] or [len(self.tables[RoundRow]) + 1]
        first = min(rounds)
        return Stored(
            nodes=self.rows(NodeRow),
            balances=self.rows(BalanceRow),
            credit=self.rows(CreditRow),
            jobs=[j for j in self.rows(JobRow) if j.state in OPEN or j.deadline_at > now],
            epochs=StoredEpochs(
                last=epochs[-1] if epochs else None,
                unposted=[row for row in epochs if row.state != "posted"],
                statements=Statements.of(self.lines(running)),
                pricings=sorted(self.rows(PricingRow), key=lambda row: row.epoch)[-2:],
            ),
            next_posting=max((p.seq for p in self.rows(PostingRow)), default=0) + 1,
            audits=len(self.tables[AuditRow]),
            last_round=max((row.number for row in self.rows(RoundRow)), default=0),
            undrawn=undrawn,
            entries=[job for job in self.rows(JobRow) if job.round >= first],
            rules=next(iter(self.rows(RulesRow)), None),
        )


# ---- the chain --------------------------------------------------------------------------------


class FakeChain:
    """Takes each round once and says in which block; readable as the real ones are."""

    POSTER = b"\x0a" * 20

    def __init__(self) -> None:
        self.notes_in: list[bytes] = [b""]  # by block, one each
        self._rounds: dict[int, RoundMined] = {}

    def take(self, post: PostRound) -> RoundMined:
        anchor = AnchorNote(post.chain, post.links, 0, post.anchor).encode()
        if anchor not in self.notes_in:
            self.notes_in.append(anchor)
        if post.number not in self._rounds:
            self.notes_in.append(post.note)
            block = len(self.notes_in) - 1
            names = (self._name(self.notes_in.index(anchor)), self._name(block))
            self._rounds[post.number] = RoundMined(post.number, *names, block, self._name(block))
        mined = self._rounds[post.number]
        assert self.notes_in[mined.block] == post.note, "a round is posted as it was closed"
        return mined

    def transaction(self, name: bytes) -> MinedNote | None:
        found = [n for n in range(1, len(self.notes_in)) if self._name(n) == name]
        return self.notes(found[0])[0] if found else None

    def block_hash(self, number: int) -> bytes | None:
        return self._name(number) if number < len(self.notes_in) else None

    def notes(self, number: int) -> tuple[MinedNote, ...]:
        return (MinedNote(self.POSTER, self.POSTER, self.notes_in[number], number),)

    def _name(self, number: int) -> bytes:
        """A block and its one transaction share a name here."""
        data = self.notes_in[number] + number.to_bytes(8)
        return hashlib.blake2b(data, digest_size=32).digest()


# ---- nodes ------------------------------------------------------------------------------------


@dataclass
class ScriptedNode:
    """A node that serves, keeps transcripts and audits; its flags say how it cheats."""

    me: Identity
    operator: bytes
    class_id: str = "pseudo"
    wrong: float = 0.0  # share of tokens another model writes
    noise: float = 0.02  # logits differ by up to this
    loses: bool = False  # has no transcripts when asked
    opens_wrong: bool = False  # opens other leaves than it signed
    garbles: bool = False  # hands over another transcript than it signed
    lies: bool = False  # as an auditor, calls every answer wrong
    copies: bool = False  # as an auditor, calls every answer right without computing
    spites: bool = False  # as an auditor, computes all and still calls every answer wrong
    mute: bool = False  # as an auditor, commits without a signature
    flips: frozenset[int] = frozenset()  # jobs of its own, by number, with one bit wrong
    silent: bool = False  # as an auditor, accepts and then says nothing
    busy: bool = False  # as an auditor, declines every task
    bad_key: bool = False  # as an auditor, gives a box key nobody can seal to
    served: dict[bytes, tuple[m.TranscriptBody, NodeStream]] = field(default_factory=dict)
    tasks: dict[bytes, m.AuditTask] = field(default_factory=dict)
    reveals: dict[bytes, m.AuditReveal] = field(default_factory=dict)
    friend: ScriptedNode | None = None  # as an auditor, says of its answers what suits it
    times: Times = field(default_factory=lambda: Times(START, START + 1, START + 2))  # of a job

    @property
    def key(self) -> bytes:
        return self.me.public_key

    def _noisy(self, label: bytes, seed: bytes, position: int) -> float:
        word = hashlib.blake2b(label + self.key + seed + position.to_bytes(4, "little")).digest()
        return int.from_bytes(word[:4], "little") / 2**32

    def draw(self, seed: bytes, position: int, flipped: bool = False) -> tuple[int, float]:
        token, logit = truth(seed, position)
        if flipped and position == 3:
            return token, logit + 1e-3
        if self._noisy(b"wrong", seed, position) < self.wrong:
            return token + 1, logit + 3.0
        return token, logit + self.noise * (2 * self._noisy(b"noise", seed, position) - 1)

    def serve(
        self, ticket: m.Ticket, nonce: bytes, prompt: bytes, client: Identity, n_out: int
    ) -> tuple[bytes, bytes | None]:
        """Run the job over a real stream; returns the signed receipt and the client's last ack."""
        stream = NodeStream(ticket, nonce, self.me, self.class_id)
        taker = ClientStream(ticket, nonce, client)
        seed, flipped = job_seed(ticket.seed_ticket, nonce), len(self.served) in self.flips
        tell(stream, taker, prompt)
        while stream.count < n_out:
            size = min(32, n_out - stream.count)
            first = ticket.start + stream.count
            drawn = [self.draw(seed, at, flipped) for at in range(first, first + size)]
            tokens, logits = (list(column) for column in zip(*drawn, strict=True))
            sketches = b"" if holds_logprobs(self.class_id) else sketches_of(logits)
            reply = taker.receive(stream.chunk(tuple(tokens), pack_logits(logits), sketches)).reply
            if reply is not None:
                stream.receive(reply)
        whole = n_out == ticket.max_tokens
        frame, receipt = stream.finish("length" if whole else "stop", self.times)
        reply = taker.receive(frame).reply
        assert reply is not None
        stream.receive(reply)
        body = m.TranscriptBody(nonce=nonce, prompt=prompt, output=stream.output)
        self.served[ticket.ticket] = (body, stream)
        return receipt, stream.last_ack

    def receive(self, message: object) -> list[object]:
        """What it sends back on a notice."""
        match message:
            case m.AuditTask():
                if self.busy:
                    return [m.AuditDecline(audit=message.audit, code="busy")]
                self.tasks[message.audit] = message
                key = bytes(32) if self.bad_key else b"\x09" + bytes(31)
                return [m.AuditAccept(audit=message.audit, box_key=key)]
            case m.TranscriptRequest(audit=audit, ticket=ticket):
                if self.loses or ticket not in self.served or message.box_key == bytes(32):
                    return [m.AuditDecline(audit=audit, code="transcript_lost")]
                body = self.served[ticket][0]
                if self.garbles:
                    body = replace(body, output=pack_tokens([7] * (len(body.output) // 4)))
                return [m.Transcript(audit=audit, sealed=bytes(48) + encode(body))]
            case m.Transcript(audit=audit, sealed=sealed):
                return [] if self.silent else self._replay(audit, sealed[48:])
            case m.OpenLeaves(audit=audit, ticket=ticket):
                if ticket not in self.served:
                    return [m.AuditDecline(audit=audit, code="transcript_lost")]
                return [self._open(audit, ticket)]
            case m.RevealRequest(audit=audit):
                return [self.reveals[audit]] if audit in self.reveals else []
        return []

    def _open(self, audit: bytes, ticket: bytes) -> m.LeavesOpened:
        body, stream = self.served[ticket]
        hashes = b"".join(leaf_hashes(ticket, body.nonce, stream.output))
        leaves = stream.leaves
        if self.opens_wrong:
            leaves = replace(leaves, sketches=bytes(len(leaves.sketches)))
        if leaves.logits:
            return m.LeavesOpened(audit=audit, hashes=hashes, logits=leaves.logits)
        return m.LeavesOpened(
            audit=audit, hashes=hashes, logits=b"", raws=leaves.raws, sketches=leaves.sketches
        )

    def _replay(self, audit: bytes, data: bytes) -> list[object]:
        task = self.tasks.get(audit)
        if task is None:
            return []
        body = decode_as(m.TranscriptBody, data)
        seed = job_seed(task.seed_ticket, body.nonce)
        output = unpack_tokens(body.output)
        count = task.n_out if task.replay is None else task.replay
        true = [truth(seed, task.start + i) for i in range(len(output))][:count]
        wrong = tuple(i for i, (token, _) in enumerate(true) if output[i] != token)
        friend = self.friend if self.friend and task.ticket in self.friend.served else None
        logits = [(friend or self).draw(seed, task.start + i)[1] for i in range(count)]
        fault = None
        if leaf_hashes(task.ticket, body.nonce, body.output)[-1:] != (task.output_hash,):
            fault = "transcript_output" if task.n_out else None
        if self.lies or self.spites:
            wrong, fault = tuple(range(0, count, 2)), None
        if self.copies or friend:
            wrong, fault = (), None
        if self.lies or self.copies:
            logits = [20 * self._noisy(b"made up", seed, i) for i in range(count)]
        leaves = leaves_of(pack_logits(logits), sketches_of(logits))
        numbers = not fault and task.leaves is None
        reveal = m.AuditReveal(
            audit=audit,
            nonce=hashlib.blake2b(self.key + audit, digest_size=32).digest(),
            mismatches=() if fault else wrong,
            margins=() if fault else tuple(100 for _ in wrong),
            logits=pack_logits(logits) if not fault and task.leaves else b"",
            fault=fault,
            raws=leaves.raws if numbers else None,
            sketches=leaves.sketches if numbers else None,
            gaps=None if fault else bytes([GAP]) * count,
        )
        self.reveals[audit] = reveal
        return [self._commit(task, commitment(reveal.nonce, encode(reveal)))]

    def _commit(self, task: m.AuditTask, bound: bytes) -> m.AuditCommit:
        statement = m.AuditStatement(
            audit=task.audit, ticket=task.ticket, output_hash=task.output_hash, commitment=bound
        )
        signed = None if self.mute else seal(self.me, statement)
        return m.AuditCommit(audit=task.audit, commitment=bound, statement=signed)


# ---- the world --------------------------------------------------------------------------------


@dataclass
class Issued:
    """A ticket as its client holds it."""

    client: Identity
    ticket: m.Ticket
    blob: bytes
    nonce: bytes
    prompt: bytes
    asked: m.SubmitJob
    receipt: bytes = b""
    ack: bytes | None = None


class World:
    """One coordinator, its store, its nodes, and notices on their way."""

    def __init__(
        self,
        policy: Policy = POLICY,
        nodes: Iterable[ScriptedNode] = (),
        tables: Tables | None = None,
    ) -> None:
        self.policy, self.now, self.tables = policy, START, tables
        self.store = FakeStore()
        self.nodes: dict[bytes, ScriptedNode] = {}
        self.wire: deque[tuple[bytes, object]] = deque()  # notices to nodes
        self.logs: list[Log] = []
        self.posts: list[PostEpoch] = []
        self.chain, self.chain_up = FakeChain(), True
        self.to_mine: deque[PostRound] = deque()
        self.issued: dict[bytes, Issued] = {}
        self._starts = self._jobs = 0
        self.moderation: SignedPolicy | None = None
        self.coordinator = self._start()
        for node in nodes:
            self.join(node)

    def _start(self) -> Coordinator:
        self._starts += 1
        secret = hashlib.blake2b(self._starts.to_bytes(8), digest_size=32).digest()
        more: dict[str, Any] = {"tables": self.tables, "moderation": self.moderation}
        made = Coordinator(self.policy, {MODEL: LISTED}, COORDINATOR, secret, **more)
        self.carry_out(made.restore(self.now, self.store.load(self.now)))
        return made

    def crash(self) -> None:
        """The process dies and starts again: sessions, notices and cases are gone."""
        self.wire.clear()
        self.to_mine.clear()
        self.coordinator = self._start()

    # ---- events ----

    def handle(self, event: Event) -> list[Effect]:
        effects = self.coordinator.handle(self.now, event)
        self.carry_out(effects)
        self.mine()
        return effects

    def mine(self) -> None:
        """The chain takes what waits for it, unless it is down."""
        while self.to_mine and self.chain_up:
            mined = self.chain.take(self.to_mine.popleft())
            self.carry_out(self.coordinator.handle(self.now, mined))

    def carry_out(self, effects: list[Effect]) -> None:
        self.store.apply(effects)
        for effect in effects:
            match effect:
                case Notify(peer, message):
                    decoded = decode(encode(message))  # what a runtime does with it must work
                    self.wire.append((peer, decoded))
                case Reply(_, _, message):
                    encode(message)
                case Log():
                    self.logs.append(effect)
                case PostRound():
                    self.to_mine.append(effect)
                case PostEpoch():
                    self.posts.append(effect)

    def call(self, peer: bytes, message: object) -> Any:
        """A request; its answer."""
        effects = self.handle(Received(peer, 7, message))
        replies = [e for e in effects if isinstance(e, Reply)]
        assert len(replies) == 1, effects
        assert (replies[0].peer, replies[0].request) == (peer, 7)
        return replies[0].message

    def notice(self, peer: bytes, message: object) -> None:
        self.handle(Received(peer, 0, message))

    def deliver(self) -> None:
        """The oldest notice reaches its node, and what the node says comes back."""
        peer, message = self.wire.popleft()
        node = self.nodes.get(peer)
        for answer in node.receive(message) if node else []:
            self.notice(peer, answer)

    def settle(self) -> None:
        """Until nothing is on its way."""
        for _ in range(10_000):
            if not self.wire:
                return
            self.deliver()
        raise AssertionError("notices never end")

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Ticks, heartbeats and what follows from them."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + round(step * SECOND))
            for node in self.nodes.values():
                self.call(node.key, heartbeat())
            self.handle(Tick())
            self.settle()

    # ---- parties ----

    def join(self, node: ScriptedNode, **changes: Any) -> Any:
        self.nodes[node.key] = node
        return self.call(node.key, registration(node.operator, **changes))

    def lose(self, node: ScriptedNode) -> None:
        self.handle(PeerLost(node.key))

    def grant(self, account: bytes, amount: int = 10**9) -> None:
        answer = self.call(OPERATOR.public_key, m.Grant(account=account, amount=amount))
        assert isinstance(answer, m.Account), answer

    def ask(self, client: Identity, nonce: bytes | None = None, **changes: Any) -> Issued | m.Error:
        """Submit a job; remembers the ticket."""
        self._jobs += 1
        nonce = nonce or hashlib.blake2b(self._jobs.to_bytes(8), digest_size=32).digest()
        asked = submission(nonce, **changes)
        answer = self.call(client.public_key, asked)
        if isinstance(answer, m.Error):
            return answer
        assert isinstance(answer, m.TicketGrant)
        ticket = open_ticket(answer.ticket, COORDINATOR.public_key)
        prompt = pack_tokens(range(asked.n_in))
        held = Issued(client, ticket, answer.ticket, nonce, prompt, asked)
        self.issued[ticket.ticket] = held
        return held

    def serve(self, held: Issued, n_out: int | None = None) -> None:
        count = held.ticket.max_tokens if n_out is None else n_out
        node = self.nodes[held.ticket.node]
        held.receipt, held.ack = node.serve(
            held.ticket, held.nonce, held.prompt, held.client, count
        )

    def hand_in(self, held: Issued, by_client: bool = False) -> Any:
        peer, ack = (held.client.public_key, None) if by_client else (held.ticket.node, held.ack)
        return self.call(peer, m.SubmitReceipt(receipt=held.receipt, ack=ack))

    def run_job(self, client: Identity, n_out: int | None = None, **changes: Any) -> Issued:
        """Submit, serve, hand in by the node; audits run to their end."""
        held = self.ask(client, **changes)
        assert isinstance(held, Issued), held
        self.serve(held, n_out)
        answer = self.hand_in(held)
        assert isinstance(answer, m.ReceiptBooked), answer
        self.settle()
        return held

    # ---- looking ----

    def job(self, held: Issued) -> JobRow:
        row = self.store.tables[JobRow][(held.ticket.ticket,)]
        assert isinstance(row, JobRow)
        return row

    def row(self, node: ScriptedNode) -> NodeRow:
        return self.coordinator.registry.nodes[node.key].row

    def balance(self, kind: str, owner: bytes = bytes(32)) -> int:
        return self.coordinator.ledger.balances.get(Purse(kind, owner), 0)


def node(index: int, **flags: Any) -> ScriptedNode:
    """A node of an operator of its own."""
    return ScriptedNode(identity(index), identity(index + 1000).public_key, **flags)


def registration(operator: bytes, **changes: Any) -> m.Register:
    offer: dict[str, Any] = {
        "model": MODEL,
        "class_id": "pseudo",
        "slots": 64,
        "context": 4_096,
        "prefill_rate": 1_000_000,
        "decode_rate": 50_000,
    }
    told = {"region": changes.pop("region", None), "software": "test", "device": "none"}
    offers = changes.pop("offers", None) or (m.Offer(**(offer | changes)),)
    return m.Register(operator=operator, offers=offers, addresses=("/memory/1",), **told)


def heartbeat(**changes: Any) -> m.Heartbeat:
    plain: dict[str, Any] = {"running": 0, "waiting": 0, "free_slots": 64, "draining": False}
    return m.Heartbeat(**(plain | changes))


def submission(nonce: bytes, **changes: Any) -> m.SubmitJob:
    n_in = changes.get("n_in", 8)
    plain: dict[str, Any] = {
        "model": MODEL,
        "prompt_hash": prompt_hash(nonce, pack_tokens(range(n_in))),
        "n_in": n_in,
        "sampler": GREEDY,
        "max_tokens": 32,
        "nonce_commitment": nonce_commitment(nonce),
        "exclude": (),
        "only": (),
    }
    return m.SubmitJob(**(plain | changes))


def other_receipt(held: Issued, signer: Identity, **changes: Any) -> bytes:
    """A second receipt for a ticket, signed by `signer`."""
    first = decode_as(m.Receipt, held.receipt[64:])
    return seal(signer, replace(first, **({"root": bytes(32)} | changes)))
