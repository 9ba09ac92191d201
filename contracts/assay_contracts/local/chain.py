"""The default chain: an EVM in this process, on one SQLite file, one block per transaction.

It needs no server and no Node.js, and what it writes can be executed again by anybody, block by
block. Rules: block 0 follows from `Genesis` alone; block times come from `clock` but always rise; a
transaction the contract refuses leaves no block; a block and its producer's seal are one SQLite
transaction, so kill -9 at any instruction leaves the chain at the block before or after. A sealed
block is kept in `guard` first: no two are ever sealed at one height (invariant H1). Every call
takes one lock: the object may be shared by threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol, Self

import rlp
from eth_keys import keys
from eth_utils import ValidationError

from assay_contracts.local.block_rules import (
    TRANSACTION_BYTES_MAX,
    check_block,
    check_executed,
    check_transaction,
    next_header,
)
from assay_contracts.local.evm import (
    CREATE_CONTRACT_ADDRESS,
    ZERO_ADDRESS,
    AtomicDB,
    HeaderNotFound,
    VMError,
)
from assay_contracts.local.execution import enough_gas, refusal, run_call
from assay_contracts.local.genesis import (
    TRANSACTION_GAS_MAX,
    Genesis,
    address_of,
    chain_class,
)
from assay_contracts.local.kv import SqliteStore
from assay_contracts.local.mined_blocks import MinedBlocks, receipt_builder
from assay_contracts.records import Block, ContractRefused, KeptBlock, Receipt
from assay_protocol.errors import AssayError
from assay_protocol.limits import CHAIN_BLOCK_BYTES_MAX
from assay_protocol.seals import check_block_seal, seal_block
from assay_protocol.signing import Signer

CALL_GAS: Final = TRANSACTION_GAS_MAX
SEND_GAS: Final = TRANSACTION_GAS_MAX
META_FINALITY: Final = "finality"  # the newest FinalityProof
_META_CHAIN: Final = "chain_id"
_META_POSTER: Final = "poster"
_META_PRODUCER: Final = "producer"


class Guard(Protocol):
    """Remembers what was sealed, apart from the chain's file; `sealed.SealGuard` is one."""

    def keep(self, block: KeptBlock) -> None: ...
    def highest(self) -> KeptBlock | None: ...
    def after(self, number: int) -> Iterator[KeptBlock]: ...


