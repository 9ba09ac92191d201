"""One transaction by hand: for commands whose contracts make a second one harmless.

Programs that must send exactly once go through the outbox. Codes: those of `backend.Chain`, and
"timeout" when the transaction was not mined in time (it may be, later).
"""

from __future__ import annotations

from typing import Final

import trio

from assay_contracts.adapters.backend import Chain
from assay_contracts.adapters.offers import Call, FeeBounds, Offer
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.calls import explained
from assay_contracts.records import ContractRefused, Receipt
from assay_protocol.errors import AssayError

MINED_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.5
_SPARE: Final = (5, 4)  # gas to offer beside what was estimated


async def transact(chain: Chain, wallet: Wallet, call: Call) -> Receipt:
    """Send `call` and wait until it is mined. A call that would be refused is not sent:
    ContractRefused says by which error."""
    try:
        gas = await chain.estimate(wallet.address, call.to, call.data)
    except ContractRefused as refused:
        raise explained(refused) from None
    fees = FeeBounds().first(await chain.fees())
    if fees is None:
        raise AssayError("gas_too_low", "the chain asks for more than the bound on fees")
    offer = Offer(gas * _SPARE[0] // _SPARE[1], *fees)
    nonce = await chain.nonce(wallet.address)
    raw = wallet.sign(await chain.chain_id(), nonce, call, offer)
    try:
        name = await chain.send_raw(raw)
    except ContractRefused as refused:  # the embedded chain runs it at once
        raise explained(refused) from None
    receipt = await _mined(chain, name)
    if not receipt.ok:
        raise AssayError("contract_refused", f"mined and refused: {receipt.transaction_hash.hex()}")
    return receipt


async def _mined(chain: Chain, name: bytes) -> Receipt:
    with trio.move_on_after(MINED_SECONDS):
        while True:
            receipt = await chain.receipt(name)
            if receipt is not None:
                return receipt
            await trio.sleep(POLL_SECONDS)
    raise AssayError("timeout", f"transaction {name.hex()} is not mined yet")
