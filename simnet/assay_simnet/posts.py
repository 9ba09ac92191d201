"""What the coordinator puts on a simulated chain: production's outbox decides, this is its disk.

The rows outlive the process, the core does not (contracts' decision 0013). As production's anchor
does it: a round is two notes, that of the links' anchor and that of the root; an epoch is a call in
a lane of its own; each is told when it is so deep that the chain keeps it, and in order.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.outbox_core import (
    Added,
    Ask,
    Attempt,
    Effect,
    Estimate,
    Estimated,
    Event,
    Fill,
    Found,
    Item,
    NotSent,
    OutboxCore,
    Patience,
    Refused,
    Save,
    Send,
    Sent,
    Sign,
    Signed,
)
from assay_contracts.credit import ledger_abi
from assay_coordinator.adapters.epoch_call import epoch_call
from assay_coordinator.core.events import EpochPosted, PostEpoch, PostRound, RoundMined
from assay_protocol.lottery import AnchorNote
from assay_simnet import mined_chain
from assay_simnet.mined_chain import MinedChain

LAG: Final = 1  # blocks after a root's that decide its round, as on any chain that others mine
POSTER: Final = bytes(19) + b"\x01"
LEDGER: Final = bytes(19) + b"\x02"
EPOCHS_LANE: Final = "epochs"
GAS: Final = 21_000
STEPS_MAX: Final = 20_000  # of one pass
PASS_US: Final = 2_000_000  # production's pause between two looks at the chain
SETTLE_PASSES_MAX: Final = 10_000
Told = EpochPosted | RoundMined


class Posts:
    """The outbox of one coordinator; `restart` is a new process over the same rows."""

    def __init__(self, chain: MinedChain, confirmations: int) -> None:
        self.chain = chain
        self._patience = Patience(confirmations=confirmations, has_pool=True)
        self._rows: dict[str, Item] = {}
        self._final: list[str] = []
        self._waiting: dict[type, deque[PostEpoch | PostRound]] = {}
        self._mined: list[RoundMined] = []  # all that was told of rounds
        self._core = OutboxCore(self._patience)
        self._loaded = True

    @property
    def open(self) -> bool:
        """Whether something is not final, or not told."""
        return bool(self._core.items) or not self._loaded or any(self._waiting.values())

    def restart(self) -> None:
        """The process is gone: what was waited for is asked for again by the core."""
        self._waiting = {}
        self.forget()

    def forget(self) -> None:
        """A pass failed: the rows know better what was done."""
        self._core, self._loaded = OutboxCore(self._patience), False

    def submit(self, now: int, effect: PostEpoch | PostRound) -> None:
        """Durable when it returns; the same again is nothing."""
        waiting = self._waiting.setdefault(type(effect), deque())
        if effect not in waiting:
            waiting.append(effect)
        if isinstance(effect, PostEpoch):
            call = epoch_call(LEDGER, effect)
            self._put(now, f"epoch-{effect.epoch}", "epoch", call, lane=EPOCHS_LANE)
            return
        note = AnchorNote(effect.chain, effect.links, LAG, effect.anchor)
        self._put(now, f"anchor-{effect.chain}", "note", Call(POSTER, note.encode()))
        self._put(now, f"round-{effect.number}", "note", Call(POSTER, effect.note), lag=LAG)

    def go(self, now: int) -> list[Told]:
        """One pass; what is on chain to stay since the last one."""
        view = self.chain.look(now)
        if not self._loaded:
            self._loaded = True
            for item in self._rows.values():
                if item.state not in ("final", "failed"):
                    self._core.handle(now, Added(item))
        self._reopen(now)
        queue = deque(self._core.handle(now, view))
        for _ in range(STEPS_MAX):
            if not queue:
                return list(self._settled())
            event = self._do(now, queue.popleft())
            if event is not None:
                queue.extendleft(reversed(self._core.handle(now, event)))
        raise AssertionError("a pass never ends")

    def wrong(self) -> Iterator[tuple[str, str]]:
        """What must not be: an invariant's id, and why."""
        chain = self.chain
        times = Counter(one.sent.key for one in chain.mined if one.ok)
        for key, row in self._rows.items():
            if (row.state, times[key]) != ("final", 1):
                yield "L5", f"{key} is {row.state} in the end, and {times[key]} times on chain"
        for told in self._mined:
            posted = chain.find(told.posted)
            if chain.hash(told.block) != told.block_hash:
                yield "V1", f"round {told.number} was drawn by a block that is no more"
            if posted is None or posted.place.block + LAG != told.block:
                yield "V1", f"round {told.number}: its root is not before the block that drew it"

    # ---- inside ----

    def _put(
        self, now: int, key: str, kind: str, call: Call, *, lane: str = "", lag: int = 0
    ) -> None:
        known = self._rows.get(key)
        assert known is None or known.call == call, f"{key} is already another call"
        if known is not None:
            return
        seq = len(self._rows) + 1
        item = self._rows[key] = Item(key, seq, kind, call, lane, lag, keep=True)
        if self._loaded:
            self._core.handle(now, Added(item))

    def _reopen(self, now: int) -> None:
        """Whatever was final in a block that the chain no longer has is open again."""
        while self._final:
            item = self._rows[self._final[-1]]
            assert item.place is not None
            if self.chain.holds(item.place):
                return
            self._final.pop()
            state = "signed" if item.attempts else "waiting"
            item = self._rows[item.key] = replace(item, state=state, place=None)
            self._core.handle(now, Added(item))

    def _do(self, now: int, effect: Effect) -> Event | None:
        match effect:
            case Ask(key):
                asked = self._core.items.get(key)  # it may have been settled in this pass
                return None if asked is None else self._ask(asked)
            case Estimate(key):
                epoch = _epoch(self._core.items[key])
                if epoch and epoch != self.chain.epoch + 1:
                    return Refused(key, "not the next epoch", sent=False)
                return Estimated(key, GAS)
            case Sign(key, nonce, offer):
                name = hashlib.blake2b(f"{key} {nonce} {offer}".encode(), digest_size=32).digest()
                attempt = Attempt(name, nonce, offer)
                row = self._rows[key]
                attempts = (*row.attempts, attempt)
                self._rows[key] = replace(row, state="signed", attempts=attempts, reason="")
                return Signed(key, attempt)
            case Send(key, name):
                return self._send(now, key, name)
            case Fill(nonce):
                name = hashlib.blake2b(f"fill {nonce}".encode(), digest_size=32).digest()
                self.chain.send(now, mined_chain.Sent("", name, nonce))
            case Save(item, dropped):
                kept = self._rows[item.key].attempts
                left = tuple(one for one in kept if one.hash != dropped)
                self._rows[item.key] = replace(item, attempts=left)
                if item.state == "final":
                    self._final.append(item.key)
        return None  # what is settled is in the rows; alarms change nothing

    def _ask(self, item: Item) -> Event:
        vain: Found | None = None
        for attempt in reversed(item.attempts):
            found = self.chain.find(attempt.hash)
            if found is not None and found.ok:
                return Found(item.key, found.place)
            if found is not None:
                vain = Found(item.key, found.place, ok=False)
        if 0 < _epoch(item) <= self.chain.epoch:
            return Found(item.key, done=True)
        return vain or Found(item.key)

    def _send(self, now: int, key: str, name: bytes) -> Event:
        row = self._rows[key]
        attempt = next(one for one in row.attempts if one.hash == name)
        sent = mined_chain.Sent(key, name, attempt.nonce, _epoch(row))
        if self.chain.send(now, sent):
            return Sent(key)
        return NotSent(key, "nonce", "nonce too low")

    def _settled(self) -> Iterator[Told]:
        for waiting in self._waiting.values():
            while waiting and (told := self._told(waiting[0])) is not None:
                waiting.popleft()
                if isinstance(told, RoundMined):
                    self._mined.append(told)
                yield told

    def _told(self, effect: PostEpoch | PostRound) -> Told | None:
        if isinstance(effect, PostEpoch):
            row = self._rows[f"epoch-{effect.epoch}"]
            return EpochPosted(effect.epoch) if row.state == "final" else None
        anchored = self._rows[f"anchor-{effect.chain}"]
        posted = self._rows[f"round-{effect.number}"]
        if anchored.state != "final" or posted.state != "final":
            return None
        assert anchored.place is not None
        assert posted.place is not None
        block = posted.place.block + LAG
        name = self.chain.hash(block)
        return RoundMined(
            effect.number, anchored.place.transaction, posted.place.transaction, block, name
        )


def _epoch(item: Item) -> int:
    """Which epoch it posts; 0: none."""
    return ledger_abi.posted_by(item.call.data)[0] if item.kind == "epoch" else 0