class LocalChain(MinedBlocks):
    """An open chain; make it with `LocalChain.open`.

    `producer` is the key (32 bytes) whose seal every block must have; None: blocks have no seals,
    as tests want it. `finalized_number` says up to where the chain is final; None: all of it.
    """

    def __init__(
        self,
        store: SqliteStore,
        chain: Any,
        genesis: Genesis,
        *,
        clock: Callable[[], int],
        signer: Signer | None,
        guard: Guard | None,
    ) -> None:
        super().__init__(chain)
        self._store = store
        self._clock = clock
        self._latest = 0  # seconds: what is over for a call is over for later transactions, too
        self._signer, self._guard = signer, guard
        self._behind_guard = guard is not None
        self.genesis = genesis
        self.chain_id = genesis.chain_id
        self.genesis_hash: bytes = chain.get_canonical_block_header_by_number(0).hash
        self.producer = store.meta(_META_PRODUCER)
        self.finalized_number: Callable[[], int] | None = None

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        genesis: Genesis | None = None,
        clock: Callable[[], int] | None = None,
        read_only: bool = False,
        signer: Signer | None = None,
        guard: Guard | None = None,
        producer: bytes | None = None,
        durable: bool = True,
        exclusive: bool = False,
    ) -> LocalChain:
        """Opens the chain in `path`, making it from `genesis` if there is none and it may write.

        Without `genesis` the one recorded in the file is taken. Its producer opens it with its
        `signer` and `guard`, a follower with the `producer`'s key. Blocks the guard kept and the
        file lost are executed again. Raises AssayError("chain_mismatch") if the file is no chain,
        is another one or another's, or contradicts the guard; "chain_unavailable" if it was to be
        `exclusive` and is open elsewhere.
        """
        producer = signer.public_key if signer is not None else producer
        store = SqliteStore(Path(path), read_only=read_only, durable=durable, exclusive=exclusive)
        try:
            recorded = _recorded_genesis(store)
            if recorded is None:
                if genesis is None or read_only:
                    raise AssayError("chain_mismatch", f"{path} holds no chain")
                with store.block():
                    genesis.create(store.atomic())
                    store.set_meta(_META_CHAIN, genesis.chain_id.to_bytes(32))
                    store.set_meta(_META_POSTER, genesis.poster)
                    if producer is not None:
                        store.set_meta(_META_PRODUCER, producer)
            wanted = genesis or recorded
            assert wanted is not None
            chain = chain_class(wanted.chain_id)(store.atomic())
            _check_genesis(chain, wanted, recorded)
            if producer is not None and store.meta(_META_PRODUCER) != producer:
                raise AssayError("chain_mismatch", f"{path} is the chain of another producer")
            opened = cls(store, chain, wanted, clock=clock or _seconds, signer=signer, guard=guard)
            opened._catch_up()
        except BaseException:
            store.close()
            raise
        return opened

    def head_block(self) -> Block:
        with self._lock:
            return self._block(self._chain.get_canonical_head())

    def finalized_block(self) -> Block:
        """The newest block the bonded nodes agreed on; the head while nobody has a bond."""
        number = None if self.finalized_number is None else self.finalized_number()
        with self._lock:
            return self._block(self._header(number))

    def call(
        self,
        to: bytes,
        data: bytes,
        *,
        sender: bytes = ZERO_ADDRESS,
        at: int | None = None,
        gas: int = CALL_GAS,
    ) -> bytes:
        """Runs without a transaction, on block `at`, or as a transaction sent now would: on the
        head's state, at this time. Raises ContractRefused, also if it takes more than `gas`."""
        with self._lock:
            vm = self._chain.get_vm(self._next() if at is None else self._header(at))
            return bytes(run_call(vm, to, data, sender, gas).output)

    def estimate(self, sender: bytes, to: bytes | None, data: bytes, *, gas: int = CALL_GAS) -> int:
        """Gas with which the transaction passes now, at most `gas`. Raises ContractRefused."""
        with self._lock:
            vm = self._chain.get_vm(self._next())
            return enough_gas(vm, to, data, sender, gas)

    def code(self, address: bytes, *, at: int | None = None) -> bytes:
        with self._lock:
            return bytes(self._chain.get_vm(self._header(at)).state.get_code(address))

    def nonce(self, address: bytes, *, at: int | None = None) -> int:
        """Transactions `address` has had mined."""
        with self._lock:
            return int(self._chain.get_vm(self._header(at)).state.get_nonce(address))

    def balance(self, address: bytes, *, at: int | None = None) -> int:
        """In wei, which buy nothing here: transactions are free."""
        with self._lock:
            return int(self._chain.get_vm(self._header(at)).state.get_balance(address))

    def sign(
        self, key: bytes, to: bytes | None, data: bytes, *, nonce: int, gas: int = SEND_GAS
    ) -> tuple[bytes, bytes]:
        """A signed transaction as (raw bytes, hash); `to` None creates a contract."""
        with self._lock:
            head = self._chain.get_canonical_head()
            builder = self._chain.get_vm(head).get_transaction_builder()
            unsigned = builder.new_unsigned_dynamic_fee_transaction(
                chain_id=self.chain_id,
                nonce=nonce,
                max_priority_fee_per_gas=0,
                max_fee_per_gas=head.base_fee_per_gas,  # 0, for ever (block_rules)
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

        Raises ContractRefused if it reverts, "chain_mismatch" if it is no valid next transaction
        (nonce, signature, fee) or this is not the producer, "gas_too_low" and "oversized" beyond
        the rules of blocks, "storage_failed" if the disk refuses; none of them leaves a block.
        """
        if len(raw) > TRANSACTION_BYTES_MAX:
            raise AssayError("oversized", "a transaction of more than 128 KiB")
        if self._signer is None and self.producer is not None:
            raise AssayError("chain_mismatch", "only its producer adds blocks to this chain")
        with self._lock:
            self._catch_up()
            try:
                name = self._add(raw)
            except AssayError as error:
                if error.code != "storage_failed":
                    raise
                self._catch_up()  # if it was sealed, it is to be there
                name = self._decode(raw, self._chain.get_canonical_head()).hash
                if self.receipt(name) is None:
                    raise
        receipt = self.receipt(name)
        assert receipt is not None
        return receipt

    def decode_transaction(self, raw: bytes) -> Any:
        """py-evm's own transaction; raises AssayError("chain_mismatch") if the bytes are none."""
        with self._lock:
            return self._decode(raw, self._chain.get_canonical_head())

    def sealed_block(self, number: int) -> KeptBlock | None:
        """Block `number` as RLP with its seal (empty without a producer); None above the head and
        for block 0, which follows from the genesis."""
        with self._lock:
            if not 0 < number <= self._chain.get_canonical_head().block_number:
                return None
            block = self._chain.get_canonical_block_by_number(number)
            return KeptBlock(
                number, bytes(block.hash), rlp.encode(block), self._store.seal(number) or b""
            )

    def import_block(self, raw: bytes, seal: bytes) -> Block:
        """Executes the next block of another's copy of this chain and adds it if all is equal.

        Raises AssayError: "oversized", "malformed" (no block), "bad_signature" (not sealed by the
        producer), "chain_mismatch" (it is not the next block, or executed it gives another).
        """
        if len(raw) > CHAIN_BLOCK_BYTES_MAX:
            raise AssayError("oversized", "a block of more than 256 KiB")
        with self._lock:
            parent = self._chain.get_canonical_head()
            block = self._decode_block(raw)
            number = block.header.block_number
            if self.producer is not None:
                # A seal names its height: with the parent's it would be evidence, not a block.
                check_block_seal(seal, self.producer, self.chain_id, number, block.hash)
            check_block(block, parent, self.chain_id)
            with self._store.block():
                try:  # py-evm would check all again that `check_executed` and the rules do
                    result = self._chain.import_block(block, perform_validation=False)
                except (ValidationError, VMError) as error:
                    raise AssayError("chain_mismatch", f"block {number}: {error}") from None
                check_executed(result.imported_block, block)
                if self._last_refused(block):
                    raise AssayError("chain_mismatch", f"block {number}: its transaction failed")
                if self.producer is not None:
                    self._store.set_seal(number, seal)
            return self._block(block.header)

    def backup(self, path: Path) -> None:
        """Copies the chain to a new file while it runs. Raises AssayError("storage_failed")."""
        with self._lock:
            self._store.backup(path)

    def meta(self, name: str) -> bytes | None:
        """What `set_meta` kept beside the blocks."""
        with self._lock:
            return self._store.meta(name)

    def set_meta(self, name: str, value: bytes) -> None:
        with self._lock, self._store.block():
            self._store.set_meta(name, value)

    def send(self, key: bytes, to: bytes | None, data: bytes, *, gas: int = SEND_GAS) -> Receipt:
        """Signs with the account's next nonce and mines; errors as `send_raw`."""
        with self._lock:
            self._catch_up()
            raw, _ = self.sign(key, to, data, nonce=self.nonce(address_of(key)), gas=gas)
            return self.send_raw(raw)

    def close(self) -> None:
        with self._lock:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _add(self, raw: bytes) -> bytes:
        """One block in one SQLite transaction; the hash of what it holds."""
        with self._store.block():
            parent = self._chain.get_canonical_head()
            transaction = self._decode(raw, parent)
            check_transaction(transaction, raw, self.chain_id)
            self._seal(self._mine(transaction))
        self._behind_guard = False
        return bytes(transaction.hash)

    def _next(self) -> Any:
        """The header a transaction sent now would get. Where nobody sends any, the head's time
        stands still, and what a contract lets happen from a time on would never be seen to."""
        parent = self._chain.get_canonical_head()
        vm_class = self._chain.get_vm_class_for_block_number(parent.block_number + 1)
        self._latest = max(self._latest, self._clock(), parent.timestamp + 1)
        return next_header(vm_class, parent, self._latest)

    def _mine(self, transaction: Any) -> Any:
        self._chain.header = self._next()
        try:
            mined, _, (computation,) = self._chain.mine_all((transaction,))
        except (ValidationError, VMError) as error:
            raise AssayError("chain_mismatch", f"no valid transaction: {error}") from None
        if computation.is_error:
            raise ContractRefused(bytes(computation.output), refusal(computation))
        return mined.imported_block

    def _seal(self, block: Any) -> None:
        """Inside the block's SQLite transaction: first the guard has it, then the chain."""
        if self._signer is None:
            return
        number, block_hash = block.header.block_number, bytes(block.hash)
        seal = seal_block(self._signer, self.chain_id, number, block_hash)
        self._store.set_seal(number, seal)
        if self._guard is not None:
            self._behind_guard = True  # until the chain's own commit is done
            self._guard.keep(KeptBlock(number, block_hash, rlp.encode(block), seal))

    def _catch_up(self) -> None:
        """Executes what the guard kept and this file has not: it was sealed, so it stays."""
        if self._guard is None or not self._behind_guard:
            return
        newest = self._guard.highest()
        if newest is not None:
            head = self._chain.get_canonical_head().block_number
            kept = next(self._guard.after(head), None)
            if kept is not None and kept.number != head + 1:
                raise AssayError(
                    "chain_mismatch",
                    f"blocks {head + 1} to {kept.number - 1} were sealed and are lost here;"
                    " `coordinator chain restore` takes them from a follower",
                )
            for kept in self._guard.after(head):
                self.import_block(kept.raw, kept.seal)
            found = self.block(newest.number)
            if found is None or found.hash != newest.hash:
                raise AssayError(
                    "chain_mismatch",
                    f"block {newest.number} was sealed with another hash than it has in this file",
                )
        self._behind_guard = False

    def _last_refused(self, block: Any) -> bool:
        receipts = self._chain.chaindb.get_receipts(
            block.header, receipt_builder(self._chain, block.header)
        )
        return any(receipt.state_root != b"\x01" for receipt in receipts)  # EIP-658

    def _decode_block(self, raw: bytes) -> Any:
        try:
            return rlp.decode(raw, sedes=self._chain.get_vm().get_block_class())
        except Exception as error:  # rlp and py-evm raise a dozen kinds for foreign bytes
            kind = type(error).__name__
            raise AssayError("malformed", f"the bytes are no block: {kind}") from None

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


def _seconds() -> int:
    return int(time.time())
