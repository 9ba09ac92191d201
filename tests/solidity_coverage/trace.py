"""An EVM that says which instructions ran and which way they jumped, in the place of pyrevm's.

pyrevm's own trace takes a third of a millisecond an instruction; py-evm, which is Python anyway,
is asked directly. Only what the tests use of pyrevm is here. Gas is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final

from eth.vm.code_stream import CodeStream
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.spurious_dragon import computation as code_limit
from eth.vm.message import Message
from eth.vm.transaction_context import BaseTransactionContext
from eth_utils import keccak

from assay_contracts.local.evm import CREATE_CONTRACT_ADDRESS, AtomicDB
from assay_contracts.local.genesis import Genesis, contract_address
from solidity_coverage.targets import JUMPI

CHAIN_ID: Final = 1  # pyrevm's
CODE_BYTES_MAX: Final = 1 << 17  # without the optimizer a contract may be larger than chains take
GAS: Final = 10**9
_HASHES: Final = 256

Frame = tuple[str, bool] | None  # contract and whether it is its creation; None: not one of ours


class Seen:
    """Instructions that ran, and outcomes of conditional jumps, by frame."""

    def __init__(self) -> None:
        self.steps: set[tuple[Frame, int]] = set()
        self.jumps: set[tuple[Frame, int, bool]] = set()


class TracedEVM:
    """Stands in for pyrevm.EVM; `identify` names the contract of a code."""

    seen: Seen
    identify: Callable[[bytes, bool], str | None]

    def __init__(self, **_: Any) -> None:
        code_limit.EIP170_CODE_SIZE_LIMIT = CODE_BYTES_MAX
        chain = Genesis(bytes([1]) * 20, CHAIN_ID).create(AtomicDB())
        self._state = chain.get_vm().state
        self.result: SimpleNamespace | None = None

    def deploy(self, deployer: str, code: bytes) -> str:
        sender = _raw(deployer)
        address = contract_address(sender, self._state.get_nonce(sender))
        message = Message(
            gas=GAS,
            to=CREATE_CONTRACT_ADDRESS,
            sender=sender,
            value=0,
            data=b"",
            code=bytes(code),
            create_address=address,
        )
        self._run(_Traced.apply_create_message, message)
        return "0x" + address.hex()

    def message_call(self, caller: str, to: str, *, calldata: bytes) -> bytes:
        code = self._state.get_code(_raw(to))
        message = Message(
            gas=GAS, to=_raw(to), sender=_raw(caller), value=0, data=calldata, code=code
        )
        return self._run(_Traced.apply_message, message)

    def set_block_env(self, block: Any) -> None:
        context = self._state.execution_context
        context._timestamp, context._block_number = block.timestamp, block.number or 1
        context._prev_hashes = _Hashes(context._block_number)

    def storage(self, address: str, slot: int) -> int:
        return int(self._state.get_storage(_raw(address), slot))

    def insert_account_storage(self, address: str, slot: int, value: int) -> None:
        self._state.set_storage(_raw(address), slot, value)

    def snapshot(self) -> Any:
        return self._state.snapshot()

    def revert(self, snapshot: Any) -> None:
        self._state.revert(snapshot)

    def _run(self, apply: Callable[..., Any], message: Message) -> bytes:
        self._state.increment_nonce(message.sender)
        context = BaseTransactionContext(gas_price=0, origin=message.sender)
        done = apply(self._state, message, context)
        used = done.get_gas_used()
        if done.is_error:
            output = bytes(done.output).hex()
            raise RuntimeError(f"Revert {{ gas_used: {used}, output: 0x{output} }}")
        logs = [
            SimpleNamespace(
                address="0x" + address.hex(), data=([t.to_bytes(32) for t in topics], data)
            )
            for address, topics, data in done.get_log_entries()
        ]
        self.result = SimpleNamespace(logs=logs, gas_used=used)
        return bytes(done.output)


class _Code(CodeStream):
    """Tells each instruction as it is about to run."""

    def __init__(self, code: bytes, frame: Frame, seen: Seen) -> None:
        super().__init__(code)
        self._frame, self._seen = frame, seen

    def __iter__(self) -> Iterator[int]:
        steps, frame, jump = self._seen.steps, self._frame, None
        for op in super().__iter__():
            pc = self.program_counter - 1
            steps.add((frame, pc))
            if jump is not None:
                self._seen.jumps.add((frame, jump, pc != jump + 1))
            jump = pc if op == JUMPI else None
            yield op


class _Traced(PragueComputation):  # type: ignore[misc]  # py-evm is untyped here
    def __init__(self, state: Any, message: Any, context: Any) -> None:
        super().__init__(state, message, context)
        name = TracedEVM.identify(bytes(message.code), message.is_create)
        frame = (name, message.is_create) if name else None
        self.code = _Code(message.code, frame, TracedEVM.seen)


class _Hashes:
    """pyrevm's hashes of the blocks before `number`, the newest first."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._number - 1, max(-1, self._number - 1 - _HASHES), -1):
            yield keccak(text=str(number))


def _raw(address: str) -> bytes:
    return bytes.fromhex(address.removeprefix("0x"))
