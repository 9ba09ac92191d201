"""Who checks a chain reads the same of it from its file and by JSON-RPC."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay_contracts.credit.readers import FileChain, HttpChain, MinedNote
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import address_of, poster_key
from assay_contracts.rpc.server import Answers
from assay_protocol.errors import AssayError

KEY = poster_key(bytes(range(32)))
POSTER = address_of(KEY)


def code_of(action: Callable[[], Any]) -> str:
    with pytest.raises(AssayError) as caught:
        action()
    return caught.value.code


def test_notes_read_the_same_from_the_file_and_by_json_rpc(
    chain: LocalChain, ledger: CreditLedgerClient, chain_path: Path
) -> None:
    noted = chain.send(KEY, POSTER, b"hello")
    file = FileChain(chain_path)

    def answer(request: bytes) -> bytes:
        return json.dumps(Answers(chain).all(json.loads(request))).encode()

    with HttpChain("http://node/", send=answer) as rpc:
        for reader in (file, rpc):
            assert reader.transaction(noted.transaction_hash) == MinedNote(
                POSTER, POSTER, b"hello", noted.block
            )
            assert reader.transaction(bytes(32)) is None
            assert reader.block_hash(noted.block) == noted.block_hash
            assert reader.block_hash(99) is None
            assert [one.data for one in reader.notes(noted.block)] == [b"hello"]
            assert reader.notes(1)[0].to == b"", "the ledger was created"
            assert reader.notes(99) == ()
    file.close()


@pytest.mark.parametrize(
    "result",
    ["x", {}, {"hash": 7}, {"hash": "zz"}, {"hash": "0xzz"}, [], {"transactions": 5}],
)
def test_a_node_s_nonsense_is_a_mismatch(result: Any) -> None:
    answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    reader = HttpChain("http://node/", send=lambda _: answer)
    assert code_of(lambda: reader.block_hash(1)) == "chain_mismatch"
    assert code_of(lambda: reader.notes(1)) == "chain_mismatch"
    if not isinstance(result, dict):
        assert code_of(lambda: reader.transaction(bytes(32))) == "chain_mismatch"


def test_a_transaction_that_waits_is_not_there_yet() -> None:
    answer = b'{"jsonrpc": "2.0", "id": 1, "result": {"blockNumber": null}}'
    assert HttpChain("http://node/", send=lambda _: answer).transaction(bytes(32)) is None
