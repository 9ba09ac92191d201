"""The outbox: calls that must be on chain exactly once, whatever dies between any two steps.

`submit` returns when the row is durable; `run` brings the chain up to the rows, pass by pass, as
`outbox_core` decides; `settled` waits for the end. One Outbox per wallet: it alone gives nonces
away. Before each pass the newest final item's block is compared with the chain: if it is gone, the
chain is an older copy or was re-organised, and every item it lost is open again. Invariant L5.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

import trio
from sqlalchemy import Engine

from assay_contracts.adapters.backend import SequencedChain
from assay_contracts.adapters.offers import Call, Offer
from assay_contracts.adapters.outbox_core import (
    Added,
    Alarm,
    Ask,
    Attempt,
    Differs,
    Effect,
    Estimate,
    Estimated,
    Event,
    Fill,
    Found,
    Item,
    Looked,
    NotSent,
    OutboxCore,
    Patience,
    Place,
    Refused,
    Save,
    Send,
    Sent,
    Settled,
    Sign,
    Signed,
)
from assay_contracts.adapters.outbox_rows import METADATA as METADATA
from assay_contracts.adapters.outbox_rows import OutboxRows
from assay_contracts.adapters.outbox_rows import Request as Request
from assay_contracts.adapters.wallet import Wallet, transaction_hash
from assay_contracts.calls import refusal
from assay_contracts.records import ContractRefused, SendRefused
from assay_protocol.errors import AssayError

STEPS_MAX: Final = 20_000  # effects of one pass
PASS_SECONDS_MAX: Final = 300.0
POLL_SECONDS: Final = 2.0  # between passes while something is open
IDLE_SECONDS: Final = 10.0  # ... and while nothing is
RETRY_SECONDS: Final = 2.0
COMPLAINT_SECONDS: Final = 60.0  # between two alarms about one thing that stays wrong
WAITING_MAX: Final = 100_000
_FINALS_PAGE: Final = 256
_FILL_GAS: Final = 21_000
_T = TypeVar("_T")

Probe = Callable[[Item], Awaitable[bool]]
"""Whether the contract holds the item's effect; raises "chain_mismatch" if it holds another."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an item ended: where it is for good, or why it failed."""

    place: Place | None
    reason: str


