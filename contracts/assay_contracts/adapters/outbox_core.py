"""What the outbox does next with each transaction it was given: decisions only, no I/O.

An item is a call that must happen exactly once. It is `waiting`, `signed` (a transaction of it may
be mined), `mined`, and at last `final` (so deep that the chain keeps it) or `failed`. Rules:
- Whether it happened is asked of the chain: receipts of its attempts, or what the contract holds.
- Gas is estimated before a nonce is given away: what would be refused burns none.
- A nonce belongs to one item. The same bytes are sent again while the nonce is unused, however the
  chain lost them; another nonce is taken only when the old one is used up at `confirmations`.
- A transaction that waits offers more, up to a bound; then it waits and an alarm says so.
- A lane is in order: the next one starts when the one before is mined.
- A kept item is never given up, whatever the contract says; any other is `failed` with the reason.
Only a chain that goes back deeper than `confirmations`, while others spend nonces of the same key,
could hold two attempts of an item: what must not happen twice even then, its contract refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.offers import Call, FeeBounds, Offer

SECOND: Final = 1_000_000
GAS_MAX: Final = 10_000_000  # what a transaction may use on the local chain, and far above all ours
ATTEMPTS_MAX: Final = 64  # signed transactions of one item
ASKS_MAX: Final = 512  # items looked at in one pass
FILLS_MAX: Final = 16  # unused nonces below ours that one pass fills
ALARMS_KEPT_MAX: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How patient the outbox is. `confirmations`: blocks above a transaction's until it is final;
    `has_pool`: what the chain took may be mined later (else it is mined or gone)."""

    confirmations: int = 0
    has_pool: bool = False
    fees: FeeBounds = field(default_factory=FeeBounds)
    bump_us: int = 45 * SECOND
    retry_us: int = 5 * SECOND
    alarm_us: int = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of an item."""

    hash: bytes
    nonce: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class Place:
    """Where the chain holds an item. `transaction` is empty if only the contract tells of it."""

    transaction: bytes
    block: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One call. `lag`: blocks it must be deeper than others before it counts as final."""

    key: str
    seq: int
    kind: str
    call: Call
    lane: str = ""
    lag: int = 0
    keep: bool = False
    state: str = "waiting"
    attempts: tuple[Attempt, ...] = ()
    place: Place | None = None
    reason: str = ""


# ---- events ----


@dataclass(frozen=True, slots=True)
class Added:
    """An item whose row is durable: new, or open again after the chain lost it."""

    item: Item


@dataclass(frozen=True, slots=True)
class Looked:
    """A pass begins: the newest block, transactions mined of this wallet, and what gas costs."""

    number: int
    hash: bytes
    nonce: int
    fees: Fees


@dataclass(frozen=True, slots=True)
class Found:
    """What the chain says of an item: where one of its attempts was mined, and whether the contract
    took it (`ok`); `done`: the contract holds its effect, whoever caused it."""

    key: str
    place: Place | None = None
    ok: bool = True
    done: bool = False


@dataclass(frozen=True, slots=True)
class Estimated:
    key: str
    gas: int


@dataclass(frozen=True, slots=True)
class Signed:
    """The attempt is durable."""

    key: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Sent:
    key: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The contract would refuse it (estimated), or the chain did when it was `sent`."""

    key: str
    reason: str
    sent: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """The chain did not take it: `why` as in `records.SendRefused`."""

    key: str
    why: str
    detail: str


@dataclass(frozen=True, slots=True)
class Differs:
    """The contract holds something else under the item's name."""

    key: str
    detail: str


Event = Added | Looked | Found | Estimated | Signed | Sent | Refused | NotSent | Differs


# ---- effects ----


@dataclass(frozen=True, slots=True)
class Ask:
    """Find the item on chain; answer with `Found` or `Differs`."""

    key: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Answer with `Estimated` or `Refused`."""

    key: str


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign, make it durable, answer with `Signed`."""

    key: str
    nonce: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class Send:
    """Hand over the attempt of that hash; answer with `Sent`, `NotSent` or `Refused`."""

    key: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Fill:
    """Spend a nonce that nobody holds on nothing, so that those above it can be mined."""

    nonce: int
    fee: int
    tip: int


@dataclass(frozen=True, slots=True)
class Save:
    """Make the item's row durable; `dropped` is an attempt that can never be mined."""

    item: Item
    dropped: bytes = b""


