"""Gas of credit on chain: posting epochs, claims at 10^6 leaves, Ed25519 signatures, and what a job
costs beside recording each job by itself. Prints a table; ends with a JSON line.

Measured on the local chain, whose gas is that of any other. The post's gas must not depend on the
number of jobs; the tree of the claims has 10^6 leaves, each hashed. Contributors are assumed to
claim every 30th epoch (`CLAIM_EPOCHS`); the table also shows no claims, and claims in every epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from assay_contracts import calls
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.ed25519_hints import signed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import GENESIS_SECONDS, Genesis, address_of, poster_key
from assay_protocol.credit_tree import CreditLeaf, SumTree, encode_proof
from assay_protocol.signing import Identity
from gas_rivals import Bench, Rival, rivals

LEAVES: Final = 10**6
CONTRIBUTORS: Final = 1_000
CLAIM_EPOCHS: Final = 30
EPOCH_SECONDS: Final = 3_600
JOBS: Final = (10**3, 10**6, 10**9)
SEED: Final = bytes(32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--leaves", type=int, default=LEAVES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, others = measure(Path(folder) / "chain.sqlite", options.epochs, options.leaves)
    post, claim = figures["epoch_post_gas"], figures["claim_again_gas_1e6"]
    for line in table(post, claim, others):
        print(line)
    figures["gas_per_job_1e6"] = round(_per_job(post, claim / CLAIM_EPOCHS, 10**6), 3)
    print(json.dumps(figures))


def measure(path: Path, epochs: int, leaves: int) -> tuple[dict[str, float], tuple[Rival, ...]]:
    """Figures by name with their unit last, and the other ways to record a job."""
    now = [GENESIS_SECONDS + 1]
    key, identity = poster_key(SEED), Identity(SEED)
    genesis = Genesis(address_of(key))
    with LocalChain.open(path, genesis=genesis, clock=lambda: now[0]) as chain:
        ledger = CreditLedgerClient(chain, key, identity.public_key)
        start = time.perf_counter()
        ledger.deploy()
        figures: dict[str, float] = {"deploy_s": round(time.perf_counter() - start, 2)}
        figures["deploy_gas"] = sum(_gas(chain, n) for n in range(1, chain.head_block().number + 1))
        start = time.perf_counter()
        gas = []
        for epoch in range(1, epochs + 1):
            now[0] += EPOCH_SECONDS
            gas.append(_post(chain, ledger, epoch, leaves))
        seconds = time.perf_counter() - start
        figures["epoch_post_gas"], figures["epoch_post_gas_first"] = max(gas[1:]), gas[0]
        steady = gas[-10:]  # epochs become final as new ones come, and each number of jobs is there
        figures["epoch_post_gas_spread"] = max(steady) - min(steady)
        figures["posts_per_second"] = round(epochs / seconds, 1)
        bench = Bench(chain, key)
        figures["ed25519_verify_gas"] = _verify_gas(chain, key, ledger, identity)
        _bind(chain, key, ledger, identity)
        first, again = _claims(chain, key, ledger, now, leaves)
        figures["claim_first_gas_1e6"], figures["claim_again_gas_1e6"] = first, again
        others = rivals(bench)
    start = time.perf_counter()
    with LocalChain.open(path) as reopened:
        blocks = reopened.head_block().number
        figures["bytes_per_block"] = round(path.stat().st_size / blocks)
        figures["open_ms"] = round((time.perf_counter() - start) * 1e3, 2)
    return figures, others


def table(post: float, claim: float, others: tuple[Rival, ...]) -> Iterator[str]:
    """Gas per job at 10^3, 10^6 and 10^9 jobs an epoch, by way of recording them."""
    yield f"{'gas per job':<44}{''.join(f'{jobs:>14,}' for jobs in JOBS)}"
    ways = (
        ("epoch root, no claims", 0.0),
        (f"  {CONTRIBUTORS:,} claims, every {CLAIM_EPOCHS}th epoch", claim / CLAIM_EPOCHS),
        (f"  {CONTRIBUTORS:,} claims, every epoch", claim),
    )
    for name, claims in ways:
        yield f"{name:<44}{''.join(f'{_per_job(post, claims, jobs):>14,.4g}' for jobs in JOBS)}"
    for rival in others:
        gas = "-" if rival.gas is None else f"{rival.gas:,}"
        yield f"{rival.name:<44}{gas:>14}{gas:>14}{gas:>14}   {rival.note}"


def _per_job(post: float, claims: float, jobs: int) -> float:
    return (post + CONTRIBUTORS * claims) / jobs


def _gas(chain: LocalChain, number: int | None = None) -> int:
    block = chain.head_block() if number is None else chain.block(number)
    assert block is not None
    return block.gas_used


def _post(chain: LocalChain, ledger: CreditLedgerClient, epoch: int, leaves: int) -> int:
    """From 1 to 10^9 jobs. Hashes are random: zero bytes would be cheaper than real ones."""
    jobs = 10 ** (epoch % 10)
    root, data, policy = (os.urandom(32) for _ in range(3))
    ledger.post(epoch, Header(root, epoch * 10**9, jobs, leaves, data, policy))
    return _gas(chain)


def _verify_gas(
    chain: LocalChain, key: bytes, ledger: CreditLedgerClient, identity: Identity
) -> int:
    message = os.urandom(32)
    arguments = (identity.public_key, message, signed(identity, message))
    data = calls.encode("Ed25519Verifier", "verify", *arguments)
    to = ledger.plan.addresses["Ed25519Verifier"]
    assert calls.decode("Ed25519Verifier", "verify", chain.call(to, data)) == (True,)
    return chain.send(key, to, data).gas_used


def _bind(chain: LocalChain, key: bytes, ledger: CreditLedgerClient, identity: Identity) -> None:
    """The account names the sender as its payee."""
    registry, payee = ledger.plan.addresses["NodeRegistry"], ledger.poster
    where = chain.chain_id.to_bytes(32) + registry
    text = b"assay/1/Bind\0" + where + payee + bytes(32)
    data = calls.encode("NodeRegistry", "bind", identity.public_key, payee, signed(identity, text))
    chain.send(key, registry, data)


def _claims(
    chain: LocalChain, key: bytes, ledger: CreditLedgerClient, now: list[int], count: int
) -> Iterator[int]:
    """An account of `count` claims from an epoch, then again from the next."""
    head = ledger.head()
    index = count * 2 // 3
    account = Identity(SEED).public_key
    for epoch in (head + 1, head + 2):
        total = 10**12 * epoch
        leaves = [(os.urandom(32), total) for _ in range(count)]
        leaf = CreditLeaf(account, 0, total, 10**12, os.urandom(32))
        leaves[index] = (leaf.hash, leaf.cumulative)
        tree = SumTree.build(leaves)
        hashes = os.urandom(32), os.urandom(32)
        ledger.post(epoch, Header(tree.root, tree.total, 10**6, count, *hashes))
        now[0] = chain.head_block().timestamp + ledger.plan.parameters.window + 1
        settled = calls.encode("CreditLedger", "settle", 2**32 - 1)  # as the next posts would
        chain.send(key, ledger.address, settled)
        proof = encode_proof(tree.proof(index))
        data = calls.encode("CreditLedger", "claim", epoch, leaf, index, proof)
        yield chain.send(key, ledger.address, data).gas_used


if __name__ == "__main__":
    main()
