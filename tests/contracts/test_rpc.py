import json
import threading
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay_contracts.artefact import load
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.credit.verify import HttpChain
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import CONTRACTS_MAX
from assay_contracts.rpc.server import WAITING_MAX, Answers, rpc_app, serve_rpc

POSTED = CONTRACTS_MAX + 1  # the block of the first epoch


@pytest.fixture
def posted(ledger: CreditLedgerClient) -> CreditLedgerClient:
    ledger.post(1, Header(b"\x07" * 32, 50, 9, 3, b"\x01" * 32, b"\x02" * 32))
    return ledger


def request(method: str, *params: Any, identity: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": list(params)}


def ask(chain: LocalChain, method: str, *params: Any) -> Any:
    answer = Answers(chain).all(request(method, *params))
    assert answer["id"] == 1
    return answer["result"]


def fault(chain: LocalChain, asked: Any) -> tuple[int, str]:
    error = Answers(chain).all(asked)["error"]
    return error["code"], error["message"]


def hexed(raw: bytes) -> str:
    return f"0x{raw.hex()}"


def test_the_chain_tells_about_itself(chain: LocalChain, posted: CreditLedgerClient) -> None:
    assert ask(chain, "eth_chainId") == "0xa55a"
    assert ask(chain, "eth_blockNumber") == hex(POSTED)
    assert ask(chain, "web3_clientVersion").startswith("assay/")


def test_a_block_its_transaction_and_receipt(chain: LocalChain, posted: CreditLedgerClient) -> None:
    block = ask(chain, "eth_getBlockByNumber", "latest", False)
    assert block == ask(chain, "eth_getBlockByNumber", hex(POSTED))
    (digest,) = block["transactions"]
    full = ask(chain, "eth_getBlockByNumber", hex(POSTED), True)
    transaction = ask(chain, "eth_getTransactionByHash", digest)
    assert full["transactions"] == [transaction]
    receipt = ask(chain, "eth_getTransactionReceipt", digest)

    assert block["parentHash"] == ask(chain, "eth_getBlockByNumber", hex(POSTED - 1))["hash"]
    assert ask(chain, "eth_getBlockByNumber", "earliest")["hash"] == hexed(chain.genesis_hash)
    assert transaction["from"] == receipt["from"] == hexed(posted.poster)
    assert transaction["to"] == receipt["to"] == hexed(posted.address)
    assert transaction["nonce"] == hex(CONTRACTS_MAX)
    assert receipt["blockHash"] == transaction["blockHash"] == block["hash"]
    assert (receipt["status"], receipt["gasUsed"]) == ("0x1", block["gasUsed"])
    (log,) = receipt["logs"]
    assert load("CreditLedger").events[bytes.fromhex(log["topics"][0][2:])] == "EpochPosted"


def test_a_deployment_names_its_contract(chain: LocalChain, posted: CreditLedgerClient) -> None:
    created = hex(chain.genesis.contracts().index(posted.address) + 1)
    (digest,) = ask(chain, "eth_getBlockByNumber", created)["transactions"]
    receipt = ask(chain, "eth_getTransactionReceipt", digest)
    assert (receipt["to"], receipt["contractAddress"]) == (None, hexed(posted.address))
    code = ask(chain, "eth_getCode", hexed(posted.address), "latest")
    assert load("CreditLedger").is_code(bytes.fromhex(code[2:]))
    assert ask(chain, "eth_getCode", hexed(posted.address), "0x0") == "0x"


def test_what_is_not_there_is_null(chain: LocalChain) -> None:
    assert ask(chain, "eth_getBlockByNumber", "0x9") is None
    assert ask(chain, "eth_getTransactionReceipt", "0x" + "00" * 32) is None
    assert ask(chain, "eth_getTransactionByHash", "0x" + "00" * 32) is None


def test_a_call_reads_now_and_then(chain: LocalChain, posted: CreditLedgerClient) -> None:
    call = {"to": hexed(posted.address), "data": hexed(ledger_abi.head_call())}
    assert int(ask(chain, "eth_call", call, "finalized"), 16) == 1
    assert int(ask(chain, "eth_call", call, hex(POSTED - 1)), 16) == 0
    assert int(ask(chain, "eth_call", {"to": call["to"], "input": call["data"]}), 16) == 1


@pytest.mark.parametrize("address", [2, 8, 15])
def test_precompiles_are_not_for_callers(chain: LocalChain, address: int) -> None:
    """py-evm's pairing precompiles are slow enough to stop the chain for everybody."""
    call = {"to": hexed(address.to_bytes(20)), "data": "0x" + "00" * 192 * 200}
    assert ask(chain, "eth_call", call) == "0x"


def test_a_revert_carries_the_error(chain: LocalChain, posted: CreditLedgerClient) -> None:
    data = ledger_abi.post_call(1, Header(bytes(32), 0, 0, 0, bytes(32), bytes(32)))
    call = {"to": hexed(posted.address), "data": hexed(data), "from": hexed(posted.poster)}
    error = Answers(chain).all(request("eth_call", call))["error"]
    assert (error["code"], error["message"]) == (3, "execution reverted")
    assert load("CreditLedger").error_name(bytes.fromhex(error["data"][2:])) == "EpochOutOfOrder"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request("eth_sendRawTransaction", "0x00"), -32000),
        (request("evm_mine"), -32601),
        ({"method": "eth_call", "params": {}, "id": 1}, -32602),
        (request("eth_call"), -32602),
        (request("eth_call", {"to": "0x12"}), -32602),
        (request("eth_estimateGas", {"to": "0x" + "00" * 20}), -32602),
        (request("eth_getLogs", {"fromBlock": "0x0", "toBlock": "0x400"}), -32602),
        (request("eth_getLogs", {"blockHash": "0x" + "00" * 32}), -32602),
        (request("eth_getLogs", {"topics": ["0x00"] * 5}), -32602),
        (request("eth_getLogs"), -32602),
        (request("eth_feeHistory", "x", "latest"), -32602),
        (request("assay_getBlocks", "0x1"), -32602),
        (request("eth_call", {"to": "0x" + "00" * 20, "data": "0xz"}), -32602),
        (request("eth_getCode", "0x" + "00" * 20, "0xzz"), -32602),
        (request("eth_getCode", "0x" + "00" * 20, "0x99"), -32602),
        (request("eth_getBlockByNumber", 5), -32602),
        (request("eth_getTransactionReceipt"), -32602),
        (request("eth_chainId", identity={}), -32600),
        (5, -32600),
        ({}, -32600),
        ([], -32600),
        ([request("eth_chainId")] * 101, -32600),
    ],
)
def test_a_bad_request_is_an_error_by_code(chain: LocalChain, asked: Any, code: int) -> None:
    assert fault(chain, asked)[0] == code


