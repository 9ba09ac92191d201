"""Claims bind, pay once, and say by name why they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_contracts import calls
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.credit.bundle import CreditBundle, Statement
from assay_contracts.credit.claiming import Claimed, Claims
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_protocol.credit_tree import AUDITOR, COMPUTE, PADDING, CreditLeaf, account_tree
from assay_protocol.errors import AssayError
from assay_protocol.signing import Identity

SEED, OTHER = b"\x31" * 32, b"\x32" * 32
WALLET = Wallet.of_seed(SEED).address
KEY = poster_key(bytes(32))
PAYEE = b"\x44" * 20
DAY = 86_400
NODE = Identity(SEED).public_key


@dataclass
class Network:
    """A local chain with all contracts, whose time a test moves."""

    chain: LocalChain
    ledger: CreditLedgerClient
    seconds: list[int]

    def post(self, epoch: int, *leaves: CreditLeaf) -> CreditBundle:
        """An epoch with these leaves; the bundle of NODE."""
        tree = account_tree(leaves)
        header = Header(tree.root, tree.total, 1, len(leaves), bytes(32), bytes(32))
        self.ledger.post(epoch, header)
        mine = tuple(
            Statement(leaf, index, tree.proof(index), ())
            for index, leaf in enumerate(leaves)
            if leaf.account == NODE
        )
        return CreditBundle(self.chain.chain_id, self.ledger.address, epoch, b"", mine)

    def wait(self) -> None:
        """The window passes; chains have the time of their newest block."""
        self.seconds[0] += DAY + 60
        self.chain.send(KEY, self.ledger.poster, b"")

    def claim(
        self, bundle: CreditBundle, seed: bytes = SEED, said: list[str] | None = None, **given: Any
    ) -> list[Claimed]:
        say = (said if said is not None else []).append
        claims = Claims(EmbeddedChain(self.chain), bundle, seed, say)
        return trio.run(claims.run, given.get("ledger"), given.get("payee"))

    def refused(self, bundle: CreditBundle, **given: Any) -> str:
        with pytest.raises(AssayError) as caught:
            self.claim(bundle, **given)
        return caught.value.code

    def tokens(self, owner: bytes) -> int:
        address = self.ledger.plan.addresses["CreditToken"]
        data = calls.encode("CreditToken", "balanceOf", owner)
        [balance] = calls.decode("CreditToken", "balanceOf", self.chain.call(address, data))
        return int(balance)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    seconds = [1_800_000_000]
    genesis = Genesis(address_of(KEY))
    path = tmp_path / "chain.sqlite"
    with LocalChain.open(path, genesis=genesis, clock=lambda: seconds[0]) as chain:
        ledger = CreditLedgerClient(chain, KEY)
        ledger.deploy()
        yield Network(chain, ledger, seconds)


def leaf(role: int, cumulative: int, credit: int, account: bytes = NODE) -> CreditLeaf:
    return CreditLeaf(account, role, cumulative, credit, PADDING)


FIRST = (leaf(COMPUTE, 700, 700), leaf(COMPUTE, 5, 5, bytes(32)), leaf(AUDITOR, 30, 30))
SECOND = (leaf(COMPUTE, 950, 250), leaf(COMPUTE, 5, 0, bytes(32)), leaf(AUDITOR, 30, 0))


def test_all_roles_are_paid_once_to_the_node_s_wallet(network: Network) -> None:
    first = network.post(1, *FIRST)
    assert network.refused(first) == "epoch_open"
    network.wait()
    said: list[str] = []
    paid = network.claim(first, said=said)
    assert [(one.role, one.amount) for one in paid] == [(COMPUTE, 700), (AUDITOR, 30)]
    assert network.tokens(WALLET) == 730
    assert [text.split()[0] for text in said] == ["binding", "claiming", "claiming"]
    again = network.claim(first)
    assert again == [Claimed(COMPUTE, 0, b""), Claimed(AUDITOR, 0, b"")]
    second = network.post(2, *SECOND)
    network.wait()
    assert [one.amount for one in network.claim(second)] == [250, 0]
    assert network.tokens(WALLET) == 980


def test_a_payee_is_bound_once_and_changed_when_asked(network: Network) -> None:
    first = network.post(1, *FIRST)
    network.wait()
    network.claim(first, payee=PAYEE)
    assert (network.tokens(PAYEE), network.tokens(WALLET)) == (730, 0)
    second = network.post(2, *SECOND)
    network.wait()
    said: list[str] = []
    network.claim(second, said=said)
    assert not [text for text in said if text.startswith("binding")], "it stays as it was"
    assert network.tokens(PAYEE) == 980
    third = network.post(
        3, *(replace(one, cumulative=one.cumulative + 1, epoch_credit=1) for one in SECOND)
    )
    network.wait()
    network.claim(third, payee=WALLET)
    assert network.tokens(WALLET) == 2


def test_what_is_not_to_be_claimed_has_a_name(network: Network) -> None:
    first = network.post(1, *FIRST)
    network.wait()
    assert network.refused(replace(first, epoch=9)) == "epoch_unknown"
    assert network.refused(replace(first, chain_id=1)) == "chain_mismatch"
    assert network.refused(first, ledger=PAYEE) == "chain_mismatch"
    assert network.refused(replace(first, ledger=PAYEE)) == "chain_mismatch"
    assert network.refused(first, seed=OTHER) == "proof_invalid"
    forged = replace(first.statements[0], leaf=leaf(COMPUTE, 701, 701))
    assert network.refused(replace(first, statements=(forged,))) == "contract_refused"
    assert network.tokens(WALLET) == 0
