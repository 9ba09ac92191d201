"""Clients, nodes and an operator played against one coordinator that may die at any moment.

Everybody reconnects and sends again what may be sent again. The journal holds what the coordinator
acknowledged, and nothing else: `missing` compares it with the tables.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from assay_coordinator.adapters.store import Store
from assay_coordinator.core.records import EpochRow, JobRow, PostingRow
from assay_network.host import open_host
from assay_network.identity import split_address
from assay_network.session import Session, open_session
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, RemoteError
from assay_protocol.hashing import nonce_commitment, prompt_hash
from assay_protocol.links import SESSION
from assay_protocol.receipts import payable_tokens
from assay_protocol.signing import Identity, peek, seal
from assay_protocol.streams import remote_error
from assay_protocol.tickets import job_price

CLIENTS, NODES, WORKERS = 3, 3, 12
RECONNECT_SECONDS = 0.05
ASK_SECONDS = 10.0
EPOCH_SECONDS = 0.7
GRANT_SECONDS = 0.05
SAMPLER = m.Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
SLOTS = 100
POLICY = (
    "probation_audits = 0\naudit_alone_us = 200000\nholdback_us = 0\nholdback_jobs = 8\n"
    "open_tickets_max = 100000\nqueue_per_slot = 1000\nround_us = 200000\nround_receipts = 16\n"
)


@dataclass
class Journal:
    """What was acknowledged."""

    tickets: dict[bytes, bytes] = field(default_factory=dict)
    charged: dict[bytes, int] = field(default_factory=dict)
    granted: dict[bytes, int] = field(default_factory=dict)
    grants_tried: dict[bytes, int] = field(default_factory=dict)
    epochs: dict[int, m.EpochClosed] = field(default_factory=dict)

    def missing(self, url: str) -> list[str]:
        """What the tables lack or have otherwise; one line each."""
        store = Store(url)
        try:
            jobs = {row.ticket: row for row in store.rows(JobRow)}
            postings: list[PostingRow] = store.rows(PostingRow)
            epochs = {row.epoch: row for row in store.rows(EpochRow)}
        finally:
            store.close()
        return self._jobs(jobs, postings) + self._grants(postings) + self._epochs(epochs)

    def _jobs(self, jobs: dict[bytes, JobRow], postings: list[PostingRow]) -> list[str]:
        charges: dict[bytes, list[int]] = {}
        for posting in postings:
            if posting.reason == "charge":
                charges.setdefault(posting.ref, []).append(posting.amount)
        found = [
            f"D1: ticket {ticket.hex()} was granted and is gone"
            for ticket, blob in self.tickets.items()
            if ticket not in jobs or jobs[ticket].ticket_blob != blob
        ]
        for ticket, amount in self.charged.items():
            if charges.get(ticket) != [amount] or jobs[ticket].charged != amount:
                found.append(f"D1/L2: {ticket.hex()}: {amount} told, {charges.get(ticket)} booked")
        return found

    def _grants(self, postings: list[PostingRow]) -> list[str]:
        grants = [(p.target_owner, p.amount) for p in postings if p.reason == "grant"]
        times = Counter(grants)
        found = [f"D1: grant {g} is not there once" for g in self.granted.items() if times[g] != 1]
        tried = set(self.grants_tried.items())
        return (
            found
            + [f"L2: grant {g} {n} times" for g, n in times.items() if n > 1]
            + [f"L1: grant {g} was never asked for" for g in times if g not in tried]
        )

    def _epochs(self, rows: dict[int, EpochRow]) -> list[str]:
        return [
            f"L5: epoch {number} is not as told"
            for number, told in self.epochs.items()
            if number not in rows
            or (told.root, told.total, told.accounts)
            != (rows[number].root, rows[number].total, rows[number].leaves)
        ]


class Link:
    """One identity's session with the coordinator, opened again whenever it ends."""

    def __init__(self, identity: Identity, address: str) -> None:
        self.identity, self.sessions = identity, 0
        self._address, self._key = address, split_address(address)
        self._session: Session | None = None
        self._changed = trio.Event()

    async def run(self, on_up: Callable[[], Awaitable[None]] | None = None) -> None:
        """Keep it open until cancelled; `on_up` runs beside each new session."""
        async with open_host(self.identity.seed) as host:
            while True:
                try:
                    async with open_session(
                        host, self._key, [self._address], SESSION, self._on_frame, timeout=3.0
                    ) as session:
                        self._set(session)
                        self.sessions += 1
                        if on_up is not None:
                            await on_up()
                        await session.closed.wait()
                except AssayError:
                    await trio.sleep(RECONNECT_SECONDS)
                finally:
                    self._set(None)

    async def ask(self, question: object) -> Any:
        """The answer. Raises PeerGone or "timeout" (nobody knows), RemoteError (a refusal)."""
        while self._session is None:
            await self._changed.wait()
        answer = decode(await self._session.request(encode(question), ASK_SECONDS))
        if isinstance(answer, m.Error):
            raise remote_error(answer)
        return answer

    async def insist(self, question: object) -> Any:
        """`ask` until there is an answer: for what may be sent twice."""
        while True:
            try:
                return await self.ask(question)
            except RemoteError as error:
                if error.code not in ("no_capacity", "not_registered"):
                    raise
                await trio.sleep(RECONNECT_SECONDS)
            except AssayError:
                await trio.sleep(RECONNECT_SECONDS)

    def _on_frame(self, session: Session, request: int, body: bytes) -> None:
        """Nodes take no audits: that the case then ends undecided is part of the load."""
        task = decode(body)
        if isinstance(task, m.AuditTask):
            session.notify(encode(m.AuditDecline(audit=task.audit, code="busy")))

    def _set(self, session: Session | None) -> None:
        self._session = session
        self._changed.set()
        self._changed = trio.Event()


