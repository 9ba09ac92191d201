"""Whoever trusts none of our code uses the chain with a stock web3.py: the same figures."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
import trio
from eth_account import Account
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractCustomError

from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import CONTRACTS_MAX
from assay_contracts.rpc.server import rpc_app, serve_rpc

HEADER = Header(b"\x07" * 32, 50, 9, 3, b"\x01" * 32, b"\x02" * 32)
POSTED = CONTRACTS_MAX + 1  # the block of the first epoch
STRANGER = b"\x77" * 32


async def test_web3_reads_the_posted_epoch(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    ledger.post(1, HEADER)
    await _served(chain, _read, ledger.address)


async def test_web3_sends_a_transaction(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    ledger.post(1, HEADER)
    await _served(chain, _send, ledger.address)
    assert chain.head_block().number == POSTED + 1


async def _served(chain: LocalChain, ask: Any, address: bytes) -> None:
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_rpc, rpc_app(chain), "127.0.0.1", 0)
        with trio.fail_after(20):
            await trio.to_thread.run_sync(_asked, ask, urls[0], address)
        nursery.cancel_scope.cancel()


def _asked(ask: Any, url: str, address: bytes) -> None:
    provider = HTTPProvider(url)
    web3 = Web3(provider)
    raw = (files("assay_contracts") / "artifacts" / "CreditLedger.json").read_text()
    abi = json.loads(raw)["abi"]
    ask(web3, web3.eth.contract(address=Web3.to_checksum_address(address), abi=abi))
    provider._request_session_manager.session_cache.clear()


def _read(web3: Web3, contract: Any) -> None:
    assert web3.eth.chain_id == 0xA55A
    assert web3.net.version == str(0xA55A)
    block = web3.eth.get_block("latest", full_transactions=True)
    assert (block["number"], block["baseFeePerGas"], block["gasLimit"]) == (POSTED, 0, 30_000_000)
    assert web3.eth.get_block(block["hash"])["stateRoot"] == block["stateRoot"]
    assert contract.functions.head().call() == 1
    assert HEADER.root in contract.functions.epochs(1).call()
    [log] = contract.events.EpochPosted().get_logs(from_block=0)
    assert (log["blockNumber"], log["args"]["epoch"]) == (POSTED, 1)
    [raw] = web3.eth.get_logs({"blockHash": block["hash"]})
    topic = raw["topics"][0]
    assert web3.eth.get_logs({"fromBlock": 1, "topics": [[topic, b"\x01" * 32]]}) == [raw]
    assert web3.eth.get_logs({"fromBlock": 0, "topics": [b"\x01" * 32]}) == []
    [transaction] = block["transactions"]
    assert web3.eth.get_transaction(transaction["hash"]) == transaction
    receipt = web3.eth.get_transaction_receipt(transaction["hash"])
    assert (receipt["status"], receipt["effectiveGasPrice"]) == (1, 0)
    assert receipt["logsBloom"] == block["logsBloom"] != bytes(256)
    assert web3.eth.get_block_receipts(POSTED) == [receipt]
    assert contract.events.EpochPosted().process_receipt(receipt)[0]["args"] == log["args"]
    assert web3.eth.fee_history(2, "latest", [50])["baseFeePerGas"] == [0, 0, 0]


def _send(web3: Web3, contract: Any) -> None:
    stranger = Account.from_key(STRANGER)
    assert web3.eth.get_balance(stranger.address) == 0
    assert web3.eth.get_transaction_count(stranger.address, "pending") == 0
    assert (web3.eth.gas_price, web3.eth.max_priority_fee) == (0, 0)
    wanted = contract.functions.head().build_transaction({"from": stranger.address, "nonce": 0})
    assert wanted["maxFeePerGas"] == 0
    signed = stranger.sign_transaction(wanted)
    name = web3.eth.send_raw_transaction(signed.raw_transaction)
    receipt = web3.eth.wait_for_transaction_receipt(name, timeout=5)
    assert receipt["gasUsed"] <= wanted["gas"]
    assert receipt["from"] == stranger.address
    assert web3.eth.get_transaction_count(stranger.address) == 1
    post = contract.functions.post(2, (HEADER.root, 60, 1, 3, bytes(32), bytes(32)))
    with pytest.raises(ContractCustomError):  # NotPoster
        post.call({"from": stranger.address})
