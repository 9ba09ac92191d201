"""Whoever trusts none of our code reads the ledger with a stock web3.py: the same figures."""

from __future__ import annotations

import json
from importlib.resources import files

import trio
from web3 import HTTPProvider, Web3

from assay_contracts.chain import LocalChain
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_contracts.rpc import rpc_app, serve_rpc

HEADER = Header(b"\x07" * 32, 50, 9, 3, b"\x01" * 32, b"\x02" * 32)


async def test_web3_reads_the_posted_epoch(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    ledger.post(1, HEADER)
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(serve_rpc, rpc_app(chain), "127.0.0.1", 0)
        with trio.fail_after(20):
            await trio.to_thread.run_sync(_read, urls[0], ledger.address)
        nursery.cancel_scope.cancel()


def _read(url: str, address: bytes) -> None:
    provider = HTTPProvider(url)
    web3 = Web3(provider)
    raw = (files("assay_contracts") / "artifacts" / "CreditLedger.json").read_text()
    contract = web3.eth.contract(
        address=Web3.to_checksum_address(address), abi=json.loads(raw)["abi"]
    )
    assert web3.eth.chain_id == 0xA55A
    assert web3.eth.get_block("latest")["number"] == 2
    assert contract.functions.head().call() == 1
    assert contract.functions.epochs(1).call()[:2] == [HEADER.root, HEADER.total_cum]
    provider._request_session_manager.session_cache.clear()