class Asking(Protocol):
    """What the load needs of a link; `Link` is one, `chain_driver.Seat` another."""

    identity: Identity

    async def run(self, on_up: Callable[[], Awaitable[None]] | None = None) -> None: ...
    async def ask(self, question: object) -> Any: ...
    async def insist(self, question: object) -> Any: ...


class Load:
    """All of them; `run` until `stop`, then until what is under way is acknowledged.

    The same `seed` gives the same clients and nodes; another `turn` lets them do other things.
    """

    epoch_seconds, workers = EPOCH_SECONDS, WORKERS

    def __init__(
        self, link: Callable[[Identity], Asking], operator: Identity, model: bytes, seed: int
    ) -> None:
        self.journal = Journal()
        self.stopping = False
        self._random = random.Random(seed)
        self._model = model
        self._operator = link(operator)
        self._clients = [link(Identity(self._key())) for _ in range(CLIENTS)]
        self._nodes = {
            one.identity.public_key: one
            for one in (link(Identity(self._key())) for _ in range(NODES))
        }

    def turn(self, turn: int) -> None:
        self._random = random.Random(self._random.getrandbits(64) + turn)

    async def run(self) -> None:
        async with trio.open_nursery() as links:
            for node in self._nodes.values():
                links.start_soon(node.run, lambda node=node: self._serve(node))
            for link in (*self._clients, self._operator):
                links.start_soon(link.run)
            async with trio.open_nursery() as work:
                for number in range(self.workers):
                    work.start_soon(self._jobs, self._clients[number % CLIENTS])
                work.start_soon(self._grants)
                work.start_soon(self._epochs)
            links.cancel_scope.cancel()

    async def _serve(self, node: Asking) -> None:
        await node.ask(_registration(node.identity, self._model))
        while True:
            await trio.sleep(2)
            await node.ask(m.Heartbeat(running=0, waiting=0, free_slots=SLOTS, draining=False))

    async def _jobs(self, client: Asking) -> None:
        while not self.stopping:
            try:
                grant: m.TicketGrant = await client.ask(self._submission())
            except AssayError:  # asked or not, nobody knows; it was not acknowledged
                await trio.sleep(RECONNECT_SECONDS)
                continue
            ticket = peek(m.Ticket, grant.ticket)
            assert ticket.ticket not in self.journal.tickets, "two tickets of one name"
            self.journal.tickets[ticket.ticket] = grant.ticket
            await self._hand_in(client, self._nodes[ticket.node], ticket)

    async def _hand_in(self, client: Asking, node: Asking, ticket: m.Ticket) -> None:
        """The node and its client both, as they do; each gets the same answer."""
        n_out = self._random.randint(1, ticket.max_tokens)
        receipt = seal(node.identity, _receipt(ticket, n_out))
        answers: list[m.ReceiptBooked] = []

        async def hand_in(link: Asking) -> None:
            answers.append(await link.insist(m.SubmitReceipt(receipt=receipt)))

        async with trio.open_nursery() as both:
            both.start_soon(hand_in, client)
            both.start_soon(hand_in, node)
        price = job_price(ticket, payable_tokens(n_out, n_out))
        assert answers == 2 * [m.ReceiptBooked(ticket=ticket.ticket, charged=price)]
        self.journal.charged[ticket.ticket] = price

    async def _grants(self) -> None:
        while not self.stopping:
            account, amount = self._key(), self._random.randint(1, 1_000_000)
            self.journal.grants_tried[account] = amount
            try:
                told = await self._operator.ask(m.Grant(account=account, amount=amount))
            except AssayError:
                await trio.sleep(RECONNECT_SECONDS)
                continue
            assert told.available == amount
            self.journal.granted[account] = amount
            await trio.sleep(GRANT_SECONDS)

    async def _epochs(self) -> None:
        while not self.stopping:
            await trio.sleep(self.epoch_seconds * self._random.random() * 2)
            try:
                closed = await self._operator.ask(m.CloseEpoch())
            except AssayError:
                continue
            assert closed.epoch not in self.journal.epochs, "an epoch closes once"
            self.journal.epochs[closed.epoch] = closed

    def _submission(self) -> m.SubmitJob:
        nonce = self._key()
        return m.SubmitJob(
            model=self._model,
            prompt_hash=prompt_hash(nonce, bytes(40)),
            n_in=10,
            sampler=SAMPLER,
            max_tokens=64,
            nonce_commitment=nonce_commitment(nonce),
            exclude=(),
            only=(),
        )

    def _key(self) -> bytes:
        return self._random.randbytes(32)


def _registration(identity: Identity, model: bytes) -> m.Register:
    offer = m.Offer(
        model=model,
        class_id="scripted",
        slots=SLOTS,
        context=2048,
        prefill_rate=1_000_000,
        decode_rate=100_000,
    )
    return m.Register(
        operator=identity.public_key,
        offers=(offer,),
        addresses=("/ip4/127.0.0.1/tcp/1",),
        software="test",
        device="none",
    )


def _receipt(ticket: m.Ticket, n_out: int) -> m.Receipt:
    """What a node would sign; hashes of an answer that nobody will open."""
    return m.Receipt(
        ticket=ticket.ticket,
        class_id="scripted",
        output_hash=bytes(32),
        root=bytes(32),
        n_in=ticket.n_in,
        n_out=n_out,
        finish="length" if n_out == ticket.max_tokens else "stop",
        started_at=ticket.issued_at,
        first_at=ticket.issued_at,
        ended_at=ticket.issued_at,
    )


def database(folder: Path) -> str:
    """The URL of a coordinator's database in its data directory."""
    return f"sqlite:///{folder / 'coordinator.db'}"