def test_a_batch_is_answered_in_order_without_notifications(chain: LocalChain) -> None:
    notification = {"jsonrpc": "2.0", "method": "eth_chainId"}
    batch = [
        request("eth_chainId", identity="a"),
        notification,
        5,
        request("eth_blockNumber", identity=2),
    ]
    answers = Answers(chain).all(batch)
    assert [answer["id"] for answer in answers] == ["a", None, 2]
    assert Answers(chain).all([notification]) is None


def test_a_fault_of_ours_is_an_internal_error(
    chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(chain, "head_block", broken)
    assert fault(chain, request("eth_blockNumber")) == (-32603, "internal error")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    method=st.sampled_from(["eth_call", "eth_getCode", "eth_getBlockByNumber", "eth_chainId"]),
    params=json_values,
)
def test_any_json_gets_an_answer(chain: LocalChain, method: str, params: Any) -> None:
    for asked in (params, {"id": 1, "method": method, "params": [params]}):
        answer = Answers(chain).all(asked)
        if isinstance(answer, dict):
            assert ("result" in answer) != ("error" in answer)
            assert answer.get("error", {}).get("code") != -32603


async def test_the_app_parses_the_body(chain: LocalChain) -> None:
    transport = httpx.ASGITransport(app=rpc_app(chain))
    async with httpx.AsyncClient(transport=transport, base_url="http://chain") as client:
        good = await client.post("/", json=request("eth_chainId"))
        assert good.json() == {"jsonrpc": "2.0", "id": 1, "result": "0xa55a"}
        bad = await client.post("/", content=b"{")
        assert bad.json()["error"]["code"] == -32700
        deep = await client.post("/", content=b"[" * 100_000)
        assert deep.json()["error"]["code"] == -32700
        silent = await client.post("/", json={"method": "eth_chainId"})
        assert (silent.status_code, silent.content) == (204, b"")
        assert (await client.get("/")).status_code == 405


async def test_requests_that_wait_are_bounded(
    chain: LocalChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one call holds the thread, so many may wait; more are told to come again."""
    release = threading.Event()

    def slow() -> Any:
        release.wait(10)
        raise ZeroDivisionError

    monkeypatch.setattr(chain, "head_block", slow)
    transport = httpx.ASGITransport(app=rpc_app(chain))
    answers: list[Any] = []

    async def ask_number() -> None:
        answers.append((await client.post("/", json=request("eth_blockNumber"))).json())

    async with httpx.AsyncClient(transport=transport, base_url="http://chain") as client:
        async with trio.open_nursery() as nursery:
            for _ in range(WAITING_MAX + 6):
                nursery.start_soon(ask_number)
            await trio.testing.wait_all_tasks_blocked(0.05)
            release.set()
    codes = [answer["error"]["code"] for answer in answers]
    assert codes.count(-32005) == 5
    assert codes.count(-32603) == WAITING_MAX + 1


async def test_a_served_chain_is_read_over_http(
    chain: LocalChain, posted: CreditLedgerClient
) -> None:
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_rpc, rpc_app(chain), "127.0.0.1", 0)
        with trio.fail_after(10):
            await trio.to_thread.run_sync(_read_over_http, urls[0], posted)
        nursery.cancel_scope.cancel()


def _read_over_http(url: str, posted: CreditLedgerClient) -> None:
    large = httpx.post(url, content=b" " * (256 * 1024 + 1))
    assert large.json()["error"]["code"] == -32600
    with HttpChain(url) as reader:
        assert reader.chain_id() == 0xA55A
        assert load("CreditLedger").is_code(reader.code(posted.address))
        raw = reader.call(posted.address, ledger_abi.epochs_call(1))
        assert ledger_abi.decode_epoch(raw) == posted.epoch(1)


def test_answers_are_json_all_through(chain: LocalChain, posted: CreditLedgerClient) -> None:
    full = Answers(chain).all(request("eth_getBlockByNumber", "latest", True))
    assert json.loads(json.dumps(full)) == full
