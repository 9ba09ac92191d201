"""The credit ledger as the coordinator uses it: deploy once, post epochs, read them back.

On the local chain the contracts are the poster's first transactions, so their addresses follow
from the poster's key: deploying needs no record that a crash could lose, one that was killed goes
on, and every restart checks the ledger it finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header, PostedEpoch
from assay_contracts.deploy.plan import LOCAL, Creation, Parameters, Plan, immutables_differ
from assay_contracts.local.genesis import address_of
from assay_contracts.records import Block, Receipt
from assay_protocol.errors import AssayError

NO_ACCOUNT: Final = bytes(32)


class ChainBackend(Protocol):
    """A chain that mines what it is sent; `LocalChain` is one. Addresses are 20 bytes."""

    @property
    def chain_id(self) -> int: ...
    def call(self, to: bytes, data: bytes) -> bytes: ...
    def code(self, address: bytes) -> bytes: ...
    def nonce(self, address: bytes) -> int: ...
    def sign(
        self, key: bytes, to: bytes | None, data: bytes, *, nonce: int
    ) -> tuple[bytes, bytes]: ...
    def send_raw(self, raw: bytes) -> Receipt: ...
    def receipt(self, transaction_hash: bytes) -> Receipt | None: ...
    def block(self, which: int) -> Block | None: ...


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the ledger is: what an operator publishes and a verifier compares a bundle with."""

    chain_id: int
    address: bytes
    poster: bytes
    contracts: Mapping[str, bytes] = field(default_factory=dict)  # addresses, the ledger's too


class CreditLedgerClient:
    """Bound to one chain and one poster's secp256k1 key (`genesis.poster_key`); `account` is the
    Ed25519 key whose bond, if it has one, answers for what is posted."""

    def __init__(
        self,
        chain: ChainBackend,
        key: bytes,
        account: bytes = NO_ACCOUNT,
        parameters: Parameters = LOCAL,
    ) -> None:
        self.chain = chain
        self.poster = address_of(key)
        self.plan = Plan(self.poster, account, self.poster, chain.chain_id, parameters=parameters)
        self.address = self.plan.addresses[ledger_abi.CONTRACT]
        self._key = key

    def deploy(self) -> Deployment:
        """Creates the contracts that are not there. Raises AssayError("chain_mismatch") if other
        transactions stand where theirs belong, or the ledger is another."""
        at = self.plan.addresses
        if not all(self.chain.code(address) for address in at.values()):
            for creation in self.plan.creations():
                if not self.chain.code(creation.address):
                    self._create(creation)
        self._check_code()
        return Deployment(self.chain.chain_id, self.address, self.poster, at)

    def head(self) -> int:
        """The newest posted epoch; 0 before the first."""
        return ledger_abi.decode_number(self.chain.call(self.address, ledger_abi.head_call()))

    def epoch(self, epoch: int) -> PostedEpoch | None:
        return ledger_abi.decode_epoch(self.chain.call(self.address, ledger_abi.epochs_call(epoch)))

    def is_posted(self, epoch: int, header: Header) -> bool:
        """Whether the chain holds exactly this header; chain_mismatch if it holds another."""
        posted = self.epoch(epoch)
        if posted is None:
            return False
        if (posted.root, posted.total_cum, posted.leaves) != (
            header.root,
            header.total_cum,
            header.leaves,
        ):
            raise AssayError("chain_mismatch", f"epoch {epoch} is posted with another root")
        return True

    def sign_post(self, epoch: int, header: Header, nonce: int) -> tuple[bytes, bytes]:
        """The post as a signed transaction: (raw bytes, hash)."""
        call = ledger_abi.post_call(epoch, header)
        return self.chain.sign(self._key, self.address, call, nonce=nonce)

    def post(self, epoch: int, header: Header) -> None:
        """Posts unless it is posted; for one-off use. A coordinator goes through `Outbox`.

        Raises AssayError: "epoch_out_of_order", "chain_mismatch", "contract_refused".
        """
        if self.is_posted(epoch, header):
            return
        if epoch != self.head() + 1:
            raise AssayError("epoch_out_of_order", f"epoch {epoch} after {self.head()}")
        raw, _ = self.sign_post(epoch, header, self.chain.nonce(self.poster))
        self.chain.send_raw(raw)

    def _create(self, creation: Creation) -> None:
        if self.chain.nonce(self.poster) != creation.nonce:
            text = f"the poster's transaction {creation.nonce} made no {creation.contract}"
            raise AssayError("chain_mismatch", text)
        raw, _ = self.chain.sign(self._key, None, creation.code, nonce=creation.nonce)
        self.chain.send_raw(raw)

    def _check_code(self) -> None:
        code = self.chain.code(self.address)
        if not load(ledger_abi.CONTRACT).is_code(code):
            raise AssayError("chain_mismatch", "the ledger's code is not the artefact's")
        differ = immutables_differ(
            ledger_abi.CONTRACT, code, self.plan.configs()[ledger_abi.CONTRACT]
        )
        if differ:
            raise AssayError("chain_mismatch", f"the ledger has other values of {differ}")
