"""What was mined: blocks, transactions, receipts and events, by number or by hash."""

from __future__ import annotations

import threading
from typing import Any

from assay_contracts.local.evm import (
    CREATE_CONTRACT_ADDRESS,
    BlockNotFound,
    HeaderNotFound,
    TransactionNotFound,
)
from assay_contracts.local.genesis import contract_address
from assay_contracts.records import Block, Log, Receipt, Transaction


class MinedBlocks:
    """The reading half of `LocalChain`; every call takes its lock. `chain` is py-evm's."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self._lock = threading.RLock()

    def block(self, which: int | bytes) -> Block | None:
        """A canonical block by number, or any by hash."""
        with self._lock:
            header = self.header(which)
            return None if header is None else self._block(header)

    def receipt(self, transaction_hash: bytes) -> Receipt | None:
        with self._lock:
            found = self._find(transaction_hash)
            if found is None:
                return None
            header, index, transaction = found
            receipts = self._chain.chaindb.get_receipts(
                header, receipt_builder(self._chain, header)
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

    def mined(self, transaction_hash: bytes) -> tuple[Any, Any, Any] | None:
        """py-evm's own (header, transaction, receipt) of a mined transaction."""
        with self._lock:
            found = self._find(transaction_hash)
            if found is None:
                return None
            header, index, transaction = found
            builder = receipt_builder(self._chain, header)
            return header, transaction, self._chain.chaindb.get_receipts(header, builder)[index]

    def header(self, which: int | bytes) -> Any | None:
        """py-evm's own header of a canonical block by number, or of any by hash."""
        with self._lock:
            try:
                if isinstance(which, bytes):
                    return self._chain.get_block_header_by_hash(which)
                return self._chain.get_canonical_block_header_by_number(which)
            except (HeaderNotFound, BlockNotFound):
                return None

    def logs(self, block_hash: bytes, addresses: tuple[bytes, ...]) -> tuple[Log, ...]:
        """The events of these contracts in one block, in order; none if there is no such block."""
        header = self.header(block_hash)
        if header is None or not header.bloom:
            return ()
        with self._lock:
            names = self._chain.chaindb.get_block_transaction_hashes(header)
        receipts = (self.receipt(name) for name in names)
        return tuple(
            log
            for receipt in receipts
            if receipt is not None
            for log in receipt.logs
            if log.address in addresses
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


def receipt_builder(chain: Any, header: Any) -> Any:
    return chain.get_vm_class_for_block_number(header.block_number).get_receipt_builder()
