"""Gas of one epoch's post, and what the local chain costs in time and disk. Ends with a JSON line.

The post's gas must not depend on the number of jobs; `--epochs` sets how many are posted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from assay_contracts import ledger_abi
from assay_contracts.chain import LocalChain
from assay_contracts.genesis import Genesis, address_of, poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_protocol.credit_tree import CreditLeaf, account_tree

LEAVES = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder) / "chain.sqlite", epochs)))


def measure(path: Path, epochs: int) -> dict[str, float]:
    """Figures by name with their unit last."""
    key = poster_key(bytes(32))
    with LocalChain.open(path, genesis=Genesis(address_of(key))) as chain:
        ledger = CreditLedgerClient(chain, key)
        ledger.deploy()
        deploy_gas = _gas(chain)
        before, start = path.stat().st_size, time.perf_counter()
        gas = [_post(chain, ledger, epoch) for epoch in range(1, epochs + 1)]
        seconds = time.perf_counter() - start
        verify_ms = _verify_ms(chain, ledger, epochs + 1)
    start = time.perf_counter()
    with LocalChain.open(path) as again:
        open_ms = (time.perf_counter() - start) * 1e3
        assert again.head_block().number == epochs + 2
    return {
        "epoch_post_gas": gas[-1],
        "epoch_post_gas_first": gas[0],
        "deploy_gas": deploy_gas,
        "posts_per_second": round(epochs / seconds, 1),
        "open_ms": round(open_ms, 2),
        "verify_leaf_call_ms": round(verify_ms, 2),
        "bytes_per_post": round((path.stat().st_size - before) / epochs),
    }


def _post(chain: LocalChain, ledger: CreditLedgerClient, epoch: int) -> int:
    random = (os.urandom(32) for _ in range(3))
    root, data, policy = random
    ledger.post(epoch, Header(root, epoch * 10**9, 10**6, LEAVES, data, policy))
    return _gas(chain)


def _gas(chain: LocalChain) -> int:
    return chain.head_block().gas_used


def _verify_ms(chain: LocalChain, ledger: CreditLedgerClient, epoch: int) -> float:
    leaves = [CreditLeaf(os.urandom(32), 0, 10**12, 1, bytes(32)) for _ in range(LEAVES)]
    tree = account_tree(leaves)
    ledger.post(epoch, Header(tree.root, tree.total, 1, LEAVES, bytes(32), bytes(32)))
    call = ledger_abi.verify_leaf_call(epoch, leaves[7], 7, tree.proof(7))
    start = time.perf_counter()
    assert ledger_abi.decode_number(chain.call(ledger.address, call)) == 1
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
