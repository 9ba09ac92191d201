"""Ethereum JSON-RPC over the local chain, read only, so that wallets, explorers and `credit verify`
can ask it as they would any node.

Chain calls run in a thread, one at a time; the body, the batch and the calldata are bounded before
anything is parsed or run. Nothing that writes is offered: the outbox is the only writer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from importlib.metadata import version
from typing import Any, Final, Protocol

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay_contracts.chain import LocalChain
from assay_contracts.records import Block, ContractRefused
from assay_protocol.errors import AssayError

BODY_BYTES_MAX: Final = 256 * 1024
BATCH_MAX: Final = 100
BODY_SECONDS: Final = 10.0

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL: Final = -32603
REVERTED: Final = 3  # what geth answers for a reverting eth_call

_Method = Callable[[LocalChain, list[Any]], Any]


class _Started(Protocol):
    """What `nursery.start` hands over, as far as it is used here."""

    def started(self, value: list[str]) -> None: ...


class RpcFault(Exception):
    """A JSON-RPC error: its code, words, and data if any."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def rpc_app(chain: LocalChain) -> Starlette:
    """The ASGI application; POST / takes one request or a batch of at most 100."""
    limiter = trio.CapacityLimiter(1)

    async def answer(request: Request) -> Response:
        body = await _read_body(request)
        if body is None:
            return _json(_error(None, RpcFault(INVALID_REQUEST, "the body is too large or slow")))
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return _json(_error(None, RpcFault(PARSE_ERROR, "the body is no JSON")))
        answers = await trio.to_thread.run_sync(_answer_all, chain, asked, limiter=limiter)
        return Response(status_code=204) if answers is None else _json(answers)

    return Starlette(routes=[Route("/", answer, methods=["POST"])])


