"""The default chain: an EVM in this process, on one SQLite file, one block per transaction.

It needs no server and no Node.js, and what it writes can be executed again by anybody, block by
block. Rules: block 0 follows from `Genesis` alone; block times come from `clock` but always rise; a
transaction the contract refuses leaves no block; a block is one SQLite transaction, so kill -9 at
any instruction leaves the chain at the block before or after. Every call takes one lock: the
object may be shared by threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from eth_keys import keys
from eth_utils import ValidationError

from assay_contracts.evm import (
    CREATE_CONTRACT_ADDRESS,
    ZERO_ADDRESS,
    AtomicDB,
    BlockNotFound,
    HeaderNotFound,
    SpoofTransaction,
    TransactionNotFound,
    VMError,
)
from assay_contracts.genesis import Genesis, address_of, chain_class, contract_address
from assay_contracts.kv import SqliteStore
from assay_contracts.records import Block, ContractRefused, Log, Receipt, Transaction
from assay_protocol.errors import AssayError

CALL_GAS: Final = 10_000_000
SEND_GAS: Final = 10_000_000
TRANSACTION_BYTES_MAX: Final = 128 * 1024
_META_CHAIN: Final = "chain_id"
_META_POSTER: Final = "poster"


class LocalChain:
    """An open chain; make it with `LocalChain.open`."""

    def __init__(
        self, store: SqliteStore, chain: Any, chain_id: int, clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._chain = chain
        self._clock = clock
        self._lock = threading.RLock()
        self.chain_id = chain_id
        self.genesis_hash: bytes = chain.get_canonical_block_header_by_number(0).hash

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        genesis: Genesis | None = None,
        clock: Callable[[], int] | None = None,
        read_only: bool = False,
    ) -> LocalChain:
        """Opens the chain in `path`, making it from `genesis` if there is none and it may write.

        Without `genesis` the one recorded in the file is taken. Raises AssayError("chain_mismatch")
        if the file is no chain, or its block 0 is not the one `genesis` gives.
        """
        store = SqliteStore(Path(path), read_only=read_only)
        try:
            recorded = _recorded_genesis(store)
            if recorded is None:
                if genesis is None or read_only:
                    raise AssayError("chain_mismatch", f"{path} holds no chain")
                with store.block():
                    genesis.create(store.atomic())
                    store.set_meta(_META_CHAIN, genesis.chain_id.to_bytes(32))
                    store.set_meta(_META_POSTER, genesis.poster)
            wanted = genesis or recorded
            assert wanted is not None
            chain = chain_class(wanted.chain_id)(store.atomic())
            _check_genesis(chain, wanted, recorded)
        except BaseException:
            store.close()
            raise
        return cls(store, chain, wanted.chain_id, clock or _seconds)

    def head_block(self) -> Block:
        with self._lock:
            return self._block(self._chain.get_canonical_head())

    def block(self, which: int | bytes) -> Block | None:
        """A canonical block by number, or any by hash."""
        with self._lock:
            try:
                if isinstance(which, bytes):
                    return self._block(self._chain.get_block_header_by_hash(which))
                return self._block(self._chain.get_canonical_block_header_by_number(which))
            except (HeaderNotFound, BlockNotFound):
                return None

    def call(
        self, to: bytes, data: bytes, *, sender: bytes = ZERO_ADDRESS, at: int | None = None
    ) -> bytes:
        """Runs without a transaction, on block `at` or the head. Raises ContractRefused."""
        with self._lock:
            vm = self._chain.get_vm(self._header(at))
            # Gas costs nothing in a call, but the sender must still be a transaction's sender.
            unsigned = vm.create_unsigned_transaction(
                nonce=vm.state.get_nonce(sender),
                gas_price=0,
                gas=CALL_GAS,
                to=to,
                value=0,
                data=data,
            )
            with vm.in_costless_state() as state:
                computation = state.costless_execute_transaction(
                    SpoofTransaction(unsigned, from_=sender)
                )
        if computation.is_error:
            raise ContractRefused(bytes(computation.output), _reason(computation))
        return bytes(computation.output)

    def code(self, address: bytes, *, at: int | None = None) -> bytes:
        with self._lock:
            return bytes(self._chain.get_vm(self._header(at)).state.get_code(address))

    def nonce(self, address: bytes) -> int:
        """Transactions `address` has had mined."""
        with self._lock:
            return int(self._chain.get_vm(self._header(None)).state.get_nonce(address))

    def sign(
        self, key: bytes, to: bytes | None, data: bytes, *, nonce: int, gas: int = SEND_GAS
    ) -> tuple[bytes, bytes]:
        """A signed transaction as (raw bytes, hash); `to` None creates a contract."""
        with self._lock:
            head = self._chain.get_canonical_head()
            builder = self._chain.get_vm(head).get_transaction_builder()
            # The fee only has to outlive the base fee's possible rise until it is mined.
            unsigned = builder.new_unsigned_dynamic_fee_transaction(
                chain_id=self.chain_id,
                nonce=nonce,
                max_priority_fee_per_gas=0,
                max_fee_per_gas=2 * head.base_fee_per_gas,
                gas=gas,
                to=CREATE_CONTRACT_ADDRESS if to is None else to,
                value=0,
                data=data,
                access_list=(),
            )
            signed = unsigned.as_signed_transaction(keys.PrivateKey(key))
            return bytes(signed.encode()), bytes(signed.hash)

    def send_raw(self, raw: bytes) -> Receipt:
        """Mines a signed transaction in a block of its own, committed when this returns.

        Raises ContractRefused if it reverts and AssayError("chain_mismatch") if it is no valid next
        transaction (nonce, signature, fee); neither leaves a block.
        """
        if len(raw) > TRANSACTION_BYTES_MAX:
            raise AssayError("oversized", "a transaction of more than 128 KiB")
        with self._lock, self._store.block():
            parent = self._chain.get_canonical_head()
            transaction = self._decode(raw, parent)
            vm_class = self._chain.get_vm_class_for_block_number(parent.block_number + 1)
            self._chain.header = vm_class.create_header_from_parent(
                parent, timestamp=max(parent.timestamp + 1, self._clock())
            )
            try:
                _, _, (computation,) = self._chain.mine_all((transaction,))
            except (ValidationError, VMError) as error:
                raise AssayError("chain_mismatch", f"no valid transaction: {error}") from None
            if computation.is_error:
                raise ContractRefused(bytes(computation.output), _reason(computation))
        receipt = self.receipt(transaction.hash)
        assert receipt is not None
        return receipt

    def send(self, key: bytes, to: bytes | None, data: bytes, *, gas: int = SEND_GAS) -> Receipt:
        """Signs with the account's next nonce and mines; errors as `send_raw`."""
        with self._lock:
            raw, _ = self.sign(key, to, data, nonce=self.nonce(address_of(key)), gas=gas)
            return self.send_raw(raw)

    def receipt(self, transaction_hash: bytes) -> Receipt | None:
        with self._lock:
            found = self._find(transaction_hash)
            if found is None:
                return None
            header, index, transaction = found
            receipts = self._chain.chaindb.get_receipts(
                header, _receipt_builder(self._chain, header)
            )
            receipt = receipts[index]
            before = receipts[index - 1].gas_used if index else 0
        creates = transaction.to == CREATE_CONTRACT_ADDRESS
        return Receipt(
            transaction_hash,
            header.block_number,
            bytes(header.hash),
            receipt.gas_used - before,
            bytes(transaction.sender),
            None if creates else bytes(transaction.to),
            contract_address(transaction.sender, transaction.nonce) if creates else None,
            tuple(
                Log(bytes(log.address), tuple(t.to_bytes(32) for t in log.topics), bytes(log.data))
                for log in receipt.logs
            ),
        )

    def transaction(self, transaction_hash: bytes) -> Transaction | None:
        with self._lock:
            found = self._find(transaction_hash)
        if found is None:
            return None
        header, _, mined = found
        return Transaction(
            transaction_hash,
            header.block_number,
            bytes(header.hash),
            mined.nonce,
            bytes(mined.sender),
            None if mined.to == CREATE_CONTRACT_ADDRESS else bytes(mined.to),
            bytes(mined.data),
            mined.gas,
        )

    def close(self) -> None:
        with self._lock:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _decode(self, raw: bytes, head: Any) -> Any:
        try:
            return self._chain.get_vm(head).get_transaction_builder().decode(raw)
        except Exception as error:  # rlp and py-evm raise a dozen kinds for foreign bytes
            kind = type(error).__name__
            raise AssayError("chain_mismatch", f"the bytes are no transaction: {kind}") from None

    def _header(self, number: int | None) -> Any:
        if number is None:
            return self._chain.get_canonical_head()
        try:
            return self._chain.get_canonical_block_header_by_number(number)
        except HeaderNotFound:
            raise AssayError("chain_mismatch", f"there is no block {number}") from None

    def _find(self, transaction_hash: bytes) -> tuple[Any, int, Any] | None:
        try:
            number, index = self._chain.get_canonical_transaction_index(transaction_hash)
        except TransactionNotFound:
            return None
        header = self._chain.get_canonical_block_header_by_number(number)
        return header, index, self._chain.get_canonical_transaction_by_index(number, index)

    def _block(self, header: Any) -> Block:
        return Block(
            header.block_number,
            bytes(header.hash),
            bytes(header.parent_hash),
            bytes(header.state_root),
            header.timestamp,
            header.gas_used,
            header.gas_limit,
            header.base_fee_per_gas,
            tuple(bytes(h) for h in self._chain.chaindb.get_block_transaction_hashes(header)),
        )


def _recorded_genesis(store: SqliteStore) -> Genesis | None:
    chain_id, poster = store.meta(_META_CHAIN), store.meta(_META_POSTER)
    if chain_id is None or poster is None:
        return None
    return Genesis(poster, int.from_bytes(chain_id))


def _check_genesis(chain: Any, wanted: Genesis, recorded: Genesis | None) -> None:
    expected = wanted.create(AtomicDB()).get_canonical_block_header_by_number(0).hash
    found = chain.get_canonical_block_header_by_number(0).hash
    # The chain id is not part of a header, so it is compared on its own.
    if found != expected or (recorded is not None and recorded != wanted):
        raise AssayError("chain_mismatch", "the file holds a chain with another genesis")


def _receipt_builder(chain: Any, header: Any) -> Any:
    return chain.get_vm_class_for_block_number(header.block_number).get_receipt_builder()


def _reason(computation: Any) -> str:
    return f"the contract refused: {type(computation.error).__name__} 0x{computation.output.hex()}"


def _seconds() -> int:
    return int(time.time())
