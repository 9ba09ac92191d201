"""JSON-RPC nodes' answers, read field by field: anything odd is "chain_mismatch", never a crash."""

from __future__ import annotations

from typing import Any, Final

from assay_contracts import hex_texts
from assay_contracts.records import Block, ContractRefused, Log, Receipt, SendRefused
from assay_protocol.errors import AssayError

TRANSACTIONS_MAX: Final = 100_000  # of a block
LOGS_MAX: Final = 100_000
TOPICS_MAX: Final = 4
_DIGITS_MAX: Final = 64  # of a number: 32 bytes
_REVERTED: Final = 3
_LIMITED: Final = -32005
_METHOD_MISSING: Final = -32601
_SENDS: Final = "eth_sendRawTransaction"
# Words of geth, anvil, Nethermind, Besu and of the local chain; there is no standard.
_WHY: Final = (
    (
        "underpriced",
        ("underpriced", "fee too low", "max fee per gas less", "fee cap", "tip too low"),
    ),
    ("nonce", ("nonce",)),
    ("funds", ("insufficient funds", "insufficient balance", "out of gas: gas required exceeds")),
)


def block_of(raw: Any) -> Block | None:
    """A block with the hashes of its transactions; None if the node has none."""
    if raw is None:
        return None
    listed = _field(raw, "transactions")
    if not isinstance(listed, list) or len(listed) > TRANSACTIONS_MAX:
        raise no_answer("a block without transactions")
    return Block(
        number=quantity_of(_field(raw, "number")),
        hash=data_of(_field(raw, "hash"), 32),
        parent_hash=data_of(_field(raw, "parentHash"), 32),
        state_root=data_of(_field(raw, "stateRoot"), 32),
        timestamp=quantity_of(_field(raw, "timestamp")),
        gas_used=quantity_of(_field(raw, "gasUsed")),
        gas_limit=quantity_of(_field(raw, "gasLimit")),
        base_fee=quantity_of(raw.get("baseFeePerGas", "0x0")),
        transactions=tuple(data_of(one, 32) for one in listed),
    )


def receipt_of(raw: Any) -> Receipt | None:
    """None for a transaction that is in no block."""
    if raw is None or _field(raw, "blockHash") is None:
        return None
    logs = _field(raw, "logs")
    if not isinstance(logs, list) or len(logs) > LOGS_MAX:
        raise no_answer("a receipt without logs")
    to, contract = raw.get("to"), raw.get("contractAddress")
    return Receipt(
        transaction_hash=data_of(_field(raw, "transactionHash"), 32),
        block=quantity_of(_field(raw, "blockNumber")),
        block_hash=data_of(_field(raw, "blockHash"), 32),
        gas_used=quantity_of(_field(raw, "gasUsed")),
        sender=data_of(_field(raw, "from"), 20),
        to=None if to is None else data_of(to, 20),
        contract=None if contract is None else data_of(contract, 20),
        logs=tuple(_log(one) for one in logs),
        ok=quantity_of(_field(raw, "status")) == 1,
    )


def logs_of(raw: Any, block_hash: bytes, addresses: tuple[bytes, ...]) -> tuple[Log, ...]:
    """The events of one block; a node that answers with others' is none of ours."""
    if not isinstance(raw, list) or len(raw) > LOGS_MAX:
        raise no_answer("no list of logs")
    logs = tuple(_log(one) for one in raw)
    blocks = {data_of(_field(one, "blockHash"), 32) for one in raw}
    if blocks - {block_hash} or {log.address for log in logs} - set(addresses):
        raise no_answer("logs that were not asked for")
    return logs


def fault_of(method: str, answer: Any) -> AssayError:
    """The error that a node's error means."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return no_answer(f"neither result nor error for {method}")
    code, message = error.get("code"), str(error.get("message"))[:300]
    output = _revert_data(error.get("data"))
    lowered = message.lower()
    if code == _REVERTED or output or "revert" in lowered:
        return ContractRefused(output or b"", f"{method}: {message}")
    if code == _LIMITED or "busy" in lowered or "limit exceeded" in lowered:
        return AssayError("chain_unavailable", f"{method}: {message}")
    if code == _METHOD_MISSING:
        return AssayError("chain_mismatch", f"the node does not offer {method}")
    for why, words in _WHY:
        if any(word in lowered for word in words):
            return SendRefused(why, f"{method}: {message}")
    if method == _SENDS:
        return SendRefused("other", f"{method}: {message}")
    # A block that is gone, a node that is behind: asked again later, it may know.
    return AssayError("chain_unavailable", f"{method}: {message}")


def no_answer(what: str) -> AssayError:
    return AssayError("chain_mismatch", f"the node's answer is none of a chain: {what}")


def data_of(raw: Any, size: int | None = None) -> bytes:
    """0x data, of `size` bytes if given."""
    data = hex_texts.data_of(raw, size)
    if data is None:
        raise no_answer(hex_texts.no_data(size))
    return data


def quantity_of(raw: Any) -> int:
    """A number as JSON-RPC writes it."""
    number = hex_texts.number_of(raw, _DIGITS_MAX)
    if number is None:
        raise no_answer("not a 0x number")
    return number


def _log(raw: Any) -> Log:
    topics = _field(raw, "topics")
    if not isinstance(topics, list) or len(topics) > TOPICS_MAX:
        raise no_answer("a log without topics")
    return Log(
        data_of(_field(raw, "address"), 20),
        tuple(data_of(topic, 32) for topic in topics),
        data_of(_field(raw, "data")),
    )


def _revert_data(raw: Any) -> bytes | None:
    """Some nodes give the data itself, some wrap it once more."""
    if isinstance(raw, dict):
        raw = raw.get("data")
    return hex_texts.data_of(raw)


def _field(raw: Any, name: str) -> Any:
    if not isinstance(raw, dict) or name not in raw:
        raise no_answer(f"no {name}")
    return raw[name]