class Outbox:
    """Runs in one trio task; `submit` and `settled` may be called from any of the same run."""

    def __init__(
        self,
        engine: Engine,
        chain: SequencedChain,
        wallet: Wallet,
        patience: Patience,
        *,
        probes: Mapping[str, Probe] | None = None,
        on_alarm: Callable[[Alarm], None] = lambda alarm: None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._chain, self._wallet = chain, wallet
        self._rows = OutboxRows(engine, wallet.address)
        self._core = OutboxCore(patience)
        self._probes = dict(probes or {})
        self._on_alarm, self._clock = on_alarm, clock
        self._complained: dict[str, float] = {}
        self._loaded = False
        self._writer = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._wake = trio.Event()
        self._waiting: dict[str, list[trio.Event]] = {}

    async def submit(self, request: Request) -> None:
        """Writes the call down; the same key and call again is a no-op, or a new try if it failed.

        Raises AssayError: "oversized", "chain_mismatch" (the key is another call's), "busy" (too
        many are open), "chain_unavailable" (only before the chain ever told its id), and what
        storage raises.
        """
        if len(self._core.items) >= WAITING_MAX:
            raise AssayError("busy", "the outbox is full", retry_after_ms=5_000)
        chain = await self._chain.chain_id()
        async with self._writer:
            item, begins = await self._io(lambda: self._rows.put(chain, request))
            if begins and self._loaded:
                self._core.handle(self._clock(), Added(item))
        self._wake.set()

    async def settled(self, key: str) -> Settlement:
        """Waits until the item is final or failed; raises "chain_mismatch" if there is none."""
        while True:
            ended = trio.Event()
            listed = self._waiting.setdefault(key, [])
            listed.append(ended)
            try:
                item = await self._io(lambda: self._rows.get(key))
                if item is None:
                    raise AssayError("chain_mismatch", f"nothing was submitted as {key}")
                if item.state in ("final", "failed"):
                    return Settlement(item.place, item.reason)
                await ended.wait()
            finally:
                listed.remove(ended)
                if not listed:
                    self._waiting.pop(key, None)

    async def run(self) -> NoReturn:
        """Passes until cancelled. What the chain or the disk raise is an alarm, and tried again."""
        while True:
            self._wake = trio.Event()
            seconds = RETRY_SECONDS
            try:
                with trio.fail_after(PASS_SECONDS_MAX):
                    await self.pump()
                seconds = POLL_SECONDS if self._core.items else IDLE_SECONDS
                self._complained.clear()
            except AssayError as error:
                self._complain(error.code, error.message)
            except trio.TooSlowError:
                self._complain("chain_unavailable", "a pass took too long")
            with trio.move_on_after(seconds):
                await self._wake.wait()

    def _complain(self, code: str, detail: str) -> None:
        """Once, and then every minute while it lasts."""
        now = trio.current_time()
        if now - self._complained.get(code, -math.inf) >= COMPLAINT_SECONDS:
            self._complained[code] = now
            self._on_alarm(Alarm(code, "", detail))

    async def pump(self) -> None:
        """One pass. Raises AssayError as the chain and the storage do; what was done is durable."""
        async with self._writer:
            try:
                await self._pass()
            except BaseException:
                self._loaded = False  # the rows know better what was done
                self._core.items.clear()
                raise

    async def last_final(self, lane: str) -> Item | None:
        """The newest item of a lane that is final, after a pass: on the chain as it is now."""
        await self.pump()
        return await self._io(lambda: self._rows.last_final(lane))

    @property
    def pending(self) -> int:
        """Items that are neither final nor failed, as far as a pass has seen them."""
        return len(self._core.items)

    async def _pass(self) -> None:
        await self._load()
        await self._reopen()
        nonce = await self._chain.nonce(self._wallet.address)
        fees = await self._chain.fees()
        head = await self._chain.head()
        queue = deque(self._handle(Looked(head.number, head.hash, nonce, fees)))
        for _ in range(STEPS_MAX):
            if not queue:
                return
            event = await self._do(queue.popleft())
            if event is not None:
                queue.extendleft(reversed(self._handle(event)))

    # ---- the chain's past ----

    async def _load(self) -> None:
        """The open rows; the chain's id is asked for with them, so that it is the right chain."""
        if self._loaded:
            return
        chain = await self._chain.chain_id()
        for item in await self._io(lambda: self._rows.open_items(chain)):
            self._handle(Added(item))
        self._loaded = True

    async def _reopen(self) -> None:
        """Whatever was final in a block that the chain no longer has is open again."""
        lost: list[str] = []
        while (found := await self._lost_after(len(lost))) is not None:
            lost += found
        if not lost:
            return
        self._on_alarm(Alarm("chain_mismatch", lost[-1], f"the chain lost {len(lost)} of ours"))
        for item in await self._io(lambda: self._rows.reopen(lost)):
            self._handle(Added(item))

    async def _lost_after(self, count: int) -> list[str] | None:
        """The next older items that the chain no longer holds; None if there are none."""
        finals = await self._io(lambda: self._rows.finals(count, _FINALS_PAGE))
        lost: list[str] = []
        for item in finals:
            assert item.place is not None
            if await self._holds(item.place):
                break
            lost.append(item.key)
        return lost or None

    async def _holds(self, place: Place) -> bool:
        block = await self._chain.block(place.block)
        return block is not None and block.hash == place.block_hash

    # ---- effects ----

    def _handle(self, event: Event) -> list[Effect]:
        return self._core.handle(self._clock(), event)

    async def _do(self, effect: Effect) -> Event | None:
        match effect:
            case Ask(key):
                asked = self._core.items.get(key)  # it may have been settled in this pass
                return None if asked is None else await self._ask(asked)
            case Estimate(key):
                return await self._estimate(self._core.items[key])
            case Sign(key, nonce, offer):
                return await self._sign(self._core.items[key], nonce, offer)
            case Send(key, name):
                return await self._send(key, await self._io(lambda: self._rows.raw(name)))
            case Fill(nonce, fee, tip):
                await self._fill(nonce, Offer(_FILL_GAS, fee, tip))
            case Save(item, dropped):
                await self._io(lambda: self._rows.save(item, dropped))
            case Settled(item):
                for ended in self._waiting.get(item.key, []):
                    ended.set()
            case Alarm():
                self._on_alarm(effect)
        return None

    async def _ask(self, item: Item) -> Event:
        vain: Found | None = None
        for attempt in reversed(item.attempts):
            receipt = await self._chain.receipt(attempt.hash)
            if receipt is not None:
                place = Place(receipt.transaction_hash, receipt.block, receipt.block_hash)
                if receipt.ok:
                    return Found(item.key, place)
                vain = Found(item.key, place, ok=False)
        probe = self._probes.get(item.kind)
        if probe is not None:
            try:
                if await probe(item):
                    return Found(item.key, done=True)
            except AssayError as error:
                if error.code != "chain_mismatch":
                    raise
                return Differs(item.key, error.message)
        return vain or Found(item.key)

    async def _estimate(self, item: Item) -> Event:
        try:
            call = item.call
            gas = await self._chain.estimate(self._wallet.address, call.to, call.data)
        except ContractRefused as refused:
            return Refused(item.key, _reason(refused), sent=False)
        return Estimated(item.key, gas)

    async def _sign(self, item: Item, nonce: int, offer: Offer) -> Event:
        raw = self._wallet.sign(await self._chain.chain_id(), nonce, item.call, offer)
        attempt = Attempt(transaction_hash(raw), nonce, offer)
        await self._io(lambda: self._rows.keep_attempt(item.key, attempt, raw))
        return Signed(item.key, attempt)

    async def _send(self, key: str, raw: bytes) -> Event:
        try:
            await self._chain.send_raw(raw)
        except ContractRefused as refused:
            return Refused(key, _reason(refused), sent=True)
        except SendRefused as refused:
            return NotSent(key, refused.why, refused.message)
        return Sent(key)

    async def _fill(self, nonce: int, offer: Offer) -> None:
        call = Call(self._wallet.address, b"")
        raw = self._wallet.sign(await self._chain.chain_id(), nonce, call, offer)
        try:
            await self._chain.send_raw(raw)
        except (ContractRefused, SendRefused) as refused:
            self._on_alarm(Alarm(refused.code, "", f"nonce {nonce} is not filled: {refused}"))

    async def _io(self, action: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(action, limiter=self._thread)


def _reason(refused: ContractRefused) -> str:
    """The contract's own word for it, if it is one of ours."""
    known = refusal(refused.output)
    return refused.message if known is None else str(known)
