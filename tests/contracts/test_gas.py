"""What each transaction costs on the local chain: py-evm, a block each, storage cold as anywhere.

Run with `-s` to see the table. The bounds are the project's goals; most figures are far below.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from assay_contracts import calls
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.ed25519_hints import signed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, contract_address, poster_key
from assay_protocol.credit_tree import CreditLeaf
from assay_protocol.signing import Identity
from contracts.books import Books, account, node_hash
from contracts.evm import Wiring
from contracts.frauds import FRAUDS

POST_GAS_MAX: Final = 90_000
CLAIM_AGAIN_GAS_MAX: Final = 105_000  # of 2^20 leaves
POSTER: Final = poster_key(bytes(range(32)))
TIMELOCK: Final = bytes([0x71]) * 20
LEDGER, REGISTRY, TOKEN = "CreditLedger", "NodeRegistry", "CreditToken"
WIRING: Final = Wiring(window=1_000)
IDENTITY: Final = Identity(bytes(range(32)))  # the poster's key, and of the account that claims
KEY: Final = IDENTITY.public_key


class Chain:
    """The contracts on a local chain; every call is mined."""

    def __init__(self, chain: LocalChain, clock: Any) -> None:
        self.chain, self.clock = chain, clock
        self.me = address_of(POSTER)
        names = ("Ed25519Verifier", TOKEN, REGISTRY, LEDGER)
        self.at = {name: contract_address(self.me, nonce) for nonce, name in enumerate(names)}
        bonds = (WIRING.min_bond, WIRING.min_bond_low, WIRING.min_bond_high)
        registry = (self.at["Ed25519Verifier"], self.at[TOKEN], self.me, TIMELOCK, 0, 0, *bonds)
        wired = (self.at[TOKEN], self.at[REGISTRY], TIMELOCK)
        ledger = (self.me, KEY, *wired, WIRING.window, 300, 50, 4_000, bytes(20), 0)
        for creation in (
            calls.constructor("Ed25519Verifier"),
            calls.constructor(TOKEN, self.at[LEDGER], TIMELOCK),
            calls.constructor(REGISTRY, registry),
            calls.constructor(LEDGER, ledger),
        ):
            chain.send(POSTER, None, creation, gas=10_000_000)

    def gas(self, contract: str, function: str, *arguments: object) -> int:
        """Of the transaction, which must succeed."""
        data = calls.encode(contract, function, *arguments)
        return self.chain.send(POSTER, self.at[contract], data, gas=10_000_000).gas_used

    def sign_in(self, function: str, *arguments: object) -> int:
        """`register` or `bind` with the key's own signature."""
        nonce = calls.decode(
            REGISTRY,
            "nonceOf",
            self.chain.call(self.at[REGISTRY], calls.encode(REGISTRY, "nonceOf", KEY)),
        )[0]
        domain = f"assay/1/{function.capitalize()}\0".encode()
        place = self.chain.chain_id.to_bytes(32) + self.at[REGISTRY]
        consent = signed(IDENTITY, domain + place + self.me + nonce.to_bytes(32))
        return self.gas(REGISTRY, function, KEY, *arguments, consent)

    def pass_window(self) -> None:
        self.clock.now += WIRING.window + 100  # blocks without a tick are a second apart

    def post(self, epoch: int, header: Header) -> int:
        self.clock.now += 1
        return self.gas(LEDGER, "post", epoch, header)


@pytest.fixture
def mined(chain_path: Path, clock: Any) -> Iterator[Chain]:
    genesis = Genesis(address_of(POSTER))
    with LocalChain.open(chain_path, genesis=genesis, clock=clock) as opened:
        yield Chain(opened, clock)