async def serve_rpc(
    app: Starlette,
    host: str,
    port: int,
    *,
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; `task_status` gets the bound URLs (port 0 takes any free port)."""
    config = Config()
    config.bind = [f"{host}:{port}"]
    config.accesslog = None
    config.errorlog = None
    await serve(app, config, task_status=task_status)


async def _read_body(request: Request) -> bytes | None:
    body = bytearray()
    with trio.move_on_after(BODY_SECONDS) as scope:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    return None
    return None if scope.cancelled_caught else bytes(body)


def _answer_all(chain: LocalChain, asked: Any) -> Any:
    """None if there is nothing to answer: notifications only."""
    if not isinstance(asked, list):
        return _answer_one(chain, asked)
    if not 0 < len(asked) <= BATCH_MAX:
        return _error(None, RpcFault(INVALID_REQUEST, f"a batch has 1 to {BATCH_MAX} requests"))
    answers = [found for one in asked if (found := _answer_one(chain, one)) is not None]
    return answers or None


def _answer_one(chain: LocalChain, asked: Any) -> dict[str, Any] | None:
    if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
        return _error(None, RpcFault(INVALID_REQUEST, "not a JSON-RPC request"))
    identity = asked.get("id")
    if not isinstance(identity, str | int | float | None):
        return _error(None, RpcFault(INVALID_REQUEST, "an id is a string or a number"))
    answer = _run(chain, asked["method"], asked.get("params", []), identity)
    return answer if "id" in asked else None


def _run(chain: LocalChain, method: str, params: Any, identity: Any) -> dict[str, Any]:
    try:
        function = _METHODS.get(method)
        if function is None:
            raise RpcFault(METHOD_NOT_FOUND, f"the method {method[:64]} is not offered")
        if not isinstance(params, list):
            raise RpcFault(INVALID_PARAMS, "params is a list")
        return {"jsonrpc": "2.0", "id": identity, "result": function(chain, params)}
    except RpcFault as fault:
        return _error(identity, fault)
    except ContractRefused as refused:
        return _error(identity, RpcFault(REVERTED, "execution reverted", _hex(refused.output)))
    except AssayError as error:
        return _error(identity, RpcFault(INVALID_PARAMS, str(error)))
    except Exception:  # a request must never end the server; the words of a fault of ours stay here
        return _error(identity, RpcFault(INTERNAL, "internal error"))


def _error(identity: Any, fault: RpcFault) -> dict[str, Any]:
    error: dict[str, Any] = {"code": fault.code, "message": fault.message}
    if fault.data is not None:
        error["data"] = fault.data
    return {"jsonrpc": "2.0", "id": identity, "error": error}


def _json(answer: Any) -> Response:
    return Response(json.dumps(answer), media_type="application/json")


def _chain_id(chain: LocalChain, params: list[Any]) -> str:
    return hex(chain.chain_id)


def _block_number(chain: LocalChain, params: list[Any]) -> str:
    return hex(chain.head_block().number)


def _client_version(chain: LocalChain, params: list[Any]) -> str:
    return f"assay/{version('assay-network')}"


def _get_block(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    number = _tag(params, 0)
    block = chain.head_block() if number is None else chain.block(number)
    if block is None:
        return None
    full = len(params) > 1 and params[1] is True
    return _block_fields(chain, block, full)


def _call(chain: LocalChain, params: list[Any]) -> str:
    if not params or not isinstance(params[0], dict):
        raise RpcFault(INVALID_PARAMS, "eth_call takes a transaction object")
    transaction = params[0]
    sender = _data(transaction.get("from", "0x" + "00" * 20), 20)
    data = _data(transaction.get("data", transaction.get("input", "0x")))
    to, at = _data(transaction.get("to"), 20), _tag(params, 1)
    # An address without code answers nothing. It may be a precompile, though, and py-evm's pairings
    # take a second each: one call within its gas could keep the chain's lock for minutes.
    if not chain.code(to, at=at):
        return "0x"
    return _hex(chain.call(to, data, sender=sender, at=at))


def _get_code(chain: LocalChain, params: list[Any]) -> str:
    return _hex(chain.code(_data(_at(params, 0), 20), at=_tag(params, 1)))


def _get_receipt(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    receipt = chain.receipt(_data(_at(params, 0), 32))
    if receipt is None:
        return None
    place = {
        "transactionHash": _hex(receipt.transaction_hash),
        "transactionIndex": "0x0",  # a block of the local chain holds one transaction
        "blockNumber": hex(receipt.block),
        "blockHash": _hex(receipt.block_hash),
    }
    logs = [
        {
            **place,
            "logIndex": hex(index),
            "address": _hex(log.address),
            "topics": [_hex(topic) for topic in log.topics],
            "data": _hex(log.data),
            "removed": False,
        }
        for index, log in enumerate(receipt.logs)
    ]
    return {
        **place,
        "from": _hex(receipt.sender),
        "to": None if receipt.to is None else _hex(receipt.to),
        "contractAddress": None if receipt.contract is None else _hex(receipt.contract),
        "gasUsed": hex(receipt.gas_used),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "status": "0x1",  # a refused transaction leaves no block
        "type": "0x2",
        "logs": logs,
    }


def _get_transaction(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    found = chain.transaction(_data(_at(params, 0), 32))
    if found is None:
        return None
    return {
        "hash": _hex(found.hash),
        "blockNumber": hex(found.block),
        "blockHash": _hex(found.block_hash),
        "transactionIndex": "0x0",
        "chainId": hex(chain.chain_id),
        "nonce": hex(found.nonce),
        "from": _hex(found.sender),
        "to": None if found.to is None else _hex(found.to),
        "gas": hex(found.gas),
        "value": "0x0",
        "input": _hex(found.data),
        "type": "0x2",
    }


_METHODS: Final[dict[str, _Method]] = {
    "eth_chainId": _chain_id,
    "eth_blockNumber": _block_number,
    "eth_getBlockByNumber": _get_block,
    "eth_call": _call,
    "eth_getCode": _get_code,
    "eth_getTransactionReceipt": _get_receipt,
    "eth_getTransactionByHash": _get_transaction,
    "web3_clientVersion": _client_version,
}


def _block_fields(chain: LocalChain, block: Block, full: bool) -> dict[str, Any]:
    transactions: list[Any] = [_hex(digest) for digest in block.transactions]
    if full:
        transactions = [_get_transaction(chain, [digest]) for digest in transactions]
    return {
        "number": hex(block.number),
        "hash": _hex(block.hash),
        "parentHash": _hex(block.parent_hash),
        "stateRoot": _hex(block.state_root),
        "timestamp": hex(block.timestamp),
        "gasUsed": hex(block.gas_used),
        "gasLimit": hex(block.gas_limit),
        "baseFeePerGas": hex(block.base_fee),
        "transactions": transactions,
    }


def _tag(params: list[Any], position: int) -> int | None:
    """A block's number; None for the newest, which on this chain is final as well."""
    raw = params[position] if len(params) > position else "latest"
    if raw in ("latest", "pending", "safe", "finalized"):
        return None
    if raw == "earliest":
        return 0
    if isinstance(raw, str) and raw.startswith("0x") and len(raw) <= 18:
        try:
            return int(raw, 16)
        except ValueError:
            pass
    raise RpcFault(INVALID_PARAMS, "not a block number or tag")


def _at(params: list[Any], position: int) -> Any:
    if len(params) <= position:
        raise RpcFault(INVALID_PARAMS, "a parameter is missing")
    return params[position]


def _data(raw: Any, size: int | None = None) -> bytes:
    if isinstance(raw, str) and raw.startswith("0x"):
        try:
            data = bytes.fromhex(raw[2:])
        except ValueError:
            data = None
        if data is not None and size in (None, len(data)):
            return data
    raise RpcFault(
        INVALID_PARAMS, "not 0x data" if size is None else f"not 0x data of {size} bytes"
    )


def _hex(raw: bytes) -> str:
    return f"0x{raw.hex()}"
