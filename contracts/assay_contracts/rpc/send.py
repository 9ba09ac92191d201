"""What the public may write: transactions to Assay's own contracts, few enough for one thread.

They are free, so what bounds them is here: their target, size and gas, and two token buckets, one
for each sender and one for all. A transaction counts before it is run: one that reverts leaves no
block but costs as much.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from assay_contracts.hex_texts import hexed
from assay_contracts.local.chain import LocalChain
from assay_contracts.records import ContractRefused
from assay_contracts.rpc.values import REFUSED, RpcFault, at, busy, data_in
from assay_protocol.errors import AssayError

SEND_BYTES_MAX: Final = 64 * 1024
SEND_GAS_MAX: Final = 3_000_000
ALL_BURST: Final = 64
ALL_PER_SECOND: Final = 2.0
SENDER_BURST: Final = 16
SENDER_PER_SECOND: Final = 0.2
SENDERS_MAX: Final = 4_096


class Bucket:
    """Holds up to `burst` tokens and gains `rate` a second; `now` in seconds of any clock."""

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst, self._rate = burst, rate
        self._tokens, self._at = float(burst), now

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 if there is one."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self._rate

    def take(self) -> None:
        self._tokens -= 1


class Sends:
    """Takes `eth_sendRawTransaction`; one thread at a time. `clock` in seconds, monotonic."""

    def __init__(self, chain: LocalChain, clock: Callable[[], float]) -> None:
        self._chain, self._clock = chain, clock
        self._targets = frozenset(chain.genesis.contracts())
        self._all = Bucket(ALL_BURST, ALL_PER_SECOND, clock())
        self._senders: OrderedDict[bytes, Bucket] = OrderedDict()

    def send(self, chain: LocalChain, params: list[Any]) -> str:
        """Mines the transaction and gives its hash; one that is mined already is no error."""
        raw = data_in(at(params, 0))
        if len(raw) > SEND_BYTES_MAX:
            raise RpcFault(REFUSED, "oversized data")
        transaction, sender = self._decode(raw)
        name = bytes(transaction.hash)
        if chain.receipt(name) is not None:
            return hexed(name)
        self._check(transaction, sender)
        self._pay(sender)
        try:
            return hexed(chain.send_raw(raw).transaction_hash)
        except ContractRefused:
            raise
        except AssayError as error:
            raise RpcFault(REFUSED, error.message) from None

    def _decode(self, raw: bytes) -> tuple[Any, bytes]:
        try:
            transaction = self._chain.decode_transaction(raw)
            return transaction, bytes(transaction.sender)
        except AssayError as error:
            raise RpcFault(REFUSED, error.message) from None
        except Exception as error:  # a signature that is none; py-evm raises several kinds
            raise RpcFault(REFUSED, f"invalid signature: {type(error).__name__}") from None

    def _check(self, transaction: Any, sender: bytes) -> None:
        if bytes(transaction.to) not in self._targets:
            raise RpcFault(REFUSED, "only transactions to Assay's contracts are taken here")
        if transaction.value:
            raise RpcFault(REFUSED, "this chain has no coin to send")
        if transaction.gas > SEND_GAS_MAX:
            raise RpcFault(REFUSED, f"gas limit above {SEND_GAS_MAX}")
        nonce = self._chain.nonce(sender)
        if transaction.nonce != nonce:
            word = "low" if transaction.nonce < nonce else "high"
            raise RpcFault(REFUSED, f"nonce too {word}: next is {nonce}")

    def _pay(self, sender: bytes) -> None:
        now = self._clock()
        own = self._senders.get(sender) or Bucket(SENDER_BURST, SENDER_PER_SECOND, now)
        self._senders[sender] = own
        self._senders.move_to_end(sender)
        if len(self._senders) > SENDERS_MAX:
            self._senders.popitem(last=False)
        seconds = max(own.wait(now), self._all.wait(now))
        if seconds > 0:
            raise busy("too many transactions", int(seconds * 1000) + 1)
        own.take()
        self._all.take()
