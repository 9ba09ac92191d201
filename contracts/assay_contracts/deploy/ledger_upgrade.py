"""A new ledger in place of the one of the day: contracts are never changed, so it is another one.

Rules: the successor goes on from the newest final epoch of the ledger before it and reads there
what was claimed; epochs that are not final yet are posted again. Until governance has the token
name it, the old ledger pays and slashes; from then on it can do neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from assay_contracts import calls
from assay_contracts.adapters.backend import Chain
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.deploy.deployment import Save, Tell, ask, check_deployer, create
from assay_contracts.deploy.deployment_record import Record, Successor
from assay_contracts.deploy.plan import Creation, immutables_differ
from assay_contracts.local.genesis import contract_address
from assay_protocol.errors import AssayError

LEDGER = "CreditLedger"


@dataclass(frozen=True, slots=True)
class Handover:
    """What governance has to pass: one call that makes `ledger` the token's minter."""

    ledger: bytes
    target: bytes
    payload: bytes


async def upgrade(
    chain: Chain, wallet: Wallet, record: Record, save: Save, tell: Tell
) -> tuple[Record, Handover]:
    """Creates the successor, unless one waits for governance already, and says what to propose.

    Raises AssayError as `deploy`; "epoch_out_of_order" if no epoch is final yet.
    """
    await check_deployer(chain, wallet, record)
    record = await _without_lost(chain, record)
    token = record.plan.addresses["CreditToken"]
    minter = await ask(chain, token, "CreditToken", "minter")
    if not record.successors or record.successors[-1].address == minter:
        record = await _next(chain, record)
        save(record)
    successor = record.successors[-1]
    if not await chain.code(successor.address):
        config = record.plan.ledger_config(successor.previous, successor.base_epoch)
        code = calls.constructor(LEDGER, config)
        creation = Creation(LEDGER, successor.address, successor.nonce, code)
        tell(f"creating a ledger that goes on after epoch {successor.base_epoch}")

        def sending(transaction: bytes) -> None:
            nonlocal record
            record = _with_last(record, lambda one: replace(one, transaction=transaction))
            save(record)

        await create(chain, wallet, creation, sending)
    code = await chain.code(successor.address)
    config = record.plan.ledger_config(successor.previous, successor.base_epoch)
    if differ := immutables_differ(LEDGER, code, config):
        raise AssayError("chain_mismatch", f"the new ledger has other values of {differ}")
    digest = hashlib.sha256(code).digest()
    record = _with_last(record, lambda one: replace(one, code_sha256=digest))
    save(record)
    payload = calls.encode("CreditToken", "setMinter", successor.address)
    return record, Handover(successor.address, token, payload)


async def newest_final(chain: Chain, ledger: bytes) -> int:
    """0 if none is. Epochs become final in order, so the border is found by halving."""
    low, high = 0, await ask(chain, ledger, LEDGER, "head")
    assert isinstance(high, int)
    while low < high:
        middle = (low + high + 1) // 2
        if await ask(chain, ledger, LEDGER, "isFinal", middle):
            low = middle
        else:
            high = middle - 1
    return low


async def _next(chain: Chain, record: Record) -> Record:
    """The record with the successor that is to be created, at the deployer's next nonce."""
    plan = record.plan
    previous = record.successors[-1].address if record.successors else plan.addresses[LEDGER]
    base = await newest_final(chain, previous)
    if base == 0:
        raise AssayError("epoch_out_of_order", "no epoch is final yet: there is nothing to go on")
    nonce = await chain.nonce(plan.deployer)
    address = contract_address(plan.deployer, nonce)
    successor = Successor(address, previous, base, nonce)
    return replace(record, successors=(*record.successors, successor))


async def _without_lost(chain: Chain, record: Record) -> Record:
    """A last successor whose nonce another transaction used will never be there."""
    if not record.successors:
        return record
    last = record.successors[-1]
    used = await chain.nonce(record.plan.deployer) > last.nonce
    if used and not await chain.code(last.address):
        return replace(record, successors=record.successors[:-1])
    return record


def _with_last(record: Record, change: Callable[[Successor], Successor]) -> Record:
    return replace(record, successors=(*record.successors[:-1], change(record.successors[-1])))
