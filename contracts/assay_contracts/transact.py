"""One transaction of a person's own wallet, sent and waited for: what a command does, no service.

A service that must not lose or repeat a call uses the outbox. Here the person sees what became of
it: refused before it is sent (nothing is spent), mined, or not seen in time (its hash is told).
"""

from __future__ import annotations

from typing import Final

import trio

from assay_contracts import calls
from assay_contracts.backend import Chain
from assay_contracts.records import ContractRefused, Receipt
from assay_contracts.wallet import Call, FeeBounds, Offer, Wallet
from assay_protocol.errors import AssayError

GAS_MAX: Final = 10_000_000  # of a transaction; the local chain takes no more
GAS_MARGIN: Final = 1.25
MINED_SECONDS_MAX: Final = 300.0
POLL_SECONDS: Final = 0.5


async def transact(
    chain: Chain,
    wallet: Wallet,
    to: bytes,
    data: bytes,
    bounds: FeeBounds = FeeBounds(),
    seconds_max: float = MINED_SECONDS_MAX,
) -> Receipt:
    """The receipt of the mined call. Raises AssayError: ContractRefused with the contract's own
    words, "gas_too_low", "timeout" (naming the transaction), "chain_unavailable"."""
    try:
        gas = await chain.estimate(wallet.address, to, data)
        offered = bounds.first(await chain.fees())
        if offered is None or gas > GAS_MAX:
            raise AssayError("gas_too_low", "the chain asks more than may be offered")
        offer = Offer(min(GAS_MAX, int(gas * GAS_MARGIN)), *offered)
        nonce = await chain.nonce(wallet.address)
        raw = wallet.sign(await chain.chain_id(), nonce, Call(to, data), offer)
        name = await chain.send_raw(raw)
    except ContractRefused as refused:
        raise calls.explained(refused) from None
    with trio.move_on_after(seconds_max):
        while (receipt := await chain.receipt(name)) is None:
            await trio.sleep(POLL_SECONDS)
        if not receipt.ok:
            raise ContractRefused(b"", f"the contract refused transaction 0x{name.hex()}")
        return receipt
    raise AssayError("timeout", f"not mined yet; look for transaction 0x{name.hex()}")
