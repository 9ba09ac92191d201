"""Puts Assay's contracts on a chain, once, and checks what is there.

Rules: a contract is created by the transaction that the plan names for it, or not at all; before
anything is sent, what is sent stands in the record; what is there is never created again. So a
deployment that was killed goes on when it is run again, and one that is complete is only checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import trio

from assay_contracts import calls
from assay_contracts.adapters.backend import Chain
from assay_contracts.adapters.offers import Call, FeeBounds, Offer
from assay_contracts.adapters.wallet import Wallet, transaction_hash
from assay_contracts.artefact import load
from assay_contracts.credit.verify import Report, Step
from assay_contracts.deploy.deployment_record import Record
from assay_contracts.deploy.plan import NOBODY, TARGETS, Creation, Plan, immutables_differ
from assay_contracts.records import ContractRefused, Receipt, SendRefused
from assay_protocol.errors import AssayError

GAS_MAX: Final = 10_000_000  # the local chain's bound; no contract needs half of it
GAS_MARGIN: Final = 1.2
POLL_SECONDS: Final = 1.0
OFFER_SECONDS: Final = 60.0  # then more is offered
OFFERS_MAX: Final = 10
FIRST_BLOCKS: Final = 16
TRANSACTIONS_MAX: Final = 16

Save = Callable[[Record], None]
Tell = Callable[[str], None]


async def deploy(chain: Chain, wallet: Wallet, record: Record, save: Save, tell: Tell) -> Record:
    """Creates what is not there yet; `save` must have kept what it is given when it returns.

    Raises AssayError: "chain_mismatch" (another chain, other code, a nonce used otherwise),
    "gas_too_low" (fees beyond the bound, or no funds), "timeout", "contract_refused".
    """
    plan = record.plan
    await check_deployer(chain, wallet, record)
    save(record)
    for creation in plan.creations():
        name = creation.contract
        if not await chain.code(creation.address):
            await _check_nonce(chain, plan, creation)

            def sending(transaction: bytes, name: str = name) -> None:
                nonlocal record
                record = record.with_transaction(name, transaction)
                save(record)

            tell(f"creating {name} at 0x{creation.address.hex()}")
            await create(chain, wallet, creation, sending)
        code = await chain.code(creation.address)
        _check_code(creation, code, plan)
        record = record.with_code(name, hashlib.sha256(code).digest())
        save(record)
    return record


async def check_deployer(chain: Chain, wallet: Wallet, record: Record) -> None:
    """Raises AssayError("chain_mismatch") if the record is of another chain or wallet."""
    if await chain.chain_id() != record.plan.chain_id:
        raise AssayError("chain_mismatch", f"the record is of chain {record.plan.chain_id}")
    if wallet.address != record.plan.deployer:
        deployer = record.plan.deployer.hex()
        raise AssayError("chain_mismatch", f"the record is of the deployer 0x{deployer}")


async def create(
    chain: Chain, wallet: Wallet, creation: Creation, sending: Callable[[bytes], None]
) -> None:
    """One contract, offering more from time to time until it is there."""
    bounds = FeeBounds()
    try:
        enough = await chain.estimate(wallet.address, None, creation.code)
    except ContractRefused as refused:
        raise calls.explained(refused) from None
    gas = min(GAS_MAX, int(GAS_MARGIN * enough))
    offered = bounds.first(await chain.fees())
    for _ in range(OFFERS_MAX):
        if offered is None:
            raise AssayError("gas_too_low", "the chain asks more per gas than may be offered")
        offer = Offer(gas, *offered)
        call = Call(None, creation.code)
        raw = wallet.sign(await chain.chain_id(), creation.nonce, call, offer)
        sending(transaction_hash(raw))
        await _send(chain, raw)
        if await _is_there(chain, creation, transaction_hash(raw)):
            return
        offered = bounds.raised(*offered, await chain.fees())
    raise AssayError("timeout", f"{creation.contract} was not mined; run it again")


async def verify(chain: Chain, record: Record) -> Report:
    """Every contract's code, every immutable, and the wiring that is kept in storage."""
    plan = record.plan
    steps = []
    told = await chain.chain_id()
    steps.append(Step("chain", told == plan.chain_id, f"chain id {told}"))
    configs = plan.configs()
    for name, address in plan.addresses.items():
        code = await chain.code(address)
        steps += _code_steps(name, address, code, configs[name])
    for successor in record.successors:
        config = plan.ledger_config(successor.previous, successor.base_epoch)
        code = await chain.code(successor.address)
        steps += _code_steps("CreditLedger", successor.address, code, config)
    if all(step.ok for step in steps):
        steps += await _storage_steps(chain, record)
    return Report(all(step.ok for step in steps), tuple(steps))


async def ask(chain: Chain, to: bytes, contract: str, function: str, *arguments: object) -> object:
    """What a function that returns one value answers; refusals in words."""
    data = calls.encode(contract, function, *arguments)
    try:
        (value,) = calls.decode(contract, function, await chain.call(to, data))
    except ContractRefused as refused:
        raise calls.explained(refused) from None
    return value


