"""The coordinator: one `match` over everything that can happen to it.

It assigns jobs (issuing, scheduler), keeps the money (ledger, jobs), audits (lottery, audits,
evidence, inquiry, settlement) and closes epochs. It is never on the data path and never sees a
prompt (S3). It is pure: the runtime gives it time, entropy and messages whose sender is
authenticated, and carries out the effects in order, committing every `Save` before anything is sent
(D1).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

from assay_coordinator.core.audits import Audits
from assay_coordinator.core.calibration import Tables
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.epochs import Epochs, StoredEpochs, post
from assay_coordinator.core.events import (
    BlockToVote,
    CountVote,
    Effect,
    EpochPosted,
    EpochVoided,
    Event,
    Log,
    Lookup,
    LookupVerdict,
    PeerLost,
    Received,
    Reply,
    RoundMined,
    RulesRead,
    Save,
    SplitsDecided,
    Tick,
)
from assay_coordinator.core.issuing import Issuing
from assay_coordinator.core.jobs import Equivocation, Jobs
from assay_coordinator.core.ledger import MINT, Ledger, Purse
from assay_coordinator.core.links import Links
from assay_coordinator.core.lottery import Lottery
from assay_coordinator.core.oversight import Assay, Oversight
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import (
    BalanceRow,
    CreditRow,
    JobRow,
    NodeRow,
    RoundRow,
    RulesRow,
    VoidRow,
)
from assay_coordinator.core.registry import Node, Registry
from assay_coordinator.core.rules import Rules, SignedPolicy
from assay_coordinator.core.scheduler import Scheduler
from assay_coordinator.core.settlement import Settlement
from assay_coordinator.core.standing import CLOSED, aged
from assay_protocol import messages as m
from assay_protocol.classes import can_be_audited, holds_logprobs
from assay_protocol.errors import AssayError
from assay_protocol.limits import MODELS_PER_NODE_MAX
from assay_protocol.regions import check_regions
from assay_protocol.signing import ED25519, Signer, Verifier

_LINKS_LABEL: Final = b"assay links of the lottery"  # no signed message begins so
_GREETINGS: Final = (m.SubmitJob, m.GetAccount)  # what a client says first
NODES_SHOWN_MAX: Final = 1_024  # of at most 0.8 kB each: the answer must fit a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One model of the catalogue."""

    name: str
    model: bytes
    card: bytes
    context: int
    price_in: int
    price_out: int
    image_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the tables hold at start: the working set, not the history."""

    nodes: list[NodeRow]
    balances: list[BalanceRow]
    credit: list[CreditRow]
    jobs: list[JobRow]  # open or recent, oldest first
    epochs: StoredEpochs
    next_posting: int
    audits: int
    last_round: int = 0
    undrawn: list[RoundRow] = field(default_factory=list)
    entries: list[JobRow] = field(default_factory=list)  # of rounds that are not drawn
    rules: RulesRow | None = None


class Coordinator:
    """Feed it events with `handle`; start it with `restore`."""

    def __init__(
        self,
        policy: Policy,
        catalogue: Mapping[bytes, Listed],
        signer: Signer,
        secret: bytes,
        verifier: Verifier = ED25519,
        tables: Tables | None = None,
        moderation: SignedPolicy | None = None,
        oversight: Oversight | None = None,
    ) -> None:
        self.policy, self.catalogue = policy, catalogue
        self.tables = tables or Tables()
        self._entropy = Entropy(secret)
        self._block: int | None = None  # to vote on, as heartbeats tell
        self.ledger = Ledger()
        self.registry = Registry(policy)
        self.rules = Rules(moderation)
        self.epochs = Epochs(self.ledger, policy.fee_bps)
        self.scheduler = Scheduler(policy, self.registry, self._entropy)
        self.lottery = Lottery(policy, Links(_links_secret(signer), policy.links))
        self.oversight = oversight or Assay(policy)
        self.jobs = Jobs(
            policy,
            self.ledger,
            self.registry,
            self.epochs,
            self._entropy,
            verifier,
            self.lottery,
            self.oversight,
        )
        self.issuing = Issuing(
            policy,
            catalogue,
            signer,
            verifier,
            self._entropy,
            self.registry,
            self.scheduler,
            self.ledger,
            self.epochs,
            self.jobs,
            self.lottery,
            self.rules,
            self.oversight,
        )
        self.issuing.calibration = self.tables.newest.version or None
        self.audits = Audits(policy, self.registry, self._entropy, self.tables, verifier)
        self.settlement = Settlement(
            policy,
            self.ledger,
            self.registry,
            self.epochs,
            self.jobs,
            self.audits,
            self.oversight,
        )

    def restore(self, now: int, stored: Stored) -> list[Effect]:
        """Become what the tables say. Audits of drawn jobs begin again; epochs and rounds not yet
        known to be on the chain are handed to it again (posting is idempotent)."""
        self.ledger.restore(stored.balances, stored.credit, stored.next_posting)
        self.registry.restore(stored.nodes)
        self.rules.restore(stored.rules)
        self.epochs.restore(stored.epochs, now)
        self.lottery.restore(now, stored.last_round, stored.undrawn, stored.entries)
        self.jobs.restore(stored.jobs)
        self.audits.finished = stored.audits
        self.jobs.booked = sum(row.jobs for row in stored.nodes)
        self.ledger.check()
        effects: list[Effect] = [post(row) for row in stored.epochs.unposted]
        effects += self.lottery.unposted()
        for job in list(self.jobs.jobs.values()):
            if job.state == "drawn":
                effects += self.audits.open(now, job)
        self.settlement.inquiries.restore()
        return effects

    def handle(self, now: int, event: Event) -> list[Effect]:
        """Everything that follows from `event`. No input makes it raise but our own bugs."""
        match event:
            case Received(peer, request, message):
                return self._received(now, peer, request, message)
            case PeerLost(peer):
                node = self.registry.get(peer)
                if node is not None:
                    self.registry.leave(node)
                return []
            case Tick():
                return self._tick(now)
            case EpochPosted(epoch):
                return [*self.epochs.posted(epoch), Log("epoch_posted", (("epoch", epoch),))]
            case EpochVoided(epoch, standing):
                fields = (("epoch", epoch), ("standing", int(standing)))
                return [Save(VoidRow(epoch, now, int(standing))), Log("epoch_voided", fields)]
            case RoundMined():
                return self._round_mined(now, event)
            case RulesRead():
                return self.rules.read(event)
            case BlockToVote(number):
                self._block = number
                return []
            case SplitsDecided(splits):
                return self._decided(splits)

    # ---- messages ----

    def _received(self, now: int, peer: bytes, request: int, message: object) -> list[Effect]:
        greets = isinstance(message, _GREETINGS)
        effects = self._welcome(now, peer) if greets else []  # stays, even if the rest is refused
        answer: object | None
        try:
            more, answer = self._answer(now, peer, request, message)
            effects += more
        except Equivocation as proof:
            effects += self._equivocated(now, proof)
            answer = m.Error(code="receipt_mismatch", detail="two receipts for one ticket")
        except AssayError as error:
            answer = _refusal(error)
        if request and answer is not None:
            effects.append(Reply(peer, request, answer))
        return effects

    def _answer(
        self, now: int, peer: bytes, request: int, message: object
    ) -> tuple[list[Effect], object | None]:
        match message:
            case m.SubmitJob():
                return self.issuing.submit(now, peer, message)
            case m.SubmitReceipt():
                return self._receipt(now, peer, message)
            case m.AbandonJob():
                if message.progress is not None:
                    self.issuing.check_progress(message.ticket, message.progress)
                return self.jobs.abandon(now, peer, message.ticket), m.Done()
            case m.Heartbeat():
                return self._heartbeat(now, peer, message)
            case m.Register():
                return self._register(now, peer, message)
            case m.GetAccount():
                return [], self._account(peer)
            case m.GetModels():
                return [], self._models(now)
            case m.GetNetwork():
                return [], self._network(now)
            case m.GetPart(what="rules", offset=offset):
                return [], self.rules.part(offset)
            case m.GetPart(what=what, key=key, offset=offset):
                return [Lookup(peer, request, what, key, offset)], None
            case m.VoteBlock(seal=seal):
                return [CountVote(peer, request, seal)], None
            case m.GetVerdict(ticket=ticket):
                return [LookupVerdict(peer, request, ticket)], None
            case m.Grant():
                return self._grant(now, peer, message)
            case m.CloseEpoch():
                self._check_operator(peer)
                return self._close_epoch(now)
            case (
                m.AuditAccept()
                | m.Transcript()
                | m.AuditCommit()
                | m.LeavesOpened()
                | m.AuditReveal()
                | m.AuditDecline()
            ):
                effects, verdicts = self.audits.receive(now, peer, message)
                return [*effects, *self.settlement.settle(now, verdicts)], None
            case _:
                raise AssayError("unexpected_message", type(message).__name__)

    def _receipt(
        self, now: int, peer: bytes, message: m.SubmitReceipt
    ) -> tuple[list[Effect], object | None]:
        job, effects = self.jobs.book(now, peer, message)
        if effects and job.state == "drawn":
            effects += self.audits.open(now, job)
        if effects:
            effects += self.lottery.close_due(now)
        return effects, m.ReceiptBooked(ticket=job.ticket.ticket, charged=job.charged)

    def _round_mined(self, now: int, mined: RoundMined) -> list[Effect]:
        effects, draws = self.lottery.draw(now, mined)
        hits = 0
        for draw in draws:
            job, more = self.jobs.draw(now, draw)
            effects += more
            hits += draw.hit
            if job is not None:
                effects += self.audits.open(now, job)
        if draws:
            fields = (("round", mined.number), ("receipts", len(draws)), ("drawn", hits))
            effects.append(Log("round_drawn", fields))
        return effects

    def _equivocated(self, now: int, proof: Equivocation) -> list[Effect]:
        node = self.registry.nodes[proof.job.ticket.node]
        effects, verdicts = self.settlement.convict(now, node, "equivocation")
        return [*effects, *self.settlement.settle(now, verdicts)]

    def _register(
        self, now: int, peer: bytes, message: m.Register
    ) -> tuple[list[Effect], object | None]:
        for offer in message.offers:
            if offer.model not in self.catalogue:
                raise AssayError("model_unknown", offer.model.hex())
            self._check_class(offer)
        check_regions(() if message.region is None else (message.region,))
        known = self.registry.get(peer)
        if known is not None and known.row.state == "convicted":
            raise AssayError("convicted")
        if known is None and len(self.registry.nodes) >= self.policy.nodes_max:
            raise AssayError("rate_limited", "this coordinator takes no more nodes")
        withdrawn = self._withdrawn(known, message)
        node = self.registry.register(now, peer, message, now + self.policy.lease_us, withdrawn)
        answer = m.Registered(
            heartbeat_ms=self.policy.heartbeat_us // 1000,
            lease_ms=self.policy.lease_us // 1000,
            state=node.row.state,
            now_at=now,
            rules=self.rules.digest,
        )
        log = Log("registered", (("node", peer.hex()), ("state", node.row.state)))
        return [Save(node.row), log, *self.audits.assign(now)], answer

    def _withdrawn(self, known: Node | None, message: m.Register) -> tuple[m.Offer, ...]:
        """Offers a node no longer makes because governance denies the model: jobs done before may
        still be audited, and who else could?"""
        if known is None:
            return ()
        offered = {offer.model for offer in message.offers}
        kept = [
            offer
            for model, offer in known.offers.items()
            if model not in offered and not self.rules.allows(model)
        ]
        return tuple(kept[: MODELS_PER_NODE_MAX - len(offered)])

    def _check_class(self, offer: m.Offer) -> None:
        """What cannot be audited cannot earn, nor what is so noisy that cheats would pass for
        noise; whether weaker leaves can, the operator says."""
        taken = self.policy.logprob_leaves or not holds_logprobs(offer.class_id)
        if not (can_be_audited(offer.class_id) and taken):
            raise AssayError("class_refused", offer.class_id)
        if self.tables.newest.refuses(offer.model, offer.class_id):
            raise AssayError("class_refused", f"noisy class {offer.class_id}")

    def _heartbeat(
        self, now: int, peer: bytes, beat: m.Heartbeat
    ) -> tuple[list[Effect], object | None]:
        node = self.registry.get(peer)
        if node is None or not node.present(now):
            raise AssayError("not_registered")
        self.registry.heartbeat(node, beat, now + self.policy.lease_us)
        row = aged(self.policy, node.row, now)
        effects: list[Effect] = [Save(row)] if row is not node.row else []
        node.row = row
        return effects, m.HeartbeatAck(
            state=node.row.state,
            audits_passed=node.row.verified,
            audits_failed=node.row.failed,
            earned=self.ledger.balance("earned", peer),
            escrow=self.ledger.balance("escrow", peer),
            drawn=self.jobs.owed_verdicts(peer),
            rules=self.rules.digest,
            block=self._block,
        )

    # ---- accounts ----

    def _welcome(self, now: int, client: bytes) -> list[Effect]:
        """The faucet's grant, once, on networks that have one."""
        purse = Purse("available", client)
        full = len(self.ledger.balances) >= self.policy.faucet_accounts_max
        if not self.policy.faucet or full or purse in self.ledger.balances:
            return []
        return self.ledger.transfer(now, MINT, purse, self.policy.faucet, "faucet", client[:16])

    def _grant(self, now: int, peer: bytes, grant: m.Grant) -> tuple[list[Effect], object | None]:
        self._check_operator(peer)
        purse = Purse("available", grant.account)
        effects = self.ledger.transfer(now, MINT, purse, grant.amount, "grant", peer[:16])
        return effects, self._account(grant.account)

    def _check_operator(self, peer: bytes) -> None:
        if peer not in self.policy.operators:
            raise AssayError("forbidden")

    def _account(self, key: bytes) -> m.Account:
        balance = self.ledger.balance
        return m.Account(
            key=key,
            available=balance("available", key),
            reserved=balance("reserved", key),
            escrow=balance("escrow", key),
            earned=balance("earned", key),
        )

    # ---- epochs and time ----

    def _close_epoch(self, now: int) -> tuple[list[Effect], object | None]:
        effects = self.jobs.release_old(now)
        closed, more = self.epochs.close(now, self.policy.treasury, self.policy.treasury_reserve)
        log = Log("epoch_closed", (("epoch", closed.epoch), ("root", closed.root.hex())))
        return [*effects, *more, log], closed

    def _decided(self, splits: tuple[m.ModelSplit, ...]) -> list[Effect]:
        """What the chain says is kept for the next epoch; rules that contradict themselves are
        not: those before stay in force."""
        try:
            effects = self.epochs.decide(splits)
        except AssayError as error:
            return [Log("splits_refused", (("detail", error.message),))]
        fields = (("models", len(splits)), ("epoch", self.epochs.running + 1))
        return [*effects, Log("splits_decided", fields)] if effects else []

    def _tick(self, now: int) -> list[Effect]:
        effects = [*self.jobs.expire(now), *self.lottery.close_due(now)]
        more, verdicts = self.audits.tick(now)
        effects += [*more, *self.settlement.settle(now, verdicts)]
        effects += self.settlement.inquiries.tick(now)
        if now - self.epochs.opened_at >= self.policy.epoch_us:
            effects += self._close_epoch(now)[0]
        return effects

    # ---- what is public ----

    def _models(self, now: int) -> m.Models:
        return m.Models(models=tuple(self._summary(now, one) for one in self.catalogue.values()))

    def _summary(self, now: int, listed: Listed) -> m.ModelSummary:
        serving = self.registry.serving(listed.model) if self.rules.allows(listed.model) else {}
        nodes = [n for n in serving.values() if n.present(now)]
        return m.ModelSummary(
            name=listed.name,
            model=listed.model,
            card=listed.card,
            context=listed.context,
            price_in=listed.price_in,
            price_out=listed.price_out,
            nodes=len(nodes),
            free_slots=sum(node.free_slots for node in nodes),
            dims=self._most_said(listed.model, nodes),
            image_tokens=listed.image_tokens,
        )

    def _most_said(self, model: bytes, nodes: list[Node]) -> int | None:
        """What most nodes of a model say that it does, by the work they have shown: keys are free,
        and a crowd of fresh ones must not take a model from its clients."""
        said: Counter[int | None] = Counter()
        for node in nodes:
            weight = 1 + min(node.row.verified, self.policy.auditor_weight_max)
            said[node.offers[model].dims] += weight
        return said.most_common(1)[0][0] if said else None

    def _network(self, now: int) -> m.Network:
        nodes = self.registry.nodes.values()
        away = (node for node in nodes if not node.present(now))
        shown = islice(chain((n for n in nodes if n.present(now)), away), NODES_SHOWN_MAX)
        last = self.epochs.last
        return m.Network(
            nodes=tuple(self._status(now, node) for node in shown),
            jobs=self.jobs.booked,
            audits=self.audits.finished,
            epoch=last.epoch if last else 0,
            epoch_root=last.root if last else b"",
            treasury=self.ledger.balance("treasury"),
        )

    def _status(self, now: int, node: Node) -> m.NodeStatus:
        row = node.row
        return m.NodeStatus(
            node=node.key,
            operator=row.operator,
            state=row.state if node.present(now) or row.state in CLOSED else "away",
            models=tuple(node.offers),
            jobs=row.jobs,
            audits_passed=row.verified,
            audits_failed=row.failed,
            running=node.running,
            free_slots=node.free_slots,
            earned=self.ledger.balance("earned", node.key),
            escrow=self.ledger.balance("escrow", node.key),
        )


def _links_secret(signer: Signer) -> bytes:
    """What only the holder of the coordinator's key can know: a signature that is never shown."""
    return hashlib.blake2b(signer.sign(_LINKS_LABEL), digest_size=32).digest()


def _refusal(error: AssayError) -> m.Error:
    return m.Error(
        code=error.code,
        detail=error.message[:200],
        retry_after_ms=error.retry_after_ms,
    )
