"""Claims: a node's key says who is paid, and the ledger pays what a final epoch proves.

Everything is asked of the chain first, so running it again does what is left to do, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from assay_contracts import calls
from assay_contracts.adapters.backend import Chain
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.rpc_chain import RpcChain
from assay_contracts.adapters.transact import transact
from assay_contracts.adapters.wallet import Wallet, show_address
from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.bundle import CreditBundle, Statement
from assay_contracts.ed25519_hints import signed
from assay_protocol.credit_tree import encode_proof
from assay_protocol.errors import AssayError
from assay_protocol.signing import Identity

LEDGER: Final = ledger_abi.CONTRACT
REGISTRY: Final = "NodeRegistry"
BIND_DOMAIN: Final = b"assay/1/Bind\0"
_NOBODY: Final = bytes(20)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one role was paid, in micro-credits; 0 and no transaction if nothing was left."""

    role: int
    amount: int
    hash: bytes


def claim(
    bundle: CreditBundle,
    seed: bytes,
    url: str,
    *,
    ledger: bytes | None = None,
    payee: bytes | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Claimed]:
    """Bind the node's key to `payee` (its own wallet if None and it is bound to nobody), then claim
    every statement of `bundle`.

    Raises AssayError: "chain_mismatch" (another chain, ledger or code than the bundle's),
    "epoch_unknown" (void, or never posted), "epoch_open" (not final yet), "contract_refused",
    "timeout", and what the chain raises.
    """

    async def run() -> list[Claimed]:
        chain = RpcChain(url)
        try:
            return await Claims(chain, bundle, seed, say).run(ledger, payee)
        finally:
            await chain.aclose()

    return trio.run(run)


class Claims:
    """One account's claims on one ledger."""

    def __init__(
        self, chain: Chain, bundle: CreditBundle, seed: bytes, say: Callable[[str], None]
    ) -> None:
        self._chain, self._bundle, self._say = chain, bundle, say
        self._key = Identity(seed)
        self._wallet = Wallet.of_seed(seed)

    async def run(self, ledger: bytes | None, payee: bytes | None) -> list[Claimed]:
        await self._check(ledger)
        left = [await self._left(statement) for statement in self._bundle.statements]
        if any(left):
            await self._bind(payee)
        return [
            await self._claim(statement, amount)
            for statement, amount in zip(self._bundle.statements, left, strict=True)
        ]

    async def _check(self, ledger: bytes | None) -> None:
        """The bundle is of this chain, of this ledger, of this key; and its epoch is final."""
        bundle = self._bundle
        if await self._chain.chain_id() != bundle.chain_id:
            raise AssayError("chain_mismatch", "the bundle is of another chain")
        if ledger not in (None, bundle.ledger):
            raise AssayError("chain_mismatch", "the bundle is of another ledger")
        if not load(LEDGER).is_code(await self._chain.code(bundle.ledger)):
            raise AssayError("chain_mismatch", "the ledger's code is not the artefact's")
        if bundle.account != self._key.public_key:
            raise AssayError("proof_invalid", "the bundle is another account's")
        epoch = bundle.epoch
        if (await self._ask("epochs", epoch))[0] == bytes(32):
            raise AssayError("epoch_unknown", f"epoch {epoch} was voided, or never posted")
        if not (await self._ask("isFinal", epoch))[0]:
            raise AssayError("epoch_open", f"epoch {epoch} can still be challenged; claim later")

    async def _left(self, statement: Statement) -> int:
        leaf = statement.leaf
        [claimed] = await self._ask("claimed", leaf.account, leaf.role)
        return max(0, leaf.cumulative - int(claimed))

    async def _bind(self, payee: bytes | None) -> None:
        """Say on the chain who is paid, unless it is said."""
        [registry] = await self._ask("registry")
        key = self._key.public_key
        [bound] = await self._ask("payeeOf", key, of=(REGISTRY, registry))
        wanted = payee or (self._wallet.address if bound == _NOBODY else bound)
        if bound == wanted:
            return
        self._say(f"binding the key to {show_address(wanted)}")
        [nonce] = await self._ask("nonceOf", key, of=(REGISTRY, registry))
        place = self._bundle.chain_id.to_bytes(32) + registry + wanted
        signature = signed(self._key, BIND_DOMAIN + place + int(nonce).to_bytes(32))
        data = calls.encode(REGISTRY, "bind", key, wanted, signature)
        await transact(self._chain, self._wallet, Call(registry, data))

    async def _claim(self, statement: Statement, amount: int) -> Claimed:
        leaf = statement.leaf
        if not amount:
            return Claimed(leaf.role, 0, b"")
        self._say(f"claiming {amount} micro-credits of role {leaf.role}")
        proof = encode_proof(statement.proof)
        data = calls.encode(LEDGER, "claim", self._bundle.epoch, leaf, statement.index, proof)
        receipt = await transact(self._chain, self._wallet, Call(self._bundle.ledger, data))
        return Claimed(leaf.role, amount, receipt.transaction_hash)

    async def _ask(
        self, function: str, *arguments: object, of: tuple[str, bytes] | None = None
    ) -> tuple[Any, ...]:
        contract, address = of or (LEDGER, self._bundle.ledger)
        answer = await self._chain.call(address, calls.encode(contract, function, *arguments))
        return calls.decode(contract, function, answer)