@dataclass(frozen=True, slots=True)
class Settled:
    """The item is final or failed; its row is saved."""

    item: Item


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something an operator should see; nothing is lost by it."""

    code: str
    key: str
    detail: str


Effect = Ask | Estimate | Sign | Send | Fill | Save | Settled | Alarm


class OutboxCore:
    """Feed it events in the order they happen, and carry out each effect before the next one."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.items: dict[str, Item] = {}
        self._view = Looked(0, b"", 0, Fees(0, 0))
        self._used: set[int] = set()
        self._wait_until: dict[str, int] = {}
        self._sent_at: dict[str, int] = {}
        self._lost_at: dict[str, int] = {}  # the head when its nonce was first seen used up
        self._sent_now: set[str] = set()
        self._alarmed: dict[tuple[str, str], int] = {}

    def handle(self, now: int, event: Event) -> list[Effect]:
        if isinstance(event, Added):
            self.items[event.item.key] = event.item
            return []
        if isinstance(event, Looked):
            return self._looked(event)
        item = self.items.get(event.key)
        if item is None:  # it was settled earlier in this pass
            return []
        match event:
            case Found():
                return self._found(now, item, event)
            case Estimated(_, gas):
                return self._estimated(now, item, gas)
            case Signed(_, attempt):
                self._used.add(attempt.nonce)
                self._sent_at[item.key] = now
                attempts = (*item.attempts, attempt)
                self.items[item.key] = replace(item, state="signed", attempts=attempts, reason="")
                return [Send(item.key, attempt.hash)]
            case Sent():
                self._sent_at.setdefault(item.key, now)
                self._sent_now.add(item.key)
                return [Ask(item.key)]
            case Refused():
                return self._refused(now, item, event)
            case NotSent(_, why, detail):
                return self._not_sent(now, item, why, detail)
            case Differs(_, detail):
                self._wait_until[item.key] = now + self._patience.retry_us
                return self._alarm(now, "chain_mismatch", item.key, detail)

    # ---- a pass ----

    def _looked(self, view: Looked) -> list[Effect]:
        self._view, self._sent_now = view, set()
        live = {item.key: attempt for item in self.items.values() if (attempt := self._live(item))}
        may_send = (key for key in live if self._may_send(self.items[key]))
        self._used = {live[key].nonce for key in may_send}

        def order(item: Item) -> tuple[int, int, int]:
            held = item.state != "waiting"
            return (0 if held else 1, live[item.key].nonce if item.key in live else -1, item.seq)

        due = [
            item for item in self.items.values() if item.key in live or self._first_of_lane(item)
        ]
        return [Ask(item.key) for item in sorted(due, key=order)[:ASKS_MAX]]

    def _live(self, item: Item) -> Attempt | None:
        """The attempt that can be mined next: of the lowest unused nonce, the newest offer."""
        if item.state == "waiting":
            return None
        left = [one for one in item.attempts if one.nonce >= self._view.nonce]
        lowest = min((one.nonce for one in left), default=0)
        return next((one for one in reversed(left) if one.nonce == lowest), None)

    def _found(self, now: int, item: Item, found: Found) -> list[Effect]:
        if found.place is not None and not found.ok and not found.done:
            return self._mined_in_vain(now, item, found.place)
        if found.place is None and not found.done:
            return self._missing(now, item)
        self._lost_at.pop(item.key, None)
        place = found.place
        if place is None or not found.ok:  # the contract has it, by a transaction we do not know
            seen = item.place if item.place and not item.place.transaction else None
            place = seen or Place(b"", self._view.number, self._view.hash)
        if self._deep(item, place):
            return [
                *self._settle(replace(item, state="final", place=place, reason="")),
                *self._next(item),
            ]
        if (item.state, item.place) == ("mined", place):
            return []
        self.items[item.key] = item = replace(item, state="mined", place=place, reason="")
        return [Save(item), *self._next(item)]

    def _deep(self, item: Item, place: Place) -> bool:
        head = max(self._view.number, place.block)
        return head - place.block >= self._patience.confirmations + item.lag

    def _missing(self, now: int, item: Item) -> list[Effect]:
        """Nothing of it is on chain."""
        if item.key in self._sent_now:
            return []  # sent in this pass: it waits for a block
        attempt = self._live(item)
        if attempt is not None:
            self._lost_at.pop(item.key, None)
            return [*self._back_to_signed(item), *self._send_again(now, item, attempt)]
        if item.state != "waiting":
            seen = self._lost_at.setdefault(item.key, self._view.number)
            if self._view.number - seen < self._patience.confirmations:
                return []  # its nonce is used, the receipt may only be late
        if now < self._wait_until.get(item.key, 0) or not self._first_of_lane(item):
            return []
        return [Estimate(item.key)]

    def _back_to_signed(self, item: Item) -> list[Effect]:
        if item.state == "signed":
            return []
        self.items[item.key] = item = replace(item, state="signed", place=None)
        return [Save(item)]

    def _send_again(self, now: int, item: Item, attempt: Attempt) -> list[Effect]:
        if not self._may_send(item):
            return []
        self._used.add(attempt.nonce)
        gaps = [n for n in range(self._view.nonce, attempt.nonce) if n not in self._used]
        if gaps and not self._patience.has_pool:
            self._used.discard(attempt.nonce)
            return [Estimate(item.key)]  # it cannot be mined as it is, and never was sent on
        if now < self._wait_until.get(item.key, 0):
            return []
        fees = self._patience.fees.first(self._view.fees) if gaps else None
        fills: list[Effect] = [Fill(n, *fees) for n in gaps[:FILLS_MAX]] if fees else []
        self._used.update(gaps[:FILLS_MAX] if fees else [])
        late = now - self._sent_at.get(item.key, now) >= self._patience.bump_us
        if attempt.nonce != self._view.nonce or not late:
            return [*fills, Send(item.key, attempt.hash)]
        raised = self._patience.fees.raised(attempt.offer.fee, attempt.offer.tip, self._view.fees)
        if raised is None or len(item.attempts) >= ATTEMPTS_MAX:
            detail = f"it waits with {attempt.offer.fee} wei per gas, the most allowed"
            alarm = self._alarm(now, "gas_too_low", item.key, detail)
            return [*alarm, Send(item.key, attempt.hash)]
        return [Sign(item.key, attempt.nonce, Offer(attempt.offer.gas, *raised))]

    def _estimated(self, now: int, item: Item, gas: int) -> list[Effect]:
        fees = self._patience.fees.first(self._view.fees)
        if fees is None or gas > GAS_MAX:
            self._wait_until[item.key] = now + self._patience.retry_us
            asked = f"{self._view.fees.base + self._view.fees.tip} wei for each of {gas} gas"
            return self._alarm(now, "gas_too_low", item.key, f"the chain asks {asked}")
        nonce = self._view.nonce
        while nonce in self._used:
            nonce += 1
        return [Sign(item.key, nonce, Offer(min(GAS_MAX, gas + gas // 4), *fees))]

    # ---- what goes wrong ----

    def _mined_in_vain(self, now: int, item: Item, place: Place) -> list[Effect]:
        """The contract refused it in a block, and its nonce is spent."""
        if not self._deep(item, place):
            return []
        refused = Refused(item.key, f"refused in block {place.block}", sent=True)
        return self._refused(now, item, refused, place.transaction)

    def _refused(
        self, now: int, item: Item, refused: Refused, dropped: bytes = b""
    ) -> list[Effect]:
        if refused.sent and not dropped and (attempt := self._live(item)):
            dropped = attempt.hash
            self._used.discard(attempt.nonce)
        left = tuple(one for one in item.attempts if one.hash != dropped)
        item = replace(item, attempts=left, place=None, reason=refused.reason)
        if not item.keep:
            item = replace(item, state="failed")
            return [*self._settle(item, dropped), *self._next(item)]
        self._wait_until[item.key] = now + self._patience.retry_us
        self.items[item.key] = item = replace(item, state="waiting" if refused.sent else item.state)
        return [
            Save(item, dropped),
            *self._alarm(now, "contract_refused", item.key, refused.reason),
        ]

    def _not_sent(self, now: int, item: Item, why: str, detail: str) -> list[Effect]:
        if why == "nonce":  # our view is older than the chain; the next pass sees what became of it
            return []
        if why == "underpriced":
            self._sent_at[item.key] = now - self._patience.bump_us
            return []
        self._wait_until[item.key] = now + self._patience.retry_us
        code = "gas_too_low" if why == "funds" else "chain_unavailable"
        return self._alarm(now, code, item.key, detail)

    def _alarm(self, now: int, code: str, key: str, detail: str) -> list[Effect]:
        """Told at once, and then every `alarm_us` while it lasts."""
        told = self._alarmed.get((code, key))
        if told is not None and now - told < self._patience.alarm_us:
            return []
        if len(self._alarmed) >= ALARMS_KEPT_MAX:
            self._alarmed.clear()
        self._alarmed[code, key] = now
        return [Alarm(code, key, detail)]

    # ---- the ends ----

    def _settle(self, item: Item, dropped: bytes = b"") -> list[Effect]:
        for kept in (self.items, self._wait_until, self._sent_at, self._lost_at):
            kept.pop(item.key, None)
        return [Save(item, dropped), Settled(item)]

    def _first_of_lane(self, item: Item) -> bool:
        return not item.lane or not any(
            one.lane == item.lane and one.seq < item.seq and one.state in ("waiting", "signed")
            for one in self.items.values()
        )

    def _may_send(self, item: Item) -> bool:
        """What waits in a pool is out of our hands, and its nonce must be used. Without one, what
        the chain lost of a lane goes in its order again, and until then holds no nonce."""
        return self._patience.has_pool or self._first_of_lane(item)

    def _next(self, item: Item) -> list[Effect]:
        """The next of its lane may start."""
        waiting = [
            one
            for one in self.items.values()
            if item.lane and one.lane == item.lane and one.state != "mined" and one.seq > item.seq
        ]
        return [Ask(min(waiting, key=lambda one: one.seq).key)] if waiting else []
