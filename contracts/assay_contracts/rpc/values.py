"""JSON-RPC's errors, and its values as text: quantities, data, block tags."""

from __future__ import annotations

from typing import Any, Final

from assay_contracts import hex_texts
from assay_contracts.local.chain import LocalChain

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL: Final = -32603
REFUSED: Final = -32000  # a transaction that is not taken
LIMITED: Final = -32005  # try again later
_DIGITS_MAX: Final = 16  # of a quantity: 64 bits
REVERTED: Final = 3  # what geth answers for a reverting eth_call


class RpcFault(Exception):
    """A JSON-RPC error: its code, words, and data if any."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def busy(what: str, retry_after_ms: int) -> RpcFault:
    """The caller may try again after so long."""
    return RpcFault(LIMITED, f"busy: {what}", {"retry_after_ms": retry_after_ms})


def block_at(chain: LocalChain, params: list[Any], position: int) -> int | None:
    """The number that a tag, number or hash (EIP-1898) stands for; None for the newest."""
    raw = params[position] if len(params) > position else "latest"
    if isinstance(raw, dict):
        if "blockHash" in raw:
            header = chain.header(data_in(raw["blockHash"], 32))
            if header is None:
                raise RpcFault(INVALID_PARAMS, "there is no such block")
            return int(header.block_number)
        raw = raw.get("blockNumber")
    if raw in ("latest", "pending"):
        return None
    if raw in ("safe", "finalized"):
        return chain.finalized_block().number
    if raw == "earliest":
        return 0
    return quantity(raw, "a block number or tag")


def quantity(raw: Any, what: str = "a quantity") -> int:
    number = hex_texts.number_of(raw, _DIGITS_MAX)
    if number is None:
        raise RpcFault(INVALID_PARAMS, f"not {what}")
    return number


def at(params: list[Any], position: int) -> Any:
    if len(params) <= position:
        raise RpcFault(INVALID_PARAMS, "a parameter is missing")
    return params[position]


def data_in(raw: Any, size: int | None = None) -> bytes:
    data = hex_texts.data_of(raw, size)
    if data is None:
        raise RpcFault(INVALID_PARAMS, hex_texts.no_data(size))
    return data
