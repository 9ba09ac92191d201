"""The credit ledger as the coordinator uses it: deploy once, post epochs, read them back.

The ledger is the poster's first transaction, so its address follows from the poster's key:
deploying needs no record that a crash could lose, and every restart checks the code it finds there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from assay_contracts import ledger_abi
from assay_contracts.artefact import load
from assay_contracts.genesis import address_of, contract_address
from assay_contracts.ledger_abi import Header, PostedEpoch
from assay_contracts.records import Block, Receipt
from assay_protocol.errors import AssayError

_DEPLOY_NONCE = 0
_WINDOW_SECONDS = 86_400


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


class CreditLedgerClient:
    """Bound to one chain and one poster's secp256k1 key (`genesis.poster_key`)."""

    def __init__(self, chain: ChainBackend, key: bytes) -> None:
        self.chain = chain
        self.poster = address_of(key)
        self.address = contract_address(self.poster, _DEPLOY_NONCE)
        self._key = key

    def deploy(self) -> Deployment:
        """Deploys unless it is there. Raises AssayError("chain_mismatch") if other code is."""
        if not self.chain.code(self.address):
            if self.chain.nonce(self.poster) != _DEPLOY_NONCE:
                raise AssayError("chain_mismatch", "the poster's first transaction made no ledger")
            raw, _ = self.chain.sign(self._key, None, self.creation(), nonce=_DEPLOY_NONCE)
            self.chain.send_raw(raw)
        self._check_code()
        return Deployment(self.chain.chain_id, self.address, self.poster)

    def creation(self) -> bytes:
        """The code that makes the ledger, with what it is told."""
        return load(ledger_abi.CONTRACT).bytecode + _configuration(self.poster)

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

    def _check_code(self) -> None:
        if not load(ledger_abi.CONTRACT).is_code(self.chain.code(self.address)):
            raise AssayError("chain_mismatch", "the ledger's code is not the artefact's")
        poster = ledger_abi.decode_number(self.chain.call(self.address, ledger_abi.poster_call()))
        if poster != int.from_bytes(self.poster):
            raise AssayError("chain_mismatch", "the ledger takes epochs from another poster")


def _configuration(poster: bytes) -> bytes:
    """The constructor's Config: a ledger that stands alone, without a token to pay claims with."""
    words = [int.from_bytes(poster), 0, 0, 0, 0, _WINDOW_SECONDS, 0, 0, 0, 0, 0]
    return b"".join(map(ledger_abi.word, words))
