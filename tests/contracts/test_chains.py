"""Both chains behind one interface: the same answers of one chain, and errors by their codes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.adapters.backend import SequencedChain
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.offers import Call, Offer
from assay_contracts.adapters.rpc_answers import block_of, fault_of, logs_of, receipt_of
from assay_contracts.adapters.rpc_chain import ANSWER_BYTES_MAX, Ask, RpcChain
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.genesis import Genesis
from assay_contracts.records import ContractRefused, SendRefused
from assay_protocol.errors import AssayError
from contracts.rpc_node import URL, RpcNode
from contracts.test_outbox import DEPLOYED, KEY, WALLET

GAS = 200_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RpcNode]:
    made = RpcNode(tmp_path, Genesis(WALLET.address))
    CreditLedgerClient(made.chain, KEY).deploy()
    yield made
    made.close()


@pytest.fixture(params=["embedded", "rpc"])
def both(request: pytest.FixtureRequest, node: RpcNode) -> SequencedChain:
    return EmbeddedChain(node.chain) if request.param == "embedded" else node.rpc()


def ledger_of(node: RpcNode) -> CreditLedgerClient:
    return CreditLedgerClient(node.chain, KEY)


def header(epoch: int) -> Header:
    return Header(bytes([epoch]) * 32, 50, 9, 3, bytes(32), bytes(32))


async def code_of(action: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(AssayError) as caught:
        await action()
    return caught.value.code


async def test_both_tell_the_same_of_a_chain(node: RpcNode) -> None:
    ledger = ledger_of(node)
    for epoch in (1, 2):
        ledger.post(epoch, header(epoch))
    told = []
    for chain in (EmbeddedChain(node.chain), node.rpc()):
        head = await chain.head()
        receipt = await chain.receipt(head.transactions[0])
        assert receipt is not None
        told.append(
            (
                await chain.chain_id(),
                head,
                await chain.finalized(),
                await chain.block(head.parent_hash),
                await chain.block(1),
                await chain.block(99),
                await chain.blocks(0, 20),
                await chain.call(ledger.address, ledger_abi.head_call()),
                await chain.call(ledger.address, ledger_abi.head_call(), at=DEPLOYED),
                await chain.code(ledger.address),
                await chain.nonce(WALLET.address),
                await chain.balance(bytes(20)),
                receipt,
                await chain.receipt(bytes(32)),
                await chain.logs(head.hash, (ledger.address,)),
                await chain.logs(head.hash, (bytes(20),)),
            )
        )
    assert told[0] == told[1]
    assert told[0][6][-1] == told[0][1]
    assert len(told[0][14]) == 1


async def test_a_transaction_is_taken_and_then_known(node: RpcNode, both: SequencedChain) -> None:
    ledger = ledger_of(node)
    data = ledger_abi.post_call(1, header(1))
    gas = await both.estimate(WALLET.address, ledger.address, data)
    fees = await both.fees()
    raw = WALLET.sign(
        await both.chain_id(),
        DEPLOYED,
        Call(ledger.address, data),
        Offer(gas, 2 * fees.base, fees.tip),
    )
    for _ in range(2):
        name = await both.send_raw(raw)
    if both.has_pool:
        node.mine()
        await both.send_raw(raw)
    receipt = await both.receipt(name)
    assert receipt is not None
    assert (receipt.ok, receipt.sender, receipt.to) == (True, WALLET.address, ledger.address)
    assert receipt.gas_used <= gas


async def test_what_is_refused_says_why(node: RpcNode, both: SequencedChain) -> None:
    ledger = ledger_of(node)
    data = ledger_abi.post_call(7, header(7))
    for refused in (
        lambda: both.estimate(WALLET.address, ledger.address, data),
        lambda: both.call(ledger.address, data, sender=WALLET.address),
    ):
        with pytest.raises(ContractRefused) as caught:
            await refused()
        assert len(caught.value.output) == 4 + 64
    used = WALLET.sign(await both.chain_id(), 0, Call(WALLET.address, b""), Offer(GAS, 0, 0))
    with pytest.raises(SendRefused) as spent:
        await both.send_raw(used)
    assert spent.value.why == "nonce"


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        ("nonce too low: next nonce 5, tx nonce 4", "chain_unavailable", "nonce"),
        ("replacement transaction underpriced", "gas_too_low", "underpriced"),
        ("max fee per gas less than block base fee", "gas_too_low", "underpriced"),
        ("insufficient funds for gas * price + value", "gas_too_low", "funds"),
        ("Insufficient funds for gas * price + value", "gas_too_low", "funds"),
        ("transaction type not supported", "chain_unavailable", "other"),
    ],
)
def test_the_words_of_nodes_are_understood(message: str, code: str, why: str) -> None:
    fault = fault_of("eth_sendRawTransaction", {"error": {"code": -32000, "message": message}})
    assert isinstance(fault, SendRefused)
    assert (fault.code, fault.why) == (code, why)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": 3, "message": "execution reverted", "data": "0x1234"}, "contract_refused"),
        ({"code": -32000, "message": "x", "data": {"data": "0x12"}}, "contract_refused"),
        ({"code": -32000, "message": "VM execution reverted"}, "contract_refused"),
        ({"code": -32005, "message": "limit exceeded"}, "chain_unavailable"),
        ({"code": -32601, "message": "no such method"}, "chain_mismatch"),
        ({"code": -32000, "message": "header not found"}, "chain_unavailable"),
        ("text", "chain_mismatch"),
        (None, "chain_mismatch"),
    ],
)
def test_errors_have_their_code(error: Any, code: str) -> None:
    assert fault_of("eth_call", {"error": error}).code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("0x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["number", "hash", "transactions", "logs", "topics", "blockHash"]))
def test_any_answer_is_read_or_a_mismatch(raw: Any, name: str) -> None:
    for value in (raw, {name: raw}, [raw]):
        for read in (block_of, receipt_of, lambda one: logs_of(one, bytes(32), ())):
            try:
                read(value)
            except AssayError as error:
                assert error.code == "chain_mismatch"  # noqa: PT017  # reading it is fine, too


def answering(answer: Callable[[Any], httpx.Response]) -> RpcChain:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer(json.loads(request.content))

    return RpcChain(URL, client=httpx.AsyncClient(transport=httpx.MockTransport(handle)))


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (httpx.Response(200, text="no json"), "chain_mismatch"),
        (httpx.Response(200, text="[" * 100_000), "chain_mismatch"),
        (httpx.Response(200, json=7), "chain_mismatch"),
        (httpx.Response(200, json={"id": 0}), "chain_mismatch"),
        (httpx.Response(200, json={"id": 0, "result": "0xzz"}), "chain_mismatch"),
        (httpx.Response(200, content=bytes(ANSWER_BYTES_MAX + 1)), "chain_mismatch"),
        (httpx.Response(500), "chain_unavailable"),
        (httpx.Response(429), "chain_unavailable"),
    ],
)
async def test_a_node_that_answers_no_chain(response: httpx.Response, code: str) -> None:
    chain = answering(lambda asked: response)
    assert await code_of(chain.chain_id) == code
    assert await code_of(chain.head) == code
    await chain.aclose()


async def test_a_node_that_cannot_be_reached() -> None:
    def refuse(asked: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert await code_of(answering(refuse).head) == "chain_unavailable"
    closed = RpcChain("http://127.0.0.1:9/")
    assert await code_of(closed.head) == "chain_unavailable"
    assert await code_of(RpcChain("no url").head) == "chain_unavailable"


async def test_a_node_that_never_answers_is_given_up(autojump_clock: Any) -> None:
    async def wait(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    client = httpx.AsyncClient(transport=httpx.MockTransport(wait))
    assert await code_of(RpcChain(URL, client=client).chain_id) == "chain_unavailable"


async def test_answers_of_a_batch_come_in_any_order_and_all_of_them(node: RpcNode) -> None:
    chain = node.rpc()
    answers = await chain.ask_all([Ask("eth_chainId")] * 70 + [Ask("eth_maxPriorityFeePerGas")])
    assert answers == [hex(node.chain_id)] * 70 + ["0x0"]
    assert node.requests == 2, "64 at once"
    node.fault = lambda asked: httpx.Response(200, json=[node.answer(asked)[0]])
    assert await code_of(lambda: chain.ask_all([Ask("eth_chainId")] * 2)) == "chain_mismatch"


async def test_the_chain_is_pinned_by_its_id(node: RpcNode) -> None:
    chain = node.rpc()
    await chain.head()
    node.chain_id = 8
    assert await code_of(chain.head) == "chain_mismatch"
    assert await code_of(node.rpc(chain_id=9).head) == "chain_mismatch"


async def test_logs_that_were_not_asked_for_are_refused(node: RpcNode) -> None:
    ledger = ledger_of(node)
    ledger.post(1, header(1))
    chain = node.rpc()
    head = await chain.head()
    (log,) = await chain.logs(head.hash, (ledger.address,))
    shown = {
        "address": f"0x{log.address.hex()}",
        "topics": [],
        "data": "0x",
        "blockHash": f"0x{bytes(32).hex()}",
    }
    node.fault = lambda asked: httpx.Response(200, json={"id": asked["id"], "result": [shown]})
    assert await code_of(lambda: chain.logs(head.hash, (ledger.address,))) == "chain_mismatch"


async def test_a_wallet_of_a_stranger_sends_too(node: RpcNode, both: SequencedChain) -> None:
    stranger = Wallet(b"\x44" * 32)
    data = ledger_abi.post_call(1, header(1))
    with pytest.raises(ContractRefused):
        await both.estimate(stranger.address, ledger_of(node).address, data)