def deep(depth: int, cumulative: int, credit: int) -> tuple[Header, CreditLeaf, int, bytes]:
    """A tree of 2^depth leaves, all of them padding but one: the siblings of a leaf in a full tree
    look no different to the contract. Gives a header, the leaf, its index and its proof."""
    leaf = CreditLeaf(KEY, 0, cumulative, credit, bytes([9]) * 32)
    index = (1 << depth) * 2 // 3
    node, total, place = leaf.hash, leaf.cumulative, index
    items = []
    for level in range(depth):
        sibling = (bytes([level + 1]) * 32, 10**9 << level)  # sums of a plausible size
        items.append(sibling)
        pair = ((node, total), sibling)
        node = node_hash(*(reversed(pair) if place & 1 else pair))
        total += sibling[1]
        place >>= 1
    proof = b"".join(digest + amount.to_bytes(16) for digest, amount in items)
    header = Header(node, total, 10**6, 1 << depth, bytes([0xAB]) * 32, bytes([0xCD]) * 32)
    return header, leaf, index, proof


def show(what: str, gas: int) -> None:
    print(f"{what:<40}{gas:>10,}")


def test_posts_stay_flat(mined: Chain) -> None:
    figures = [mined.post(e, deep(20, 10**9 * e, 10**9)[0]) for e in range(1, 4)]
    mined.pass_window()
    figures += [mined.post(e, deep(20, 10**9 * e, 10**9)[0]) for e in range(4, 6)]
    show("post, first / next / settles 2", figures[0])
    for gas in figures[1:]:
        show("", gas)
    assert max(figures[1:]) <= POST_GAS_MAX


@pytest.mark.parametrize("depth", [4, 10, 17, 20, 30])
def test_claims(mined: Chain, depth: int) -> None:
    first, again = (deep(depth, 10**9 * e, 10**9) for e in (1, 2))
    mined.sign_in("bind", mined.me)
    mined.post(1, first[0])
    mined.post(2, again[0])
    mined.pass_window()
    mined.gas(LEDGER, "settle", 2)
    claims = [mined.gas(LEDGER, "claim", e, *tree[1:]) for e, tree in ((1, first), (2, again))]
    show(f"claim, depth {depth}, first", claims[0])
    show(f"claim, depth {depth}, again", claims[1])
    if depth == 20:
        assert claims[1] <= CLAIM_AGAIN_GAS_MAX


def test_the_registry(mined: Chain) -> None:
    books = Books()
    mined.post(1, books.book({(KEY, 0): [10**6]}).header())
    mined.pass_window()
    show("bind", mined.sign_in("bind", mined.me))
    mined.gas(LEDGER, "claim", 1, *books.epochs[1].place(0))
    mined.gas(TOKEN, "approve", mined.at[REGISTRY], 2**256 - 1)
    show("register", mined.sign_in("register", 500))
    show("activate", mined.gas(REGISTRY, "activate", KEY))
    mined.post(2, books.book({}).header())
    show("attest", mined.gas(LEDGER, "attest", 2, KEY))
    show("topUp", mined.gas(REGISTRY, "topUp", KEY, 5))
    slashed = mined.gas(REGISTRY, "slash", KEY, 10, mined.me, 4_000, bytes(32))
    show("slash", slashed)
    show("beginExit", mined.gas(REGISTRY, "beginExit", KEY))
    show("withdraw", mined.gas(REGISTRY, "withdraw", KEY))
    mined.gas(TOKEN, "approve", mined.at[LEDGER], 2**256 - 1)
    show("demand", mined.gas(LEDGER, "demand", 2, 0))
    show("answer (1 leaf)", mined.gas(LEDGER, "answer", 2, books.epochs[2].place(0)))


@pytest.mark.parametrize("kind", sorted(FRAUDS))
def test_proofs_of_fraud(mined: Chain, kind: str) -> None:
    """In trees of about 1,000 leaves, with a bond to slash."""
    books = Books()
    books.book({(KEY, 0): [10**6]} | {(account(i), 0): [10**6] for i in range(2, 1_000)})
    mined.post(1, books.epochs[1].header())
    mined.sign_in("bind", mined.me)
    mined.pass_window()
    mined.gas(LEDGER, "claim", 1, *books.epochs[1].place(0))
    mined.gas(TOKEN, "approve", mined.at[REGISTRY], 2**256 - 1)
    mined.sign_in("register", 500)
    fraud = FRAUDS[kind](books)
    mined.post(2, fraud.epoch.header(fraud.leaves))
    function, *arguments = fraud.challenge(2)
    show(f"{function} ({kind})", mined.gas(LEDGER, str(function), *arguments))
