"""Ways to read a chain when checking credit and draws: any JSON-RPC node, or the local chain's
own file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from assay_contracts import hex_texts
from assay_contracts.credit.http_post import Poster
from assay_contracts.hex_texts import hexed
from assay_contracts.records import Log
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay_contracts.local.chain import LocalChain


@dataclass(frozen=True, slots=True)
class MinedNote:
    """A mined transaction as far as it is read here; `to` is empty if it created a contract."""

    sender: bytes
    to: bytes
    data: bytes
    block: int


class BlockReader(Protocol):
    """What a check of the audit lottery asks of a chain."""

    def transaction(self, name: bytes) -> MinedNote | None: ...
    def block_hash(self, number: int) -> bytes | None: ...
    def notes(self, number: int) -> tuple[MinedNote, ...]: ...


class ChainReader(Protocol):
    """What a verification of credit asks of a chain; state is that of the newest block."""

    def chain_id(self) -> int: ...
    def code(self, address: bytes) -> bytes: ...
    def call(self, to: bytes, data: bytes) -> bytes: ...
    def head(self) -> int: ...
    def timestamp(self, number: int) -> int | None:
        """Seconds, of a block; None if there is no such block."""
        ...

    def logs(self, number: int, address: bytes) -> tuple[Log, ...]:
        """A contract's events in one block."""
        ...


class HttpChain:
    """An Ethereum JSON-RPC node. Raises AssayError: "timeout", "peer_gone", "chain_mismatch"
    (an answer that is none), "contract_refused" (the node reports an error)."""

    def __init__(self, url: str, *, send: Callable[[bytes], bytes] | None = None) -> None:
        """`send` takes a request's body and gives the answer's, in place of an HTTP connection."""
        self._send = send or Poster(url)

    def chain_id(self) -> int:
        return int.from_bytes(self._bytes("eth_chainId"))

    def code(self, address: bytes) -> bytes:
        return self._bytes("eth_getCode", hexed(address), "latest")

    def call(self, to: bytes, data: bytes) -> bytes:
        return self._bytes("eth_call", {"to": hexed(to), "data": hexed(data)}, "latest")

    def transaction(self, name: bytes) -> MinedNote | None:
        """The mined transaction of that hash."""
        found = self._result("eth_getTransactionByHash", hexed(name))
        if found is None or (isinstance(found, dict) and found.get("blockNumber") is None):
            return None  # unknown, or still waiting for a block
        return _mined(found)

    def block_hash(self, number: int) -> bytes | None:
        found = self._result("eth_getBlockByNumber", hex(number), False)
        return None if found is None else _bytes_in(found, "hash")

    def head(self) -> int:
        return int.from_bytes(self._bytes("eth_blockNumber"))

    def timestamp(self, number: int) -> int | None:
        found = self._result("eth_getBlockByNumber", hex(number), False)
        return None if found is None else int.from_bytes(_bytes_in(found, "timestamp"))

    def logs(self, number: int, address: bytes) -> tuple[Log, ...]:
        one = {"fromBlock": hex(number), "toBlock": hex(number), "address": hexed(address)}
        found = self._result("eth_getLogs", one)
        if not isinstance(found, list):
            raise AssayError("chain_mismatch", "the node's logs are none")
        return tuple(_log(log) for log in found)

    def notes(self, number: int) -> tuple[MinedNote, ...]:
        """The transactions of a block; none if there is no such block."""
        found = self._result("eth_getBlockByNumber", hex(number), True)
        if found is None:
            return ()
        listed = found.get("transactions") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise AssayError("chain_mismatch", "the node's block is none")
        return tuple(_mined(one) for one in listed)

    def close(self) -> None:
        if isinstance(self._send, Poster):
            self._send.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def result(self, method: str, *params: Any) -> Any:
        """The result of any method, as JSON has it."""
        return self._result(method, *params)

    def _bytes(self, method: str, *params: Any) -> bytes:
        data = hex_texts.data_of(self._result(method, *params), odd=True)
        if data is None:
            raise AssayError("chain_mismatch", f"{method}: the node's answer is no data")
        return data

    def _result(self, method: str, *params: Any) -> Any:
        answer = self._ask({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        if not isinstance(answer, dict):
            raise AssayError("chain_mismatch", f"{method}: the node's answer is no JSON-RPC")
        if answer.get("error") is not None:
            raise AssayError("contract_refused", f"{method}: {str(answer['error'])[:200]}")
        return answer.get("result")

    def _ask(self, request: dict[str, Any]) -> Any:
        body = self._send(json.dumps(request).encode())
        try:
            return json.loads(body)
        except ValueError:
            raise AssayError("chain_mismatch", "the node's answer is no JSON") from None


class FileChain:
    """The local chain's SQLite file, read while its coordinator may be writing it.

    Needs the `contracts` extra; raises AssayError("chain_mismatch") if the file is no chain.
    """

    def __init__(self, path: Path | str) -> None:
        from assay_contracts.local.chain import LocalChain

        self._chain: LocalChain = LocalChain.open(path, read_only=True)

    def chain_id(self) -> int:
        return self._chain.chain_id

    def code(self, address: bytes) -> bytes:
        return self._chain.code(address)

    def call(self, to: bytes, data: bytes) -> bytes:
        return self._chain.call(to, data)

    def transaction(self, name: bytes) -> MinedNote | None:
        found = self._chain.transaction(name)
        if found is None:
            return None
        return MinedNote(found.sender, found.to or b"", found.data, found.block)

    def block_hash(self, number: int) -> bytes | None:
        block = self._chain.block(number)
        return None if block is None else block.hash

    def head(self) -> int:
        return self._chain.head_block().number

    def timestamp(self, number: int) -> int | None:
        block = self._chain.block(number)
        return None if block is None else block.timestamp

    def logs(self, number: int, address: bytes) -> tuple[Log, ...]:
        block = self._chain.block(number)
        names = () if block is None else block.transactions
        receipts = (self._chain.receipt(name) for name in names)
        events = (log for receipt in receipts if receipt is not None for log in receipt.logs)
        return tuple(log for log in events if log.address == address)

    def notes(self, number: int) -> tuple[MinedNote, ...]:
        block = self._chain.block(number)
        names = () if block is None else block.transactions
        return tuple(found for name in names if (found := self.transaction(name)) is not None)

    def close(self) -> None:
        self._chain.close()


def _mined(found: Any) -> MinedNote:
    """A transaction as JSON-RPC has it."""
    creates = isinstance(found, dict) and found.get("to") is None
    return MinedNote(
        sender=_bytes_in(found, "from"),
        to=b"" if creates else _bytes_in(found, "to"),
        data=_bytes_in(found, "input"),
        block=int.from_bytes(_bytes_in(found, "blockNumber")),
    )


def _log(found: Any) -> Log:
    """An event as JSON-RPC has it."""
    topics = found.get("topics") if isinstance(found, dict) else None
    if not isinstance(topics, list) or not all(isinstance(one, str) for one in topics):
        raise AssayError("chain_mismatch", "the node's log is none")
    named = tuple(_bytes_in({"topic": one}, "topic") for one in topics)
    return Log(_bytes_in(found, "address"), named, _bytes_in(found, "data"))


def _bytes_in(found: Any, name: str) -> bytes:
    data = hex_texts.data_of(found.get(name) if isinstance(found, dict) else None, odd=True)
    if data is None:
        raise AssayError("chain_mismatch", f"the node's answer has no {name}")
    return data
