"""GET /v1/receipts/{id}/credit: the proof that a receipt was booked, passed on unjudged.

The bundle of the node that drew the answer is public; the coordinator makes it. What the ledger on
chain holds is read here only where the owner named a chain, so that who proves and who says the
root are two. The caller does every check itself (web/verify, or `assay credit verify`).
"""

from __future__ import annotations

import base64
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from assay.cli import load
from assay.credit_command import chain_at
from assay.gateway.exchange import Exchange
from assay.gateway.refusal import Refusal, refusal_of
from assay_protocol.errors import AssayError
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek

BUNDLE_BYTES_MAX: Final = 8 << 20  # of a proof that is passed on; `assay credit verify` takes more
CHAIN_SECONDS: Final = 15.0
_at_once = trio.CapacityLimiter(4)  # threads that wait for a chain


async def credit(exchange: Exchange) -> None:
    """The node's newest bundle, and what the chain holds of its epoch, if one is read."""
    service = exchange.service
    record = service.receipt(exchange.caller, exchange.parameter("receipt"))
    node = peek(Ticket, record.ticket).node
    raw = await service.credit_bundle(node, BUNDLE_BYTES_MAX)
    if raw is None:  # no epoch with credit of that node is on the chain yet
        await exchange.reply({"object": "credit", "account": node.hex(), "bundle": None})
        return
    bundle = _decoded(raw)
    chain = service.settings.chain
    posted = await _read(chain, bundle) if chain else None
    await exchange.reply(
        {
            "object": "credit",
            "account": bundle.account.hex(),
            "epoch": bundle.epoch,
            "chain_id": str(bundle.chain_id),
            "ledger": bundle.ledger.hex(),
            # What `assay credit verify --bundle` reads, in base64.
            "bundle": base64.b64encode(raw).decode(),
            "posted": posted,
        }
    )


def _decoded(raw: bytes) -> Any:
    try:
        return load("assay_contracts.credit.bundle", "contracts").CreditBundle.decode(raw)
    except AssayError as error:  # the coordinator's fault, not the caller's
        raise Refusal(502, error.code, f"the coordinator's proof is none: {error}") from error


async def _read(chain: str, bundle: Any) -> dict[str, Any]:
    with trio.move_on_after(CHAIN_SECONDS):
        try:
            return await trio.to_thread.run_sync(  # type: ignore[call-arg]  # older stubs
                _posted, chain, bundle, limiter=_at_once, abandon_on_cancel=True
            )
        except AssayError as error:
            raise refusal_of(error) from error
    raise Refusal(504, "timeout", "the chain did not answer in time")


def _posted(chain: str, bundle: Any) -> dict[str, Any]:
    """What the ledger's storage and event say. Large numbers are decimal texts."""
    posting = load("assay_contracts.credit.posted", "contracts")
    artefact = load("assay_contracts.artefact", "contracts")
    ledger_abi = load("assay_contracts.credit.ledger_abi", "contracts")
    with chain_at(chain) as reader:
        found = {
            "source": urlsplit(chain).hostname,  # the rest of a URL may be a secret
            "chain_id": str(reader.chain_id()),
            "is_ledger": artefact.load(ledger_abi.CONTRACT).is_code(reader.code(bundle.ledger)),
            "epoch": None,
            "before": None,
            "policy": None,
            "final": False,
        }
        if not found["is_ledger"]:
            return found  # nothing such a contract answers means anything

        def epoch(number: int) -> dict[str, Any] | None:
            call = ledger_abi.epochs_call(number)
            one = ledger_abi.decode_epoch(reader.call(bundle.ledger, call))
            if one is None:
                return None
            numbers = {"total": str(one.total_cum), "leaves": one.leaves, "at": one.posted_at}
            return {"root": one.root.hex(), **numbers}

        found["epoch"] = epoch(bundle.epoch)
        found["before"] = epoch(bundle.epoch - 1) if bundle.epoch > 1 else None
        if found["epoch"] is not None:
            header = posting.posting(reader, bundle.ledger, bundle.epoch).header
            found["policy"] = header.policy.hex()
            is_final = reader.call(bundle.ledger, ledger_abi.is_final_call(bundle.epoch))
            found["final"] = ledger_abi.decode_flag(is_final)
        return found