async def _storage_steps(chain: Chain, record: Record) -> list[Step]:
    """What code does not show: who mints, what the timelock waits for, and what the constructors
    of the timelock and of governance were told, which their events say."""
    plan, at = record.plan, record.plan.addresses
    minter = await ask(chain, at["CreditToken"], "CreditToken", "minter")
    ledgers = (at["CreditLedger"], *(one.address for one in record.successors))
    timelock = at["TimelockController"]
    wait = await ask(chain, timelock, "TimelockController", "getMinDelay")
    return [
        Step("CreditToken: minter", minter in ledgers, f"{calls.shown(minter)}"),
        Step(
            "TimelockController: delay", wait == plan.parameters.timelock_delay, f"{wait} seconds"
        ),
        await _events_step(
            chain, record, "TimelockController", "RoleGranted", await _roles(chain, at)
        ),
        await _events_step(
            chain, record, "Governance", "TargetListed", {(at[name],) for name in TARGETS}
        ),
    ]


async def _roles(chain: Chain, at: dict[str, bytes]) -> set[tuple[object, ...]]:
    """Exactly who may do what in the timelock: it rules itself, governance proposes and cancels,
    anybody executes."""
    timelock, governance = at["TimelockController"], at["Governance"]
    holders = {
        "DEFAULT_ADMIN_ROLE": timelock,
        "PROPOSER_ROLE": governance,
        "CANCELLER_ROLE": governance,
        "EXECUTOR_ROLE": NOBODY,
    }
    roles = {name: await ask(chain, timelock, "TimelockController", name) for name in holders}
    return {(roles[name], holder) for name, holder in holders.items()}


async def _events_step(
    chain: Chain, record: Record, contract: str, event: str, wanted: set[tuple[object, ...]]
) -> Step:
    """Whether the contract's creation told exactly `wanted`, the events' first arguments."""
    name, address = f"{contract}: {event}", record.plan.addresses[contract]
    transaction = record.made(contract).transaction
    receipt = None if transaction is None else await chain.receipt(transaction)
    if receipt is None:
        receipt = await _creation(chain, address)
    if receipt is None or receipt.contract != address:
        return Step(name, False, "the transaction that created it was not found")
    told = [calls.events(contract, log) for log in receipt.logs if log.address == address]
    size = len(next(iter(wanted)))
    found = [tuple(values.values())[:size] for kind, values in told if kind == event]
    ok = set(found) == wanted and len(found) == len(wanted)
    return Step(name, ok, f"{len(found)} told at its creation, {len(wanted)} wanted")


async def _creation(chain: Chain, address: bytes) -> Receipt | None:
    """The receipt of the transaction that created `address`, if it is in the chain's first blocks:
    there a local chain has them."""
    for number in range(1, FIRST_BLOCKS + 1):
        block = await chain.block(number)
        for name in () if block is None else block.transactions[:TRANSACTIONS_MAX]:
            receipt = await chain.receipt(name)
            if receipt is not None and receipt.contract == address:
                return receipt
    return None


def _code_steps(name: str, address: bytes, code: bytes, config: dict[str, object]) -> list[Step]:
    where = f"0x{address.hex()}"
    if not load(name).is_code(code):
        said = "other code" if code else "no code"
        return [Step(f"{name}: code", False, f"{said} at {where}")]
    differ = immutables_differ(name, code, config)
    count = len(load(name).immutables)
    said = f"not as recorded: {', '.join(differ)}" if differ else f"all {count} as recorded"
    return [
        Step(f"{name}: code", True, f"the artefact's at {where}"),
        Step(f"{name}: immutables", not differ, said),
    ]


def _check_code(creation: Creation, code: bytes, plan: Plan) -> None:
    config = plan.configs()[creation.contract]
    for step in _code_steps(creation.contract, creation.address, code, config):
        if not step.ok:
            raise AssayError("chain_mismatch", f"{step.name}: {step.detail}")


async def _check_nonce(chain: Chain, plan: Plan, creation: Creation) -> None:
    nonce = await chain.nonce(plan.deployer)
    if nonce != creation.nonce:
        text = f"{creation.contract} is not there, and the deployer's next nonce is {nonce}"
        raise AssayError("chain_mismatch", f"{text}, not {creation.nonce}")


async def _send(chain: Chain, raw: bytes) -> None:
    """A nonce that is used, or an offer below one under way, means that ours may be there soon."""
    try:
        await chain.send_raw(raw)
    except SendRefused as refused:
        if refused.why not in ("nonce", "underpriced"):
            raise
    except ContractRefused as refused:
        raise calls.explained(refused) from None


async def _is_there(chain: Chain, creation: Creation, name: bytes) -> bool:
    """Whether the contract comes to be before more should be offered."""
    deadline = trio.current_time() + OFFER_SECONDS
    while trio.current_time() < deadline:
        if await chain.code(creation.address):
            return True
        receipt = await chain.receipt(name)
        if receipt is not None and not receipt.ok:
            raise AssayError("contract_refused", f"{creation.contract} was not created")
        await trio.sleep(POLL_SECONDS)
    return False
